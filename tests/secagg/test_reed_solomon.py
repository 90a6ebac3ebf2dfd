"""Wrong shares are found up to half of the spare ones whoever chose them, and most of the time beyond."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.entropy import SeededEntropy, system_entropy
from secagg.errors import ParameterError
from secagg.prime_field import PRIME
from secagg.reed_solomon import consistent, outliers
from secagg.shamir import MAX_SHARES, share


@st.composite
def sharings(draw):
    shares = draw(st.integers(2, 30))
    threshold = draw(st.integers(2, shares))
    points = draw(st.lists(st.integers(1, shares), min_size=threshold, max_size=shares, unique=True))
    dealt = share(
        [draw(st.binary(min_size=32, max_size=32))],
        threshold=threshold,
        shares=shares,
        entropy=system_entropy,
    )
    return points, dealt[0, [point - 1 for point in points]], threshold


@settings(deadline=None)
@given(sharings(), st.data())
def test_half_of_the_spare_shares_may_be_wrong_in_any_way(case, data):
    """Also by one and the same amount, in one word only, or onto another polynomial."""
    points, shares, threshold = case
    half = (len(points) - threshold) // 2
    wrong = data.draw(st.lists(st.integers(0, len(points) - 1), max_size=half, unique=True))
    words = data.draw(st.lists(st.integers(0, 17), min_size=1, max_size=3, unique=True))
    way = data.draw(st.sampled_from(["same", "different", "other polynomial"]))
    other = share([bytes(32)], threshold=threshold, shares=30, entropy=SeededEntropy(bytes(32)))[0]
    for turn, index in enumerate(wrong):
        for word in words:
            amount = {
                "same": 1,
                "different": 1 + turn,
                "other polynomial": int(other[points[index] - 1, word]),
            }[way]
            shares[index, word] = (int(shares[index, word]) + max(1, amount)) % PRIME
    assert outliers(points, shares, threshold=threshold) == sorted(wrong)


@pytest.mark.parametrize(("count", "threshold", "wrong"), [(30, 10, 18), (53, 28, 23), (100, 51, 46)])
def test_random_errors_are_found_far_beyond_half(count, threshold, wrong):
    """18 of 19 spare shares wrong at random, in all words; fixed seed."""
    assert wrong <= 18 * (count - threshold) // 19
    assert wrong > (count - threshold) // 2
    rng = np.random.default_rng(7)
    shares = share([b"s" * 32], threshold=threshold, shares=count, entropy=SeededEntropy(bytes(32)))[0]
    places = np.sort(rng.choice(count, wrong, replace=False))
    shares[places] = rng.integers(0, PRIME, (wrong, 18))
    assert outliers(range(1, count + 1), shares, threshold=threshold) == places.tolist()


def test_too_many_wrong_shares_are_not_told_apart():
    rng = np.random.default_rng(8)
    shares = rng.integers(0, PRIME, (9, 18)).astype(np.uint16)
    assert outliers(range(1, 10), shares, threshold=5) is None


@given(st.integers(2, 12))
def test_as_many_shares_as_the_threshold_always_fit(threshold):
    shares = np.random.default_rng(threshold).integers(0, PRIME, (threshold, 18)).astype(np.uint16)
    assert outliers(range(1, threshold + 1), shares, threshold=threshold) == []
    assert consistent(range(1, threshold + 1), shares[np.newaxis], threshold=threshold).all()


def test_the_largest_points_are_exact():
    """Locators are evaluated at points up to p - 1."""
    points = list(range(MAX_SHARES - 8, MAX_SHARES + 1))
    shares = np.full((9, 18), 5, np.uint16)
    shares[[0, 8]] = PRIME - 1
    assert outliers(points, shares, threshold=5) == [0, 8]


@pytest.mark.parametrize("points", [[0, 1, 2], [1, 1, 2], [1, 2, PRIME]])
def test_points_that_repeat_or_are_no_points_are_refused(points):
    with pytest.raises(ParameterError, match="distinct and in"):
        outliers(points, np.zeros((3, 18), np.uint16), threshold=2)
