"""Any t shares give the secret, t - 1 say nothing, and every value out of range is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.entropy import SeededEntropy, system_entropy
from secagg.errors import MalformedMessage, ParameterError
from secagg.prime_field import lagrange_weights
from secagg.reed_solomon import consistent
from secagg.shamir import (
    MAX_SHARES,
    PRIME,
    decode_share,
    encode_share,
    reconstruct,
    share,
)

SECRETS = st.one_of(
    st.binary(min_size=32, max_size=32), st.sampled_from([bytes(32), b"\xff" * 32, bytes(31) + b"\x80"])
)


@st.composite
def sharings(draw):
    shares = draw(st.integers(2, 30))
    threshold = draw(st.integers(2, shares))
    secrets = draw(st.lists(SECRETS, min_size=1, max_size=4))
    points = draw(st.permutations(range(1, shares + 1)))[:threshold]
    return secrets, threshold, shares, points


def at(dealt, points):
    return dealt[:, [point - 1 for point in points]]


@given(sharings())
def test_any_threshold_of_shares_gives_the_secrets_back(case):
    secrets, threshold, shares, points = case
    dealt = share(secrets, threshold=threshold, shares=shares, entropy=system_entropy)
    assert dealt.shape == (len(secrets), shares, 18)
    assert reconstruct(points, at(dealt, points)) == secrets


@given(sharings())
def test_shares_are_the_polynomials_values_by_python_integers(case):
    secrets, threshold, shares, _ = case
    dealt = share(secrets, threshold=threshold, shares=shares, entropy=SeededEntropy(bytes(32)))
    drawn = replayed_coefficients((threshold - 1) * len(secrets) * 18, SeededEntropy(bytes(32)))
    for i, secret in enumerate(secrets):
        for word in range(18):
            constant = (int.from_bytes(secret, "little") >> (15 * word)) & 0x7FFF
            column = 18 * i + word
            polynomial = [constant, *drawn[column :: 18 * len(secrets)]]
            for x in (1, shares):
                assert dealt[i, x - 1, word] == sum(c * x**j for j, c in enumerate(polynomial)) % PRIME


def replayed_coefficients(count, entropy):
    drawn = []
    while len(drawn) < count:
        data = entropy(2 * (count - len(drawn)))
        words = (int.from_bytes(data[i : i + 2], "little") for i in range(0, len(data), 2))
        drawn += [word for word in words if word < PRIME]
    return drawn


@pytest.mark.parametrize("count", [63, 64, 65, 200])
def test_batches_larger_than_a_block_come_back_in_order(count):
    secrets = [bytes([i]) * 32 for i in range(count)]
    dealt = share(secrets, threshold=2, shares=2, entropy=system_entropy)
    assert reconstruct([1, 2], dealt) == secrets


def test_coefficients_are_drawn_by_rejection():
    """Words 65521 to 65535 are thrown away, not folded onto 0..14; a zero coefficient is kept."""
    stream = iter([0xFFFF, 0xFFF1] * 9 + [0xFFF0] * 9 + [0] * 9)
    calls = []

    def entropy(count):
        calls.append(count)
        return b"".join(next(stream).to_bytes(2, "little") for _ in range(count // 2))

    dealt = share([bytes(32)], threshold=2, shares=1 + 1, entropy=entropy)
    assert calls == [36, 36]
    assert dealt[0, 0].tolist() == [0xFFF0] * 9 + [0] * 9


def test_fewer_shares_than_the_threshold_fit_every_secret():
    """t - 1 shares and any guess of the secret lie on one polynomial: no guess is ruled out."""
    dealt = share([b"\x55" * 32], threshold=4, shares=6, entropy=system_entropy)
    guess = share([b"\xaa" * 32], threshold=2, shares=2, entropy=system_entropy)
    words = reconstruct_words(guess)
    for points in itertools.combinations(range(1, 7), 3):
        weights = lagrange_weights((*points, 7))
        known = sum(int(w) * dealt[0, x - 1].astype(int) for w, x in zip(weights, points, strict=False))
        last = (words - known) * pow(int(weights[3]), -1, PRIME) % PRIME
        completed = np.concatenate(
            [at(dealt, points), last.astype(np.uint16)[np.newaxis, np.newaxis]], axis=1
        )
        assert reconstruct((*points, 7), completed) == [b"\xaa" * 32]


def reconstruct_words(dealt):
    weights = lagrange_weights((1, 2))
    return sum(int(w) * dealt[0, i].astype(int) for i, w in enumerate(weights)) % PRIME


def test_one_share_of_many_sharings_of_one_secret_is_uniform():
    """Chi-square over 64 cells, n = 36,000 words, seed fixed, alpha 1e-6: 63 degrees of freedom, limit 142.

    Power: the unshared words of the same secret fill one cell only.
    """
    dealt = share([b"\x01" * 32] * 2000, threshold=3, shares=3, entropy=SeededEntropy(b"u" * 32))
    statistic = chi_square(dealt[:, 1].reshape(-1))
    assert statistic < 142
    assert chi_square(np.full(36_000, 0x101)) > 142


def chi_square(words):
    counts, _ = np.histogram(words, bins=64, range=(0, PRIME))
    expected = len(words) / 64
    return float(((counts - expected) ** 2 / expected).sum())


def test_the_generator_has_full_order():
    for prime in (2, 3, 5, 7, 13):
        assert (PRIME - 1) % prime == 0
        assert pow(17, (PRIME - 1) // prime, PRIME) != 1


@given(st.lists(st.integers(1, MAX_SHARES), min_size=1, max_size=12, unique=True))
def test_lagrange_weights_match_their_definition(points):
    for i, weight in enumerate(lagrange_weights(tuple(points))):
        expected = 1
        for k, x in enumerate(points):
            if k != i:
                expected = expected * x * pow(x - points[i], -1, PRIME) % PRIME
        assert weight == expected


@settings(max_examples=5)
@given(st.integers(2, 60))
def test_the_largest_word_in_the_largest_sharing_is_exact(threshold):
    """Coefficients of p - 1 everywhere, at the largest points: t * p^2 stays below 2^53."""
    points = tuple(range(MAX_SHARES, MAX_SHARES - threshold, -1))
    constant = np.full((1, threshold, 18), 1, dtype=np.uint16)
    assert reconstruct(points, constant) == [sum(1 << (15 * w) for w in range(18)).to_bytes(32, "little")]


@given(sharings(), st.data())
def test_one_changed_word_among_spare_shares_is_seen(case, data):
    secrets, threshold, shares, _ = case
    dealt = share(secrets, threshold=threshold, shares=shares, entropy=system_entropy)
    points = range(1, shares + 1)
    assert consistent(points, dealt, threshold=threshold).all()
    secret = data.draw(st.integers(0, len(secrets) - 1))
    dealt[secret, data.draw(st.integers(0, shares - 1)), data.draw(st.integers(0, 17))] ^= 1
    seen = consistent(points, dealt, threshold=threshold)
    assert seen.tolist() == [i != secret or shares == threshold for i in range(len(secrets))]


def test_a_polynomial_of_too_high_a_degree_is_seen():
    dealt = share([bytes(32)], threshold=5, shares=8, entropy=system_entropy)
    assert not consistent(range(1, 9), dealt, threshold=4).any()
    assert consistent([2, 4, 6, 8], at(dealt, [2, 4, 6, 8]), threshold=4).all()


@pytest.mark.parametrize(("word", "value"), [(0, 1 << 15), (16, 1 << 15), (17, 2), (17, PRIME - 1)])
def test_a_recovered_word_out_of_range_is_reported(word, value):
    words = np.zeros((2, 2, 18), dtype=np.uint16)
    words[1, :, word] = value
    assert reconstruct([1, 2], words) == [bytes(32), None]


@pytest.mark.parametrize("points", [[0, 1], [1, PRIME], [2, 2], [-1, 1], [1, PRIME + 1], []])
def test_points_that_would_be_the_secret_or_repeat_are_refused(points):
    with pytest.raises(ParameterError, match="distinct and in"):
        reconstruct(points, np.zeros((1, len(points), 18), dtype=np.uint16))
    with pytest.raises(ParameterError, match="distinct and in"):
        consistent(points, np.zeros((1, len(points), 18), dtype=np.uint16), threshold=1)


@pytest.mark.parametrize(("threshold", "shares"), [(1, 3), (0, 3), (4, 3), (2, MAX_SHARES + 1), (-1, 3)])
def test_thresholds_out_of_range_are_refused(threshold, shares):
    with pytest.raises(ParameterError, match="threshold"):
        share([bytes(32)], threshold=threshold, shares=shares, entropy=system_entropy)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_secrets_of_another_length_are_refused(length):
    with pytest.raises(ParameterError, match="only 32"):
        share([bytes(length)], threshold=2, shares=3, entropy=system_entropy)


@given(st.lists(st.integers(0, PRIME - 1), min_size=18, max_size=18))
def test_shares_survive_the_wire(words):
    data = encode_share(np.array(words, dtype=np.uint16))
    assert len(data) == 36
    assert decode_share(data).tolist() == words


@pytest.mark.parametrize(
    "data", [bytes(35), bytes(37), b"", b"\xf1\xff" + bytes(34), bytes(34) + b"\xff\xff"]
)
def test_malformed_shares_are_refused(data):
    with pytest.raises(MalformedMessage):
        decode_share(data)
