"""Renyi differential privacy: curves at integer orders, composed, and turned into an epsilon.

Between integer orders (alpha - 1) D_alpha is convex in alpha, so straight lines bound it from above; fractional orders
come from there.

Source: Mironov 2017 (1702.07476); Canonne, Kamath, Steinke 2020 (2004.00010), proposition 12, for the conversion.
Not here: sampling (`dp.amplification`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dp import checks
from dp.errors import UnsupportedEvent

__all__ = ["ORDERS", "renyi_curve", "renyi_epsilon"]

ORDERS = (*range(2, 65), 72, 80, 96, 112, 128, 160, 192, 224, 256)
"""Integer orders at which curves are kept."""

_FINE = np.concatenate([np.linspace(1.01, 2, 100), np.linspace(2.05, 64, 1240), np.linspace(65, 256, 192)])


def renyi_curve(divergence: Callable[[int], float]) -> NDArray[np.float64]:
    """A release's divergences at `ORDERS`.

    Raises:
        UnsupportedEvent: A divergence is negative or no number: the event is not what it claims to be.
    """
    values = np.array([divergence(order) for order in ORDERS])
    if not np.all(values >= 0):
        raise UnsupportedEvent(f"A Renyi divergence came out as {values.min()!r}; it cannot be below 0.")
    return values


def renyi_epsilon(curve: NDArray[np.float64], *, delta: float) -> float:
    """Smallest epsilon that divergences at `ORDERS` give at `delta`.

    Args:
        curve: Divergences of the whole history, at `ORDERS`.
        delta: In (0, 1).

    >>> gaussian = renyi_curve(lambda order: order / 2)
    >>> round(renyi_epsilon(gaussian, delta=1e-5), 2)
    4.75
    """
    checks.probability("delta", delta)
    log_moments = np.interp(_FINE, (1, *ORDERS), (0.0, *(curve * (np.array(ORDERS) - 1))))
    epsilons = (log_moments - math.log(delta) - np.log(_FINE)) / (_FINE - 1) + np.log1p(-1 / _FINE)
    return max(0.0, float(epsilons.min()))
