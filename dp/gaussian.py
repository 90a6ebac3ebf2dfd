"""The unsampled Gaussian, exactly: its (epsilon, delta) curve in closed form.

k releases of multiplier z compose to one Gaussian of mean shift mu = sqrt(k)/z (Gaussian DP), and

    delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu).

For small mu the two terms are nearly equal. With t = epsilon/mu - mu/2 and Mills' ratio R(x) = Phi(-x)/phi(x), of
derivative x R(x) - 1, the same is phi(t) times the integral of 1 - x R(x) from t to t + mu, where nothing cancels.

Source: Balle and Wang 2018 (1805.06530), theorem 8; Dong, Roth, Su 2019 (1905.02383), corollary 3.3.
Not here: sampling (`dp.accounting`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np

from dp import checks

__all__ = ["gaussian_delta", "gaussian_epsilon", "gaussian_shift"]

_ROUNDING = 2.0**-46
"""What a delta may lose in floats, for a unit of what it is sensitive to: added, so that no answer is too small."""
_SMALL_SHIFT = 0.5
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_FAR, _NOTHING = 40.0, 1e100
"""Beyond the first a delta is below every float; beyond the second its logarithm is, too."""


def gaussian_delta(*, shift: float, epsilon: float) -> float:
    """Smallest delta of a Gaussian of mean shift mu at `epsilon`.

    Args:
        shift: mu, at least 0.
        epsilon: At least 0.

    Returns:
        Delta, rounded up.

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
    return _bisect(lambda epsilon: _log_delta(shift, epsilon) <= target, 0.0, above)


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
    return above - _bisect(lambda less: _log_delta(above - less, epsilon) <= target, 0.0, above)


def _log_delta(shift: float, epsilon: float) -> float:
    """Logarithm of delta, over what floats may lose."""
    from scipy.special import erfcx, log_ndtr

    start = epsilon / shift - shift / 2
    if start > _NOTHING:
        return -math.inf
    lost = _ROUNDING * (1 + (1 + max(start, 0.0)) * (shift + epsilon / shift))
    if shift >= _SMALL_SHIFT:
        first = float(log_ndtr(-start))
        second = epsilon + float(log_ndtr(-start - shift))
        return min(0.0, first + math.log(-math.expm1(min(second - first, -1e-300))) + lost)
    points = start + shift / 2 * (1 + _NODES)
    near = 1 - math.sqrt(math.pi / 2) * points * erfcx(points / math.sqrt(2))
    falls = float(_WEIGHTS @ np.where(points < _FAR, near, np.maximum(points, _FAR) ** -2.0)) * shift / 2
    return math.log(max(falls, sys.float_info.min)) - start * start / 2 - math.log(2 * math.pi) / 2 + lost


def _bisect(holds: Callable[[float], bool], below: float, above: float) -> float:
    """Least float, from above, where a condition that stays true once true holds."""
    while (middle := (below + above) / 2) not in (below, above):
        below, above = (below, middle) if holds(middle) else (middle, above)
    return above
