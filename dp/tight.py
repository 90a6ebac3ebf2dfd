"""How far a sum of discrete Gaussian shares is from a post-processed continuous Gaussian: the tight epsilon's slack.

Two facts, each a use of Poisson summation, with e(sigma) = 2 sum_{j>=1} exp(-2 pi^2 sigma^2 j^2):

- N_Z(0, a) + N_Z(0, b) is pointwise within (1 + e(t))/(1 - e(t)) of N_Z(0, a + b), t^2 = ab/(a + b);
- N_Z(0, v) is pointwise within (1 + e(s))/(1 - e(s)) of K_s applied to N(0, v - s^2), where K_s(g) rounds a real g to
  the integer k with probability proportional to exp(-(k - g)^2 / 2 s^2), and commutes with integer shifts.

So an integer vector plus its shares is, within a factor exp(+-slack), a post-processing of that vector plus a
continuous Gaussian, whose privacy loss distribution is known. The proof is in `docs/tight-epsilon.md`.

Source: this project's; tau is Kairouz, Liu, Steinke 2021 (2102.06387), theorem 5.
Not here: what the continuous Gaussian costs (`dp.accounting`).
"""

from __future__ import annotations

import math

from dp import checks

__all__ = ["LEAST_STDDEV", "SMOOTHING_VARIANCE", "tight_slack", "worst_slack"]

LEAST_STDDEV = 2.0
"""Least deviation of one share, in integer units, at which the slack is negligible and the tight epsilon offered."""

SMOOTHING_VARIANCE = 4.0
"""Variance s^2 of the rounding K_s: what the continuous Gaussian gives up."""

_LARGEST_RATE = 0.2
_TERMS = 200


def tight_slack(*, local_stddev: float, shares: int, dimension: int) -> float:
    """Bound the log ratio between a noised integer sum and a post-processed continuous Gaussian.

    Guarantee: for every integer vector x, the pmf of x plus `shares` equal discrete Gaussian shares is within
    exp(+-slack) of the pmf of one fixed randomised map applied to x + N(0, (shares sigma^2 - 4) I).

    Args:
        local_stddev: Parameter sigma of one share, at least 2, in integer units.
        shares: Number n of independent shares, at least 1.
        dimension: Number d of coordinates, at least 1.

    Returns:
        d (tau/2 + 5 exp(-8 pi^2)), with tau = 10 sum_{k<n} exp(-2 pi^2 sigma^2 k/(k+1)).

    Raises:
        ParameterError: A value is out of range.

    >>> 50 * tight_slack(local_stddev=3.0, shares=300, dimension=10**6) < 1e-11
    True
    """
    checks.at_least("local_stddev", local_stddev, LEAST_STDDEV)
    checks.integer("shares", shares, 1)
    checks.integer("dimension", dimension, 1)
    return dimension * (shares_slack(local_stddev**2, shares) + smoothing_slack(SMOOTHING_VARIANCE))


def worst_slack(*, shares: int, dimension: int) -> float:
    """The slack at the least deviation allowed: no share that passes its check has more."""
    return tight_slack(local_stddev=LEAST_STDDEV, shares=shares, dimension=dimension)


def shares_slack(variance: float, shares: int) -> float:
    """Bound the log ratio between a sum of equal shares and one discrete Gaussian, for one coordinate."""
    # The terms fall as k grows, so every one from _TERMS on is at most the term there.
    terms = [smoothing_slack(variance * k / (k + 1)) for k in range(1, min(shares, _TERMS))]
    rest = max(0, shares - _TERMS) * smoothing_slack(variance * _TERMS / (_TERMS + 1))
    return math.fsum(terms) + rest


def smoothing_slack(variance: float) -> float:
    """5 exp(-2 pi^2 variance), at least log((1 + e)/(1 - e)); infinite where that inequality is not proven."""
    decay = math.exp(-2 * math.pi**2 * variance)
    return 5 * decay if decay <= _LARGEST_RATE else math.inf
