"""Packing is exact at every width, canonical, and adds straight into a sum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import ring
from secagg.errors import MalformedMessage, ParameterError
from secagg.ring import add_packed, as_words, pack, packed_size, reduce, unpack, word_dtype

EDGE_BITS = (1, 2, 16, 26, 31, 32, 33, 48, 61, 62)
EDGE_LENGTHS = (0, 1, 30, 31, 32, 33, 63, 64, 65, 960, 991, 992, 993, 1023, 1025, 4099)


@pytest.fixture(autouse=True, scope="module", params=["all rows at once", "row by row"])
def way(request):
    """Vectors of every length go the way of short ones and that of long ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "_SHORT", 1 << 10 if request.param == "all rows at once" else -1)
        yield


@st.composite
def vectors(draw):
    bits = draw(st.integers(1, 62))
    values = draw(st.lists(st.integers(0, 2**bits - 1), max_size=100))
    return bits, np.array(values, dtype=np.uint64)


def packed_by_the_definition(values, bits):
    """The layout of the module's docstring, one bit string per column, with Python's integers."""
    width = -(-len(values) // 32)
    columns = [0] * width
    for place, value in enumerate(values):
        row, column = divmod(place, width)
        columns[column] |= int(value) << (row * bits)
    words = [(column >> (32 * word)) & 0xFFFFFFFF for word in range(bits) for column in columns]
    return b"".join(word.to_bytes(4, "little") for word in words)


@given(vectors())
def test_packing_follows_the_documented_layout(case):
    bits, values = case
    assert pack(as_words(values, bits), bits) == packed_by_the_definition(values, bits)


@pytest.mark.parametrize("bits", EDGE_BITS)
@pytest.mark.parametrize("length", EDGE_LENGTHS)
def test_what_was_packed_comes_back(bits, length):
    values = np.random.default_rng(length).integers(0, 2**bits, length, dtype=np.uint64)
    for vector in (values, np.zeros_like(values), np.full_like(values, 2**bits - 1)):
        data = pack(as_words(vector, bits), bits)
        assert len(data) == packed_size(length, bits)
        back = unpack(data, length=length, bits=bits)
        assert back.dtype == word_dtype(bits)
        np.testing.assert_array_equal(back, vector)


@given(vectors(), st.data())
def test_packed_vectors_add_modulo_the_ring(case, data):
    bits, first = case
    second = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=len(first), max_size=len(first)))
    total = as_words(first, bits)
    add_packed(total, pack(as_words(np.array(second, dtype=np.uint64), bits), bits), bits)
    reduce(total, bits)
    assert total.tolist() == [(int(a) + b) % 2**bits for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize("bits", EDGE_BITS)
def test_bits_above_the_modulus_do_not_leak_into_neighbours(bits):
    word = word_dtype(bits)
    noisy = np.full(70, np.iinfo(word).max, dtype=word)
    assert pack(noisy, bits) == pack(as_words(np.full(70, 2**bits - 1, dtype=np.uint64), bits), bits)


@pytest.mark.parametrize("bits", EDGE_BITS)
@pytest.mark.parametrize("length", [1, 31, 33, 993, 1025])
def test_every_single_padding_bit_is_refused_and_nothing_is_added(bits, length):
    width = -(-length // 32)
    good = bytearray(packed_size(length, bits))
    for place in range(length, 32 * width):
        row, column = divmod(place, width)
        for bit in {0, bits - 1}:
            word, shift = divmod(row * bits + bit, 32)
            bad = bytearray(good)
            bad[4 * (word * width + column) + shift // 8] |= 1 << (shift % 8)
            total = np.zeros(length, word_dtype(bits))
            with pytest.raises(MalformedMessage, match="padding"):
                add_packed(total, bytes(bad), bits)
            assert not total.any()


@given(st.binary(max_size=80), st.integers(0, 70), st.integers(1, 62))
def test_unpacking_any_bytes_gives_canonical_values_or_a_typed_error(data, length, bits):
    try:
        vector = unpack(data, length=length, bits=bits)
    except MalformedMessage:
        return
    assert pack(vector, bits) == data


@pytest.mark.parametrize("change", [-1, 1, 4])
def test_another_length_is_refused(change):
    size = packed_size(100, 26)
    with pytest.raises(MalformedMessage, match="100 values of 26 bits"):
        unpack(bytes(size + change), length=100, bits=26)


@pytest.mark.parametrize("dtype", [">u2", ">i8", "<u8", "<i4", "u1", ">u4"])
def test_values_of_any_integer_type_and_byte_order_are_taken(dtype):
    words = as_words(np.array([0, 1, 100], dtype=dtype), 26)
    assert words.dtype == np.dtype("<u4")
    assert words.tolist() == [0, 1, 100]


def test_words_are_a_copy():
    values = np.zeros(3, dtype="<u4")
    assert not np.shares_memory(as_words(values, 26), values)


@pytest.mark.parametrize(
    "values",
    [
        [-1],
        [-1, 5],
        [2**26],
        np.array([2**63], np.uint64),
        [0.5],
        [True],
        [[1]],
        3,
        np.array([1], object),
        ["1"],
    ],
)
def test_values_that_are_no_ring_elements_are_refused(values):
    with pytest.raises(ParameterError):
        as_words(values, 26)


@pytest.mark.parametrize("bits", [-1, 0, 63, 64])
def test_other_moduli_are_refused(bits):
    with pytest.raises(ParameterError, match="1 to 62 bits"):
        word_dtype(bits)
