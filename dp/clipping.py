"""Clipping: scale a vector down to an l2 bound.

Floating point suffices here. What privacy rests on is the exact integer norm check of `encoding`, which holds
whatever happens in this file; clipping well only keeps that check from ever failing.

Source: Abadi et al. 2016 (arXiv 1607.00133), algorithm 1.
Not here: the bound's choice from the data, which must itself be private (`adaptive_clipping`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp import checks
from dp.errors import NonFiniteInput

__all__ = ["clip_factor", "clip_l2"]

_SAFE_SQUARES = 1e-200, 1e200
# Above 10,000 elements OpenBLAS shares a dot product among threads, which on a busy machine wait for each other.
_BLOCK = 1 << 13
_FLOAT32_BYTES = 4


def clip_l2(vector: ArrayLike, bound: float) -> tuple[NDArray[np.float64], float]:
    """Scale a vector down to l2 norm `bound` if it is longer.

    Guarantee:
        The result's norm is at most `bound` up to the rounding of floats (a relative 1e-12), for any finite
        vector, also one whose squares overflow.

    Args:
        vector: Real numbers, any shape; taken as one vector. Left as it is.
        bound: Largest norm, finite and above 0.

    Returns:
        The clipped vector as float64, in the same shape, and the norm before clipping. It shares the memory of
        `vector` if that was float64 and short enough.

    Raises:
        NonFiniteInput: The vector holds NaN or infinity.
        ParameterError: The bound is not a finite number above 0.

    >>> clip_l2([3.0, 4.0], 1.0)
    (array([0.6, 0.8]), 5.0)

    Source: Abadi et al. 2016, algorithm 1.
    """
    values = np.asarray(vector, dtype=np.float64)
    flat, factor, norm = clip_factor(values, bound)
    if norm <= bound:
        return values, norm
    clipped: NDArray[np.float64] = np.multiply(flat, factor, dtype=np.float64).reshape(values.shape)
    return clipped, norm


def clip_factor(vector: ArrayLike, bound: float) -> tuple[NDArray[np.floating], float, float]:
    """What `clip_l2` multiplies a vector by, for callers that have more to multiply.

    Returns:
        A flat vector and a factor whose product is the clipped vector, and the norm before clipping. The vector is
        the one given, but where its squares overflow or vanish: then it is scaled to a largest value of 1.

    Raises:
        NonFiniteInput, ParameterError: As `clip_l2`.
    """
    bound = checks.positive("bound", bound)
    flat = np.asarray(vector).reshape(-1)
    if flat.dtype.kind != "f":
        flat = flat.astype(np.float64)
    squares = _sum_of_squares(flat)
    unit = 1.0
    least, most = _SAFE_SQUARES
    if not (least < squares < most and least < bound < most):
        unit = float(np.max(np.abs(flat), initial=0.0))
        if not math.isfinite(unit):
            raise NonFiniteInput("the vector holds NaN or infinity; send zeros in its place")
        if unit == 0:
            return flat, 1.0, 0.0
        flat = flat.astype(np.float64) / unit
        squares = _sum_of_squares(flat)
    norm = math.sqrt(squares)
    return flat, (unit if norm * unit <= bound else bound / norm), norm * unit


def _sum_of_squares(flat: NDArray[np.floating]) -> float:
    """In float64, whatever the vector's own type; may be infinite or NaN."""
    if flat.dtype.itemsize <= _FLOAT32_BYTES:  # Squares of float32 cannot overflow in float64.
        return _added_squares(flat)
    with np.errstate(over="ignore", invalid="ignore"):
        return _added_squares(flat)


def _added_squares(flat: NDArray[np.floating]) -> float:
    work = np.empty(min(len(flat), _BLOCK))
    total = 0.0
    for start in range(0, len(flat), _BLOCK):
        piece = flat[start : start + _BLOCK]
        part = work[: len(piece)]
        np.copyto(part, piece)
        total += float(np.dot(part, part))
    return total
