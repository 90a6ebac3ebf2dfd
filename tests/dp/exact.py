"""Exact divergences of small discrete mechanisms, by adding up every outcome."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Pmf = NDArray[np.float64]


def discrete_gaussian(stddev: float, *, reach: int, shift: int = 0) -> Pmf:
    """N_Z(shift, stddev^2) on -reach..reach."""
    weights = np.exp(-((np.arange(-reach, reach + 1) - shift) ** 2) / (2 * stddev**2))
    return weights / weights.sum()


def shifted_sum(stddev: float, shares: int, *, reach: int, shift: int) -> Pmf:
    """`shift` plus the sum of equal shares, on -reach..reach."""
    total = share = discrete_gaussian(stddev, reach=reach)
    for _ in range(shares - 1):
        total = np.convolve(total, share, mode="same")
    return np.roll(total, shift)


def product(*factors: Pmf) -> Pmf:
    """Independent coordinates or rounds, flattened."""
    joint = np.ones(1)
    for factor in factors:
        joint = np.multiply.outer(joint, factor).ravel()
    return joint


def delta(first: Pmf, second: Pmf, epsilon: float) -> float:
    """Larger hockey-stick divergence of the two directions."""
    scale = math.exp(min(epsilon, 700.0))
    return max(
        float(np.maximum(first - scale * second, 0).sum()), float(np.maximum(second - scale * first, 0).sum())
    )


def renyi(first: Pmf, second: Pmf, order: float) -> float:
    """Renyi divergence of `first` from `second`, over the outcomes whose probabilities floats can hold."""
    held = (first > 1e-280) & (second > 1e-280)
    logs = order * np.log(first[held]) + (1 - order) * np.log(second[held])
    largest = logs.max()
    return float(largest + math.log(np.exp(logs - largest).sum())) / (order - 1)
