"""From real numbers to integers: unbiased rounding, and the norm of what came out, without overflow.

Source: Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), section 3.1 (randomised rounding).
Not here: what the norm may be (`encoding`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dp.keystream import Keystream

__all__ = ["LARGEST_ROUNDED", "squared_norm", "stochastic_round"]

LARGEST_ROUNDED = 2.0**50
"""Above this absolute value a float64 has no room left for the fraction that is rounded."""

_BLOCK = 1 << 14


def stochastic_round(values: NDArray[np.float64], keystream: Keystream) -> NDArray[np.int64]:
    """Round each value to one of its two neighbouring integers, so that its expectation is the value.

    Guarantee:
        The bias of a coordinate y is at most 2^-33 + 2^-53 (|y| + 1): 32 random bits a coordinate, and one
        rounded float addition. Utility rests on that, privacy does not: the result's norm is checked exactly.

    Args:
        values: float64, one-dimensional, absolute values up to 2^50; scaled to integer units.
        keystream: Source of the random bits.

    Returns:
        int64 array of the same length. An integer stays what it is, up to 2^20 always, above that but for a
        chance of 2^-32.

    Source: Kairouz, Liu, Steinke 2021, definition 17 without the condition.
    """
    rounded = np.empty(len(values), dtype=np.int64)
    words = np.empty(min(len(values), _BLOCK), dtype="<i4")
    work = np.empty(len(words), dtype=np.float64)
    for start in range(0, len(values), _BLOCK):
        size = min(_BLOCK, len(values) - start)
        keystream.fill(words[:size])
        shifted = work[:size]
        np.copyto(shifted, words[:size])
        # (word + 1/2) / 2^32 is uniform on a symmetric grid in (-1/2, 1/2): added, it makes rounding fair.
        shifted += 0.5
        shifted *= 2.0**-32
        shifted += values[start : start + size]
        np.rint(shifted, out=shifted)
        rounded[start : start + size] = shifted
    return rounded


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
