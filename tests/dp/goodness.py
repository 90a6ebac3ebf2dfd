"""A chi-square test of integer draws against a log-pmf, shared by the samplers' tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

__all__ = ["chi_square_p"]


def chi_square_p(values: NDArray[np.int64], log_pmf: Callable[[NDArray[np.int64]], Any], reach: int) -> float:
    """P-value of the draws' counts in at most 64 cells of about equal probability within [-reach, reach]."""
    grid = np.arange(-reach, reach + 1)
    cumulative = np.cumsum(np.exp(log_pmf(grid)))
    cell = np.minimum((cumulative * 64).astype(np.int64), 63)
    edges = np.flatnonzero(np.diff(cell)) + 1
    probability = np.diff(np.concatenate(([0.0], cumulative[edges - 1], [1.0])))
    counts = np.bincount(np.searchsorted(grid[edges], values, side="right"), minlength=len(probability))
    expected = probability * len(values)
    keep = expected >= 5
    if not keep.all():
        counts = np.append(counts[keep], counts[~keep].sum())
        expected = np.append(expected[keep], max(expected[~keep].sum(), 1e-9))
    return float(chi2.sf(float(np.sum((counts - expected) ** 2 / expected)), len(expected) - 1))
