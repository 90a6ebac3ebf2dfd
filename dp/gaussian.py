"""The unsampled Gaussian, exactly: its (epsilon, delta) curve in closed form.

k releases of multiplier z compose to one Gaussian of mean shift mu = sqrt(k)/z (Gaussian DP), and

    delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu).

Source: Balle and Wang 2018 (1805.06530), theorem 8; Dong, Roth, Su 2019 (1905.02383), corollary 3.3.
Not here: sampling (`dp.accounting`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from dp import checks

__all__ = ["gaussian_delta", "gaussian_epsilon", "gaussian_shift"]

_LOOSEST = 1 + 2**-40
"""Every answer is widened by this factor, over what bisection and the normal tail may lose."""


def gaussian_delta(*, shift: float, epsilon: float) -> float:
    """Smallest delta of a Gaussian of mean shift mu at `epsilon`.

    Args:
        shift: mu, at least 0.
        epsilon: At least 0.

    >>> round(gaussian_delta(shift=1.0, epsilon=4.37718), 8)
    1e-05
    """
    checks.at_least("shift", shift, 0)
    checks.at_least("epsilon", epsilon, 0)
    return math.exp(_log_delta(shift, epsilon)) if shift else 0.0


def gaussian_epsilon(*, shift: float, delta: float) -> float:
    """Smallest epsilon, rounded up, of a Gaussian of mean shift mu at `delta`.

    Args:
        shift: mu, at least 0; infinite gives infinity.
        delta: In (0, 1).

    >>> round(gaussian_epsilon(shift=1.0, delta=1e-5), 3)
    4.377
    """
    target = math.log(checks.probability("delta", delta))
    if shift == math.inf:
        return math.inf
    if checks.at_least("shift", shift, 0) == 0 or _log_delta(shift, 0.0) <= target:
        return 0.0
    # delta(epsilon) < Phi(mu/2 - epsilon/mu) < exp(-(epsilon/mu - mu/2)^2 / 2) bounds the root from above.
    above = shift * (shift / 2 + math.sqrt(-2 * target))
    return _bisect(lambda epsilon: _log_delta(shift, epsilon) <= target, 0.0, above) * _LOOSEST


def gaussian_shift(*, epsilon: float, delta: float) -> float:
    """Largest mean shift mu, rounded down, that is (epsilon, delta)-DP.

    Args:
        epsilon: Above 0.
        delta: In (0, 1).

    >>> round(gaussian_shift(epsilon=4.37718, delta=1e-5), 4)
    1.0
    """
    target = math.log(checks.probability("delta", delta))
    checks.positive("epsilon", epsilon)
    above = 1.0
    while _log_delta(above, epsilon) <= target:
        above *= 2
    return above - _bisect(lambda less: _log_delta(above - less, epsilon) <= target, 0.0, above) * _LOOSEST


def _log_delta(shift: float, epsilon: float) -> float:
    from scipy.special import log_ndtr

    first = float(log_ndtr(shift / 2 - epsilon / shift))
    second = epsilon + float(log_ndtr(-shift / 2 - epsilon / shift))
    return first + math.log(-math.expm1(min(second - first, -1e-300)))


def _bisect(holds: Callable[[float], bool], below: float, above: float) -> float:
    """Least float, from above, where a condition that stays true once true holds."""
    while (middle := (below + above) / 2) not in (below, above):
        below, above = (below, middle) if holds(middle) else (middle, above)
    return above
