"""Masks are the documented AES-256-CTR keystream, cancel exactly, and are no linear generator."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from secagg import masking
from secagg.entropy import SeededEntropy
from secagg.errors import ParameterError
from secagg.masking import SEGMENT_BYTES, add_mask, apply_masks
from secagg.ring import reduce, word_dtype
from tests.secagg.vectors import nist_vectors

SEGMENT = SEGMENT_BYTES // 4
LENGTHS = [1, 2, 3, 4, 5, 1000, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 7]


def keystream_by_plain_ctr(key, length, dtype):
    """The definition in the module's docstring, by the CTR mode of `cryptography`."""
    size = length * dtype.itemsize
    segments = []
    for index in range(-(-size // SEGMENT_BYTES)):
        start = index.to_bytes(12, "big") + (2).to_bytes(4, "big")
        cipher = Cipher(algorithms.AES256(key), modes.CTR(start)).encryptor()
        segments.append(cipher.update(bytes(SEGMENT_BYTES)))
    return np.frombuffer(b"".join(segments)[:size], dtype=dtype)


@pytest.mark.parametrize("bits", [1, 26, 31, 32, 33, 62])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_mask_is_the_documented_keystream(bits, length):
    vector = np.zeros(length, word_dtype(bits))
    add_mask(vector, b"k" * 32, 1, bits=bits)
    np.testing.assert_array_equal(vector, keystream_by_plain_ctr(b"k" * 32, length, vector.dtype))


@pytest.mark.parametrize("place", [1, 2])
def test_rfc_3686_keystream(place):
    """RFC 3686 counts from block 1: with its nonce and IV as the segment, our first block is its second."""
    vector = nist_vectors("ciphers/AES/CTR/aes-256-ctr.txt", direction="ENCRYPT")[place]
    published = bytes(a ^ b for a, b in zip(vector["plaintext"], vector["ciphertext"], strict=True))[16:]
    part = np.zeros(len(published) // 4, "<u4")
    segment = int.from_bytes(vector["iv"][:12], "big")
    masking._mask_segment(part, segment, [(AESGCM(vector["key"]), np.add)], bytearray(part.nbytes + 16))
    assert vector["iv"][12:] == (1).to_bytes(4, "big")
    assert part.tobytes() == published


@given(
    st.sampled_from([1, 26, 32, 33, 62]),
    st.integers(1, 300),
    st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.sampled_from([1, -1])), max_size=6),
)
def test_masks_and_their_negatives_cancel_in_any_order(bits, length, masks):
    vector = np.arange(length, dtype=word_dtype(bits))
    apply_masks(vector, masks, bits=bits)
    apply_masks(vector, reversed([(key, -sign) for key, sign in masks]), bits=bits)
    assert vector.tolist() == list(range(length))


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("length", [10, 2 * SEGMENT, 5 * SEGMENT + 11])
def test_threads_give_the_same_sum(threads, length):
    entropy = SeededEntropy(bytes(32))
    masks = [(entropy(32), sign) for sign in (1, -1, 1, 1, -1)]
    alone, together = np.zeros(length, "<u4"), np.zeros(length, "<u4")
    apply_masks(alone, masks, bits=32)
    apply_masks(together, iter(masks), bits=32, threads=threads)
    np.testing.assert_array_equal(alone, together)


def test_more_masks_than_fit_one_group_are_all_added():
    entropy = SeededEntropy(bytes(32))
    masks = [(entropy(32), 1) for _ in range(600)]
    together, one_by_one = np.zeros(9, "<u8"), np.zeros(9, "<u8")
    apply_masks(together, masks, bits=62)
    for key, sign in masks:
        add_mask(one_by_one, key, sign, bits=62)
    np.testing.assert_array_equal(together, one_by_one)


def test_segments_of_one_mask_differ():
    vector = np.zeros(2 * SEGMENT, "<u4")
    add_mask(vector, bytes(32), 1, bits=32)
    assert not np.array_equal(vector[:SEGMENT], vector[SEGMENT:])


def test_low_bit_plane_has_the_linear_complexity_of_a_random_sequence():
    """Berlekamp-Massey over n = 41,000 bits, fixed key: a random sequence has n/2 within a few bits
    (its deviation has variance 86/81); a 19,937-bit generator stops at 19,937, which the last line shows.
    """
    count = 41_000
    vector = np.zeros(count, "<u4")
    add_mask(vector, b"q" * 32, 1, bits=26)
    assert abs(linear_complexity(vector & 1) - count // 2) < 30
    twister = np.random.Generator(np.random.MT19937(1)).integers(0, 2**32, count, dtype=np.uint32)
    assert linear_complexity(twister & 1) <= 19_937


def linear_complexity(bits):
    """Berlekamp-Massey over GF(2), polynomials as Python integers."""
    current, previous, length, gap, history = 1, 1, 0, 1, 0
    for count, bit in enumerate(bits.tolist()):
        history = history << 1 | bit
        if (current & history).bit_count() & 1 == 0:
            gap += 1
        elif 2 * length <= count:
            current, previous, length, gap = current ^ previous << gap, current, count + 1 - length, 1
        else:
            current, gap = current ^ previous << gap, gap + 1
    return length


def test_masked_values_are_uniform():
    """Chi-square of the top 6 of 26 bits, n = 65,536, fixed key, alpha 1e-6: 63 degrees of freedom, limit 142.

    Power: a mask whose top value is never drawn (one empty cell of 64) has an expected statistic above 1,000.
    """
    vector = np.zeros(65_536, "<u4")
    add_mask(vector, b"u" * 32, 1, bits=26)
    reduce(vector, 26)
    assert chi_square(vector >> 20) < 142
    assert chi_square((vector >> 20) % 63) > 142


def chi_square(cells):
    counts = np.bincount(cells, minlength=64)
    expected = len(cells) / 64
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize(
    ("dtype", "key", "sign"),
    [("<u8", bytes(32), 1), ("<i4", bytes(32), 1), ("<u4", bytes(31), 1), ("<u4", bytes(32), 0)],
)
def test_other_words_keys_and_signs_are_refused(dtype, key, sign):
    with pytest.raises(ParameterError):
        add_mask(np.zeros(4, dtype), key, sign, bits=26)
