"""Vectors of integers modulo 2^b, b from 1 to 62, and their packing at exactly b bits a value.

A vector lives in unsigned words ('<u4' up to 32 bits, '<u8' above) whose sums wrap naturally; only the low b
bits of a word carry meaning, so nothing is reduced before the vector is packed or released.

Packed form (Veilsum's own; a planar layout, so that whole rows are shifted at once): a vector of d values is
32 rows of w = ceil(d/32) values, row r holding values r*w to (r+1)*w, the missing ones at the end zero.
Column c is a number of 32*b bits whose bits r*b to (r+1)*b are value r*w + c; it is stored as b words of 32
bits, least significant first, and word j of column c is the little-endian word j*w + c of the bytes.

Invariants:

- the packed length follows from d and b alone: 4 * b * ceil(d/32) bytes, at most 31 values of padding;
- packing is canonical: another length, or a padding bit that is set, is refused before anything is added.

Not here: masks (`secagg.masking`), and whether a sum can wrap (`secagg.parameters`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from secagg.errors import MalformedMessage, ParameterError

__all__ = [
    "Words",
    "add_packed",
    "as_words",
    "checked",
    "pack",
    "packed_size",
    "reduce",
    "unpack",
    "word_dtype",
]

Words = npt.NDArray[np.unsignedinteger[Any]]

_MAX_BITS = 62
_ROWS = 32
_PACKED = np.dtype("<u4")
_SHORT = 1 << 10  # Rows up to this width cost more in calls than in work, one by one.
_PADDED = "padding bits are set in a packed vector"


def word_dtype(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the word type that holds values modulo 2^bits.

    Raises:
        ParameterError: `bits` is outside 1..62.
    """
    if not 1 <= bits <= _MAX_BITS:
        raise ParameterError(f"a modulus of {bits} bits was asked for; use 1 to {_MAX_BITS} bits")
    return np.dtype("<u4" if bits <= 32 else "<u8")


def checked(values: npt.ArrayLike, bits: int) -> npt.NDArray[np.integer[Any]]:
    """Return the given values as an array, once it is sure that they are ring elements; no copy is made.

    Args:
        values: a one-dimensional array of integers in [0, 2^bits), of any integer type and byte order.
        bits: the modulus is 2^bits.

    Raises:
        ParameterError: not one-dimensional, not integers, or a value out of range.
    """
    word_dtype(bits)
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ParameterError(
            f"an array of {array.dtype} with {array.ndim} dimensions was given; "
            "pass one dimension of integers (round and reduce first)"
        )
    if array.size and ((array.dtype.kind == "i" and array.min() < 0) or int(array.max()) >> bits):
        raise ParameterError(f"a value lies outside [0, 2^{bits}); reduce it or use more modulus bits")
    return array


def as_words(values: npt.ArrayLike, bits: int) -> Words:
    """Return a fresh word vector with the given values, which `checked` looks at first.

    >>> as_words(np.array([1, 2], dtype=">i8"), 26)
    array([1, 2], dtype=uint32)
    """
    return checked(values, bits).astype(word_dtype(bits))


def reduce(vector: Words, bits: int) -> None:
    """Clear, in place, every bit of `vector` above the low `bits`."""
    dtype = word_dtype(bits)
    np.bitwise_and(vector, dtype.type((1 << bits) - 1), out=vector)


def packed_size(length: int, bits: int) -> int:
    """Return the bytes that `length` values take at `bits` bits each.

    >>> packed_size(2**20, 26) * 8 / 2**20
    26.0
    """
    return _PACKED.itemsize * bits * _row_width(length)


def pack(vector: Words, bits: int) -> memoryview:
    """Pack the low `bits` bits of every word of a one-dimensional vector.

    Returns:
        `packed_size` bytes, as a view, so that the message they go into is the only copy.

    >>> unpack(pack(as_words([5, 0, 7], 3), 3), length=3, bits=3)
    array([5, 0, 7], dtype=uint32)
    """
    dtype = word_dtype(bits)
    width = _row_width(len(vector))
    if width <= _SHORT:
        return _pack_short(vector, bits).reshape(-1).view(np.uint8).data
    packed = np.zeros((bits, width), dtype=_PACKED)
    value, part = np.empty(width, dtype), np.empty(width, dtype)
    mask = dtype.type((1 << bits) - 1)
    for row in range(_ROWS):
        source = vector[row * width : (row + 1) * width]
        low, shifted = value[: len(source)], part[: len(source)]
        np.bitwise_and(source, mask, out=low)
        for word, shift in _pieces(row, bits):
            target = packed[word, : len(source)]
            if shift >= 0:
                np.right_shift(low, dtype.type(shift), out=target, casting="unsafe")
            else:
                np.left_shift(low, dtype.type(-shift), out=shifted)
                np.bitwise_or(target, shifted, out=target, casting="unsafe")
    return packed.reshape(-1).view(np.uint8).data


def unpack(data: bytes | memoryview, *, length: int, bits: int) -> Words:
    """Return the `length` values that `data` holds.

    Raises:
        MalformedMessage: another length, or padding that is not zero.
    """
    vector = np.zeros(length, word_dtype(bits))
    add_packed(vector, data, bits)
    reduce(vector, bits)
    return vector


def add_packed(accumulator: Words, data: bytes | memoryview, bits: int) -> None:
    """Add a packed vector to `accumulator` modulo 2^bits; bits above the low `bits` become arbitrary.

    Args:
        accumulator: a word vector of `word_dtype(bits)`; its length is the length that `data` must have.
        data: what `pack` gave; three times as fast where it starts at a multiple of four bytes in memory.
        bits: the modulus is 2^bits.

    Raises:
        MalformedMessage: another length, or padding that is not zero; then nothing was added.
    """
    length, dtype = len(accumulator), word_dtype(bits)
    width = _row_width(length)
    if len(data) != packed_size(length, bits):
        raise MalformedMessage(
            f"{len(data)} bytes of packed values arrived where {length} values of {bits} bits take "
            f"{packed_size(length, bits)}"
        )
    words = np.frombuffer(data, dtype=_PACKED).reshape(bits, width)
    if width <= _SHORT:
        values = _unpack_short(words, bits)
        if np.any(values[length:] & dtype.type((1 << bits) - 1)):
            raise MalformedMessage(_PADDED)
        np.add(accumulator, values[:length], out=accumulator)
        return
    _refuse_padding(words, length, bits)
    part = np.empty(width, dtype)
    for row in range(_ROWS):
        target = accumulator[row * width : (row + 1) * width]
        shifted = part[: len(target)]
        for word, shift in _pieces(row, bits):
            source = words[word, : len(target)]
            if shift >= 0:
                np.left_shift(source, dtype.type(shift), out=shifted, dtype=dtype)
            else:
                np.right_shift(source, dtype.type(-shift), out=shifted, dtype=dtype)
            np.add(target, shifted, out=target)


def _row_width(length: int) -> int:
    """Return how many values a row holds: ceil(length / 32)."""
    return -(-length // _ROWS)


def _pieces(row: int, bits: int) -> Iterator[tuple[int, int]]:
    """Yield (word, shift) for each word of a column that value `row` touches.

    The word holds the value shifted right by `shift` (left where `shift` is negative).
    """
    start = row * bits
    for word in range(start // 32, (start + bits - 1) // 32 + 1):
        yield word, 32 * word - start


def _refuse_padding(words: Words, length: int, bits: int) -> None:
    """Raise unless the values past `length` are zero."""
    width = words.shape[1]
    for row in range(length // width if width else _ROWS, _ROWS):
        missing = words[:, max(0, length - row * width) :].astype(np.uint64)
        value = np.zeros(missing.shape[1], np.uint64)
        for word, shift in _pieces(row, bits):
            piece = missing[word]
            value |= piece << np.uint64(shift) if shift >= 0 else piece >> np.uint64(-shift)
        if np.any(value & np.uint64((1 << bits) - 1)):
            raise MalformedMessage(_PADDED)


def _pack_short(vector: Words, bits: int) -> Words:
    """The packed words of a short vector, all rows at once."""
    dtype, width = word_dtype(bits), _row_width(len(vector))
    values = np.empty((_ROWS + 1) * width, dtype)  # The last row is zero, for words that few values touch.
    np.bitwise_and(vector, dtype.type((1 << bits) - 1), out=values[: len(vector)])
    values[len(vector) :] = 0
    rows = values.reshape(_ROWS + 1, width)
    packed = np.zeros((bits, width), _PACKED)
    for index, shifts, is_right in _packing(bits, dtype):
        part = rows.take(index, axis=0)
        (np.right_shift if is_right else np.left_shift)(part, shifts, out=part)
        np.bitwise_or(packed, part, out=packed, casting="unsafe")
    return packed


def _unpack_short(words: Words, bits: int) -> Words:
    """The values of a short packed vector with the padding, all rows at once; bits above the low `bits` arbitrary."""
    dtype = word_dtype(bits)
    values = np.zeros((_ROWS, words.shape[1]), dtype)
    for index, shifts, is_right in _unpacking(bits, dtype):
        part = words.take(index, axis=0).astype(dtype, copy=False)
        (np.right_shift if is_right else np.left_shift)(part, shifts, out=part)
        np.bitwise_or(values, part, out=values)
    return values.reshape(-1)


_Layer = tuple[npt.NDArray[np.int64], Words, bool]
"""Which row goes to each word (or which word to each row), its shift, and whether that is to the right."""


@lru_cache(maxsize=64)
def _packing(bits: int, dtype: np.dtype[np.unsignedinteger[Any]]) -> list[_Layer]:
    """Layers that give every word of a column when they are joined; row 32 stands for nothing."""
    pieces = [(word, row, shift) for row in range(_ROWS) for word, shift in _pieces(row, bits)]
    return _layers(pieces, bits, dtype, nothing=(_ROWS, 0))


@lru_cache(maxsize=64)
def _unpacking(bits: int, dtype: np.dtype[np.unsignedinteger[Any]]) -> list[_Layer]:
    """Layers that give every value of a column; where there is nothing more, a word shifted above the low bits."""
    pieces = [(row, word, -shift) for row in range(_ROWS) for word, shift in _pieces(row, bits)]
    return _layers(pieces, _ROWS, dtype, nothing=(0, -bits))


def _layers(
    pieces: list[tuple[int, int, int]],
    targets: int,
    dtype: np.dtype[np.unsignedinteger[Any]],
    nothing: tuple[int, int],
) -> list[_Layer]:
    """Sort pieces (target, source, shift to the right) into layers in which every target has one piece."""
    layers = []
    for is_right in (True, False):
        own: list[list[tuple[int, int]]] = [[] for _ in range(targets)]
        for target, source, shift in pieces:
            if (shift >= 0) == is_right:
                own[target].append((source, shift))
        for depth in range(max(map(len, own))):
            row = [held[depth] if depth < len(held) else nothing for held in own]
            shifts = np.array([abs(shift) for _, shift in row], dtype)[:, np.newaxis]
            layers.append((np.array([source for source, _ in row]), shifts, is_right))
    return layers
