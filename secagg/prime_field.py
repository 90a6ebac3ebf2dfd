"""The integers modulo 65521, the largest prime below 2^16, in batches: logarithms, Lagrange weights, elimination.

Invariants:

- products are sums of logarithms looked up in one table; the sums of a matrix product are exact in float64
  as long as t * 65521^2 stays below 2^53;
- a point is 1 to 65520, and no two points of one sharing are equal: point 0, or 65521, would be the secret.

Not here: what is shared (`secagg.shamir`), which shares are wrong (`secagg.reed_solomon`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from secagg.errors import ParameterError

__all__ = [
    "MAX_POINT",
    "PRIME",
    "Floats",
    "Integers",
    "Residues",
    "checked_points",
    "dependence",
    "lagrange_weights",
    "log_differences",
    "modulo",
    "powers",
    "tables",
]

PRIME = 65521
MAX_POINT = PRIME - 1
_GENERATOR = 17  # of the multiplicative group; a test shows it

Residues = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@lru_cache(maxsize=1)
def tables() -> tuple[Integers, Integers]:
    """Return discrete logarithms (of 1..p-1; entry 0 is unused) and powers of the generator."""
    exp = np.ones(PRIME - 1, dtype=np.int64)
    done = 1
    while done < len(exp):
        step = int(exp[done - 1]) * _GENERATOR % PRIME
        upper = exp[done : 2 * done]
        upper[:] = exp[: len(upper)] * step % PRIME
        done *= 2
    log = np.zeros(PRIME, dtype=np.int64)
    log[exp] = np.arange(PRIME - 1)
    return log, exp


def modulo(values: Floats) -> Residues:
    """Reduce exact non-negative integers held as floats modulo p."""
    return (values.astype(np.uint64) % np.uint64(PRIME)).astype(np.uint16)


def powers(points: Integers, count: int) -> Floats:
    """Return x^j modulo p for every point x (rows) and j < count."""
    log, exp = tables()
    exponents = log[points, np.newaxis] * np.arange(count)
    values: Floats = exp[exponents % (PRIME - 1)].astype(np.float64)
    return values


def checked_points(points: tuple[int, ...]) -> Integers:
    """Return the points as an array, after checking that they are distinct and in range.

    Raises:
        ParameterError: they are not.
    """
    if not points or min(points) < 1 or max(points) > MAX_POINT or len(set(points)) != len(points):
        raise ParameterError(f"share points must be distinct and in 1..{MAX_POINT}; got {points}")
    return np.array(points, dtype=np.int64)


def log_differences(x: Integers) -> Integers:
    """Return log(x_k - x_i) modulo p at [k, i], and zero on the diagonal."""
    log, _ = tables()
    differences: Integers = log[(x[:, np.newaxis] - x) % PRIME]
    return differences


@lru_cache(maxsize=256)
def lagrange_weights(points: tuple[int, ...]) -> Floats:
    """Return the weights whose inner product with the values at `points` is the value at zero.

    Weight i is the product over k of x_k / (x_k - x_i) modulo p.

    Raises:
        ParameterError: points repeated or out of range.
    """
    log, exp = tables()
    x = checked_points(points)
    exponent = log[x].sum() - log[x] - log_differences(x).sum(axis=0)
    weights: Floats = exp[exponent % (PRIME - 1)].astype(np.float64)
    weights.flags.writeable = False
    return weights


def dependence(matrix: Integers) -> Integers | None:
    """Find the first column that is a combination of those before it.

    Gauss-Jordan elimination modulo p, column by column, up to the first one without a pivot.

    Args:
        matrix: residues, of shape (rows, columns).

    Returns:
        Coefficients of the columns up to that one, the last being 1, whose sum of columns is zero; None where
        the columns are independent.
    """
    work = matrix.copy()
    columns = work.shape[1]
    for column in range(columns):
        candidates = np.flatnonzero(work[column:, column])
        if not len(candidates):
            return np.append(-work[:column, column] % PRIME, 1)
        pivot = column + int(candidates[0])
        work[[column, pivot]] = work[[pivot, column]]
        rest = work[:, column:]
        rest[column] = rest[column] * pow(int(rest[column, 0]), -1, PRIME) % PRIME
        others = np.flatnonzero(rest[:, 0])
        others = others[others != column]
        rest[others] = (rest[others] - rest[others, :1] * rest[column]) % PRIME
    return None
