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

__all__ = ["clip_l2"]

_SAFE_TO_SQUARE = 1e100


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
    bound = checks.positive("bound", bound)
    values = np.asarray(vector, dtype=np.float64)
    largest = float(np.max(np.abs(values), initial=0.0))
    if not math.isfinite(largest):
        raise NonFiniteInput("the vector holds NaN or infinity; send zeros in its place")
    unit = largest if largest and not 1 / _SAFE_TO_SQUARE < largest < _SAFE_TO_SQUARE else 1.0
    scaled = values if unit == 1.0 else values / unit
    flat = scaled.reshape(-1)
    norm = math.sqrt(float(np.dot(flat, flat)))
    if norm * unit <= bound:
        return values, norm * unit
    clipped = scaled / norm
    clipped *= bound
    return clipped, norm * unit
