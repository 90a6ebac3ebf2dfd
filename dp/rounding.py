"""From real numbers to integers: unbiased rounding, the norm it may lead to, and the norm it did lead to.

A vector of length d and norm R, rounded at random, has integer norm at most

    D = R + sqrt(d)                                                        always, and
    D = sqrt(R^2 + d/4 + sqrt(2 ln(1/beta)) (R + sqrt(d)/2))               with probability 1 - beta or more.

Rounding again until the second holds (conditional rounding) makes D smaller where R is not far above sqrt(d).

Source: Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), on (conditional) randomised rounding.
Not here: how large R is made (`encoding`, `compression`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dp.keystream import Keystream

__all__ = [
    "LARGEST_ROUNDED",
    "norm_after_rounding",
    "norm_before_rounding",
    "round_each_within",
    "round_within",
    "squared_norm",
    "stochastic_round",
]

LARGEST_ROUNDED = 2.0**50
"""Above this absolute value a float64 has no room left for the fraction that is rounded."""

_BLOCK = 1 << 14
_DOT = 1 << 13  # Longer dot products are shared among threads, which on a busy machine wait for each other.
_UNITS = 1 << 16
"""Into so many parts one random word divides an integer unit."""
# Added to a float of at most 2^67, this leaves the nearest multiple of _UNITS, and that over _UNITS in its last bits.
_TO_NEAREST = 1.5 * 2.0**52 * _UNITS
_TO_NEAREST_BITS = np.float64(_TO_NEAREST).view(np.int64)
_EXACT = 2.0**52
_ATTEMPTS = 64

Part: TypeAlias = tuple[NDArray[np.floating], float]
"""Values, and the factor that takes them to integer units."""


def norm_after_rounding(norm: float, length: int, retry_probability: float) -> float:
    """D for a real vector of norm R: the smaller of the two bounds above.

    Args:
        norm: R, in integer units.
        length: d.
        retry_probability: beta in [0, 1), largest probability that one attempt has to be repeated; 0 is the
            first bound, which always holds.

    >>> norm_after_rounding(100.0, 4, 0.0)
    102.0
    """
    certain = norm + math.sqrt(length)
    if retry_probability == 0:
        return certain
    spread = math.sqrt(-2 * math.log(retry_probability))
    return min(certain, math.sqrt(norm**2 + length / 4 + spread * (norm + math.sqrt(length) / 2)))


def norm_before_rounding(limit: float, length: int, retry_probability: float) -> float:
    """The largest R whose `norm_after_rounding` is `limit`; negative or 0 if there is none.

    >>> norm_before_rounding(102.0, 4, 0.0)
    100.0
    """
    certain = limit - math.sqrt(length)
    if retry_probability == 0:
        return certain
    spread = math.sqrt(-2 * math.log(retry_probability))
    square = limit**2 - length / 4 - spread * math.sqrt(length) / 2
    return max(certain, math.sqrt(max(0.0, spread**2 / 4 + square)) - spread / 2)


def round_within(
    values: NDArray[np.floating],
    keystream: Keystream,
    *,
    limit: int,
    retry_probability: float,
    factor: float = 1.0,
    out: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Round `factor * values` at random to integers whose squared norm is at most `limit`.

    Guarantee:
        The squared norm of what is returned was compared with `limit` in exact integer arithmetic. It is the first
        of up to 64 random roundings that passes (of one, if `retry_probability` is 0), else the values
        truncated toward zero, which are no longer than they were; else, if they were too long, zeros.

    Args:
        values: As in `stochastic_round`.
        keystream: Source of the random bits.
        limit: Largest squared norm.
        retry_probability: beta of the bound that `limit` was derived from.
        factor: As in `stochastic_round`.
        out: Where to put the integers; a new array, if left out.

    Source: Kairouz, Liu, Steinke 2021, conditional randomised rounding.
    """
    rounded = np.empty(len(values), dtype=np.int64) if out is None else out
    for _ in range(_ATTEMPTS if retry_probability else 1):
        if _round_into(rounded, [(values, factor)], keystream)[0] <= limit:
            return rounded
    _truncate_within(rounded, values, factor, limit)
    return rounded


def round_each_within(
    parts: Sequence[Part], keystream: Keystream, *, limits: Sequence[int], out: NDArray[np.int64]
) -> None:
    """Fill `out` with what `round_within` without retries gives for one part after the other, in one pass.

    Args:
        parts: Values and factor of each part, in the order in which they are laid out.
        keystream: Source of the random bits.
        limits: Largest squared norm of each part.
        out: Where to put the integers, as long as all parts together.
    """
    squares = _round_into(out, parts, keystream)
    end = 0
    for (values, factor), square, limit in zip(parts, squares, limits, strict=True):
        end += len(values)
        if square > limit:
            _truncate_within(out[end - len(values) : end], values, factor, limit)


def stochastic_round(
    values: NDArray[np.floating], keystream: Keystream, *, factor: float = 1.0
) -> NDArray[np.int64]:
    """Round each y = `factor * value` to one of its two neighbouring integers, so that its expectation is y.

    Guarantee:
        The bias of a coordinate y is at most 2^-16 + 2^-52 |y|: 15 random bits a coordinate, and two rounded float
        operations. Utility rests on that, privacy does not: the result's norm is checked exactly.

    Args:
        values: Floats, one-dimensional.
        keystream: Source of the random bits.
        factor: Integer units per unit of the values; products are up to 2^50 in absolute value.

    Returns:
        int64 array of the same length. An integer stays what it is, up to 2^36 always, above that but for a
        chance of 2^-15.
    """
    rounded = np.empty(len(values), dtype=np.int64)
    _round_into(rounded, [(values, factor)], keystream)
    return rounded


def _round_into(rounded: NDArray[np.int64], parts: Sequence[Part], keystream: Keystream) -> list[int]:
    """Fill `rounded` with the parts as `stochastic_round` says, and return the squared norm of each, exactly."""
    ends = list(accumulate(len(values) for values, _ in parts))
    squares = [0] * len(parts)
    scaled = rounded.view(np.float64)  # What is to be rounded waits where its integer goes.
    words = np.empty(min(len(rounded), _BLOCK), dtype="<i2")
    sums = np.empty(len(words))
    for start in range(0, len(rounded), _BLOCK):
        size = min(_BLOCK, len(rounded) - start)
        if size < len(words):
            words, sums = words[:size], sums[:size]
        block = slice(start, start + size)
        held = [_overlap(end - len(part[0]), end, start, size) for end, part in zip(ends, parts, strict=True)]
        for end, (values, factor), (low, high) in zip(ends, parts, held, strict=True):
            if low < high:
                begin = end - len(values)
                np.copyto(scaled[low:high], values[low - begin : high - begin])
                scaled[low:high] *= factor * _UNITS
        keystream.fill(words)
        # Odd words are uniform on a symmetric grid in (-1/2, 1/2) of a unit: added, they make rounding fair.
        words |= 1
        np.copyto(sums, words)
        sums += scaled[block]
        sums += _TO_NEAREST
        np.subtract(sums.view(np.int64), _TO_NEAREST_BITS, out=rounded[block])
        sums -= _TO_NEAREST
        for index, (low, high) in enumerate(held):
            if low < high:
                squares[index] += _squares(sums[low - start : high - start], rounded[low:high])
    return squares


def _overlap(begin: int, end: int, start: int, size: int) -> tuple[int, int]:
    """What a part and a block have in common, as places in the whole; nothing where the second is not above."""
    return max(begin, start), min(end, start + size)


def _squares(units: NDArray[np.float64], integers: NDArray[np.int64]) -> int:
    """The squared norm of integers that are also at hand as floats, in parts of a unit: exactly."""
    squares = 0
    for start in range(0, len(units), _DOT):
        piece = units[start : start + _DOT]
        # Sums of squares of integers are exact in a float that stays below 2^53, in whatever order they are added.
        fast = float(np.dot(piece, piece)) / _UNITS**2
        squares += int(fast) if fast < _EXACT else squared_norm(integers[start : start + _DOT])
    return squares


def _truncate_within(
    rounded: NDArray[np.int64], values: NDArray[np.floating], factor: float, limit: int
) -> None:
    """Fill `rounded` with the values truncated toward zero, or with zeros where even these are too long."""
    np.copyto(rounded, np.trunc(values.astype(np.float64) * factor), casting="unsafe")
    if squared_norm(rounded) > limit:
        rounded[:] = 0


def squared_norm(vector: NDArray[np.int64]) -> int:
    """Squared l2 norm of an integer vector, exactly: no int64 ever overflows on the way.

    Where length times the largest square stays below 2^63, no partial sum can pass it; otherwise the squares are
    added as Python integers, a hundred times slower.
    """
    if len(vector) == 0:
        return 0
    largest = max(int(vector.max()), -int(vector.min()))
    if largest**2 * len(vector) < 1 << 63:
        return int(np.dot(vector, vector))
    return sum(value * value for value in vector.tolist())
