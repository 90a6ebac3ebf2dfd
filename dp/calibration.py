"""The least noise that keeps a promise.

Not here: the accountant itself (`dp.accounting`); this file only searches it, and every answer is checked against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from dp import checks
from dp.accounting import epsilon
from dp.cohorts import Sampler
from dp.errors import ParameterError
from dp.events import Composed, FixedSize, Gaussian, NoiseEvent, Poisson
from dp.gaussian import gaussian_shift
from dp.privacy import Privacy
from dp.tight import worst_slack

__all__ = ["calibrate"]

_TOLERANCE = 1e-4
"""Relative width at which the search stops; the answer is the end that keeps the promise."""
_Point = tuple[float, float]
_MOST_NOISE = 1e6
_LEAST_NOISE = 0.05


def calibrate(
    privacy: Privacy,
    sampler: Sampler,
    rounds: int,
    *,
    dimension: int = 2**24,
    event: Callable[[float], NoiseEvent] | None = None,
) -> float:
    """Noise multiplier that keeps every epsilon of a promise over `rounds` rounds; the strictest decides.

    Guarantee: the accountant's epsilons at the answer are at or below those of `privacy`, and the answer is within
    0.05% of the least that does it. Without `event` this holds for every distributed discrete Gaussian of at most
    `dimension` coordinates.

    Args:
        privacy: The promise. A noise multiplier in it is a floor.
        sampler: How cohorts are drawn.
        rounds: T, at least 1.
        dimension: Most coordinates for which the discretisation is paid.
        event: From a noise multiplier to what one release costs, for other mechanisms.

    Returns:
        z, the effective noise over the joint integer sensitivity.

    Raises:
        ParameterError: No noise multiplier up to a million keeps the promise.

    >>> from dp.cohorts import PaddedPoisson
    >>> promise = Privacy(delta=1e-5, l2_clip_norm=1.0, readers_epsilon=2.531)
    >>> round(calibrate(promise, PaddedPoisson(3000, 300), 50), 2)
    1.5
    """
    checks.integer("rounds", rounds, 1)
    slack = worst_slack(shares=sampler.cohort_size, dimension=dimension)
    make = event or (lambda noise_multiplier: Gaussian(noise_multiplier, slack))
    answers = [] if privacy.noise_multiplier is None else [privacy.noise_multiplier]
    for target, cost in (
        (privacy.readers_epsilon, sampler.readers_event),
        (privacy.server_epsilon, sampler.server_event),
    ):
        if target is not None:
            answers.append(_least_noise(make, partial(_cost, cost, rounds, privacy), target, privacy.delta))
    return max(answers)


def _cost(
    observer: Callable[[NoiseEvent, int, int | None], Composed],
    rounds: int,
    privacy: Privacy,
    event: NoiseEvent,
) -> Composed:
    return observer(event, rounds, privacy.max_participations)


def _least_noise(
    make: Callable[[float], NoiseEvent], cost: Callable[[NoiseEvent], Composed], target: float, delta: float
) -> float:
    """Least multiplier at which `cost` stays within `target`, from above: false position on logarithms."""

    def excess(log_noise: float) -> float:
        reached = epsilon(cost(make(math.exp(log_noise))), delta=delta)
        return math.log(max(reached, 1e-9 * target) / target)

    low, high = _bracket(excess, _start(cost(make(1.0)), target, delta), target)
    while high[0] - low[0] > _TOLERANCE:
        root = low[0] + (high[0] - low[0]) * low[1] / (low[1] - high[1])
        # Aimed a third of the tolerance to either side of the root, the next two points close the bracket.
        nearer_low = root - low[0] < high[0] - root
        point = root + (1 if nearer_low else -1) * _TOLERANCE / 3
        point = min(max(point, low[0] + _TOLERANCE / 9), high[0] - _TOLERANCE / 9)
        value = excess(point)
        low, high = ((point, value), high) if value > 0 else (low, (point, value))
    return math.exp(high[0])


def _bracket(excess: Callable[[float], float], start: float, target: float) -> tuple[_Point, _Point]:
    """Two points around the least multiplier: one that costs too much, one that does not."""
    point, step = (start, excess(start)), 0.02
    sign = 1 if point[1] > 0 else -1
    while True:
        position = point[0] + sign * step
        if not math.log(_LEAST_NOISE) < position < math.log(_MOST_NOISE):
            if sign < 0:
                return (point[0] - step, 1.0), point
            raise ParameterError(
                f"No noise multiplier up to {_MOST_NOISE:g} keeps epsilon at {target:g}; raise epsilon or delta."
            )
        further = (position, excess(position))
        if (further[1] > 0) != (point[1] > 0):
            return (point, further) if sign > 0 else (further, point)
        point, step = further, 2 * step


def _start(cost: Composed, target: float, delta: float) -> float:
    """Logarithm of the multiplier that the central limit theorem suggests."""
    shift = gaussian_shift(epsilon=target, delta=delta) / math.sqrt(cost.count)
    if isinstance(cost.step, Poisson | FixedSize):
        return -math.log(math.log1p((shift / cost.step.rate) ** 2)) / 2
    return -math.log(shift)
