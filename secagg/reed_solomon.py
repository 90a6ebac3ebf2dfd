"""Which shares of a secret are wrong: the values of a polynomial of low degree, with errors.

The shares of one secret are 18 polynomials of degree below t, all at the same points (`secagg.shamir`), so a
wrong share is an error at one point in up to 18 codewords of a Reed-Solomon code at once. With v_i the product
over k of 1 / (x_i - x_k), the *syndromes* S_j = sum of v_i x_i^j y_i, j < s - t, are zero exactly where all s
shares lie on such polynomials (the dual code); otherwise they are sums over the wrong points alone, so the
polynomial with those points as its roots annihilates them, and it is the shortest that does.

Guarantee: up to (s - t) / 2 wrong shares are found whoever chose them. More, up to 18 (s - t) / 19, are
found unless they were chosen together; then the answer may be None or wrong, and whoever uses it checks
the secret against what its dealer committed to.

Source: Peterson 1960 (key equation); Krachkovsky and Lee 1997, Schmidt, Sidorenko and Bossert 2009 (several
codewords with errors at the same places).

Not here: what follows for a round (`secagg.recovery`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from secagg.prime_field import (
    PRIME,
    Floats,
    Integers,
    checked_points,
    dependence,
    log_differences,
    modulo,
    powers,
    tables,
)
from secagg.shamir import Shares

__all__ = ["consistent", "outliers"]


def consistent(points: Sequence[int], shares: Shares, *, threshold: int) -> npt.NDArray[np.bool_]:
    """Say for each secret whether all its shares lie on polynomials of degree below `threshold`.

    Args:
        points: s distinct points.
        shares: array of shape (m, s, 18).
        threshold: as at sharing.

    Returns:
        An array of m booleans; all true where s <= threshold, as there is nothing to compare.

    Raises:
        ParameterError: points repeated or out of range.
    """
    return np.logical_not(_syndromes(points, shares, threshold).any(axis=(0, 2)))


def outliers(points: Sequence[int], shares: Shares, *, threshold: int) -> list[int] | None:
    """Find the shares of one secret that are off the polynomials of the others.

    Args:
        points: s distinct points.
        shares: array of shape (s, 18).
        threshold: as at sharing.

    Returns:
        Ascending indices of the wrong shares, at most s - threshold; None where they cannot be told apart.

    Raises:
        ParameterError: points repeated or out of range.

    >>> from secagg.entropy import system_entropy
    >>> from secagg.shamir import share
    >>> dealt = share([b"s" * 32], threshold=2, shares=4, entropy=system_entropy)[0]
    >>> dealt[2, 7] ^= 1
    >>> outliers([1, 2, 3, 4], dealt, threshold=2)
    [2]
    """
    syndromes = _syndromes(points, shares[np.newaxis], threshold)[:, 0].astype(np.int64)
    if not syndromes.any():
        return []
    spare, words = syndromes.shape
    for most in dict.fromkeys((spare // 2, words * spare // (words + 1))):
        locator = dependence(_hankel(syndromes, most))
        if locator is None:
            continue
        wrong = _roots(locator, checked_points(tuple(points)))
        right = np.delete(np.arange(len(points)), wrong)
        if len(wrong) == len(locator) - 1 and _agree(points, shares, right.tolist(), threshold):
            return wrong
    return None


def _syndromes(points: Sequence[int], shares: Shares, threshold: int) -> Shares:
    """S_j of every secret and word: an array of shape (s - threshold, m, 18)."""
    secrets, count, words = shares.shape
    checks = _checks(tuple(points), max(0, count - threshold))
    columns = shares.swapaxes(0, 1).reshape(count, secrets * words)
    return modulo(checks @ columns).reshape(len(checks), secrets, words)


@lru_cache(maxsize=2)
def _checks(points: tuple[int, ...], degrees: int) -> Floats:
    """v_i x_i^j for j < degrees; the dealers of a complete graph have the same holders, hence the same checks."""
    log, exp = tables()
    x = checked_points(points)
    scale = -log_differences(x).sum(axis=0)
    exponents = np.arange(degrees)[:, np.newaxis] * log[x] + scale
    checks: Floats = exp[exponents % (PRIME - 1)].astype(np.float64)
    checks.flags.writeable = False
    return checks


def _hankel(syndromes: Integers, most: int) -> Integers:
    """The key equation for up to `most` errors: a row for each word and shift, a column for each coefficient."""
    windows = np.lib.stride_tricks.sliding_window_view(syndromes, most + 1, axis=0)
    return windows.reshape(-1, most + 1)


def _roots(locator: Integers, x: Integers) -> list[int]:
    """Indices of the points at which the polynomial is zero."""
    roots: list[int] = np.flatnonzero(modulo(powers(x, len(locator)) @ locator) == 0).tolist()
    return roots


def _agree(points: Sequence[int], shares: Shares, chosen: list[int], threshold: int) -> bool:
    """Whether the chosen shares are enough and lie on polynomials of degree below the threshold."""
    picked = [points[index] for index in chosen]
    return len(chosen) >= threshold and bool(
        consistent(picked, shares[np.newaxis, chosen], threshold=threshold)[0]
    )
