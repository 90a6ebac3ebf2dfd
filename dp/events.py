"""What a release costs one client, as frozen values: the only thing an accountant is given.

A noise event describes one release under zero-out adjacency (one client's data replaced by zeros). `Gaussian` is the
strong form: the release is, within a pointwise factor, a post-processing of a continuous Gaussian, so its privacy loss
distribution is known (`docs/tight-epsilon.md`). The others offer a bound on their Renyi divergences alone. Sampling and
composition wrap a noise event and are data too: an accountant refuses what it does not cover.

Not here: computing an epsilon (`dp.accounting`), or knowing which mechanism gives which event (`dp.mechanisms`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dp import checks
from dp.errors import CohortMismatch, ParameterError

__all__ = [
    "BandedGaussian",
    "Composed",
    "DiscreteGaussianShares",
    "FixedSize",
    "Gaussian",
    "NoiseEvent",
    "Poisson",
    "Skellam",
    "together",
]


@dataclass(frozen=True)
class Gaussian:
    """A release whose privacy loss is that of a Gaussian, within a pointwise factor exp(+-slack).

    Args:
        noise_multiplier: z', deviation of the continuous Gaussian over the joint l2 sensitivity.
        slack: Logarithm of the largest pointwise ratio between the release and the post-processed Gaussian.

    Source: `docs/tight-epsilon.md`.
    """

    noise_multiplier: float
    slack: float = 0.0

    def __post_init__(self) -> None:
        checks.positive("noise_multiplier", self.noise_multiplier)
        checks.at_least("slack", self.slack, 0)


@dataclass(frozen=True)
class BandedGaussian:
    """One participation in noise that is correlated over `bands` consecutive rounds: no sampling may amplify it.

    Args:
        participation: What one participation costs, over all the rounds it touches.
        bands: Least number of rounds between two participations of a client, at least 1.
    """

    participation: Gaussian
    bands: int

    def __post_init__(self) -> None:
        checks.integer("bands", self.bands, 1)


@dataclass(frozen=True)
class DiscreteGaussianShares:
    """A sum of discrete Gaussian shares of any width, by its Renyi divergences alone.

    Args:
        local_stddev: Parameter sigma of one share, in integer units.
        shares: n, number of shares that count.
        l2_sensitivity: Joint l2 norm of one client's integer vector.
        l1_sensitivity: Its l1 norm.
        dimension: d, number of coordinates.
    """

    local_stddev: float
    shares: int
    l2_sensitivity: float
    l1_sensitivity: float
    dimension: int

    def __post_init__(self) -> None:
        checks.positive("local_stddev", self.local_stddev)
        checks.integer("shares", self.shares, 1)
        checks.positive("l2_sensitivity", self.l2_sensitivity)
        checks.positive("l1_sensitivity", self.l1_sensitivity)
        checks.integer("dimension", self.dimension, 1)

    def renyi(self, order: int) -> float:
        """Bound on the Renyi divergence of an integer order, at least 2.

        Source: Kairouz, Liu, Steinke 2021 (2102.06387), proposition 13 and theorem 1; the first term is the pointwise
        ratio's, exp(+-tau/2) a coordinate, and costs (2 order - 1)/(order - 1) of it.
        """
        width = math.sqrt(self.shares) * self.local_stddev
        rate = 2 * math.pi**2 * self.local_stddev**2
        tau = 10 * math.fsum(math.exp(-rate * k / (k + 1)) for k in range(1, self.shares))
        shift, d = self.l2_sensitivity / width, self.dimension
        return min(
            order / 2 * shift**2 + tau * d * (order - 0.5) / (order - 1),
            order / 2 * (shift**2 + 2 * self.l1_sensitivity * tau / width + tau**2 * d),
            order / 2 * (shift + tau * math.sqrt(d)) ** 2,
        )


@dataclass(frozen=True)
class Skellam:
    """A sum of Skellam shares.

    Args:
        variance: mu, total variance of the shares that count, in integer units.
        l2_sensitivity: Joint l2 norm of one client's integer vector.
        l1_sensitivity: Its l1 norm.
    """

    variance: float
    l2_sensitivity: float
    l1_sensitivity: float

    def __post_init__(self) -> None:
        checks.positive("variance", self.variance)
        checks.positive("l2_sensitivity", self.l2_sensitivity)
        checks.positive("l1_sensitivity", self.l1_sensitivity)

    def renyi(self, order: int) -> float:
        """Bound on the Renyi divergence of an integer order, at least 2.

        Source: Agarwal, Kairouz, Liu 2021 (2110.04995), theorem 3.5.
        """
        l1, l2, mu = self.l1_sensitivity, self.l2_sensitivity, self.variance
        correction = min(((2 * order - 1) * l2**2 + 6 * l1) / (4 * mu**2), 3 * l1 / (2 * mu))
        return order * l2**2 / (2 * mu) + correction


NoiseEvent = Gaussian | BandedGaussian | DiscreteGaussianShares | Skellam


@dataclass(frozen=True)
class Poisson:
    """A noise event on data that is present with probability `rate`, independently of everybody else's.

    Args:
        event: What the release costs a client that is present.
        rate: q, in (0, 1]; at 1 nothing is sampled.
    """

    event: NoiseEvent
    rate: float

    def __post_init__(self) -> None:
        _check_sampling(self.event, self.rate)


@dataclass(frozen=True)
class FixedSize:
    """A noise event over a sample of fixed size, drawn without replacement.

    Args:
        event: What the release costs a client that is in the sample.
        rate: Sample size over population, in (0, 1]; at 1 nothing is sampled.
    """

    event: NoiseEvent
    rate: float

    def __post_init__(self) -> None:
        _check_sampling(self.event, self.rate)


@dataclass(frozen=True)
class Composed:
    """The same step taken `count` times, each with fresh randomness.

    Args:
        step: One release, sampled or not.
        count: How often, at least 0.
    """

    step: NoiseEvent | Poisson | FixedSize
    count: int

    def __post_init__(self) -> None:
        checks.integer("count", self.count, 0)


def together(*events: Gaussian) -> Gaussian:
    """One release that holds several Gaussian ones over the same draw.

    Two aggregations on one draw (a retry, an evaluation of the training cohort) are one sampled event of both; counted
    as two they would each be amplified, and the sum would be too small.

    Args:
        events: What each costs.

    Returns:
        The event of multiplier 1 / sqrt(sum of 1/z^2).

    >>> round(together(Gaussian(1.5), Gaussian(1.5)).noise_multiplier, 3)
    1.061
    """
    multiplier = 1 / math.sqrt(math.fsum(event.noise_multiplier**-2 for event in events))
    return Gaussian(multiplier, math.fsum(event.slack for event in events))


def _check_sampling(event: NoiseEvent, rate: float) -> None:
    if not 0 < checks.positive("rate", rate) <= 1:
        raise ParameterError(f"rate is {rate!r}; it must lie in (0, 1].")
    if isinstance(event, BandedGaussian):
        raise CohortMismatch(
            f"Noise that is correlated over {event.bands} rounds gains nothing from a random cohort; draw cohorts "
            "in a fixed order with at least that separation."
        )
