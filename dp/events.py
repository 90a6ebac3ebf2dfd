"""What a release costs one client, as frozen values: the only thing an accountant is given.

A noise event describes one release under zero-out adjacency (one client's data replaced by zeros). `Gaussian` is the
strong form: the release is, within a pointwise factor, a post-processing of a continuous Gaussian, so its privacy
loss distribution is known (`docs/tight-epsilon.md`). Sampling and composition wrap a noise event and are data
too: a ledger can hold them, and an accountant can refuse what it does not cover.

Not here: computing an epsilon (`dp.accounting`), or knowing which mechanism gives which event (`dp.mechanisms`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dp import checks
from dp.errors import ParameterError

__all__ = ["Composed", "Gaussian", "NoiseEvent", "Poisson"]


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


NoiseEvent = Gaussian


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
        if not 0 < checks.positive("rate", self.rate) <= 1:
            raise ParameterError(f"rate is {self.rate!r}; it must lie in (0, 1].")


@dataclass(frozen=True)
class Composed:
    """The same step taken `count` times, each with fresh randomness.

    Args:
        step: One release, sampled or not.
        count: How often, at least 0.
    """

    step: NoiseEvent | Poisson
    count: int

    def __post_init__(self) -> None:
        checks.integer("count", self.count, 0)


def together(*multipliers: float) -> float:
    """Noise multiplier of one release that holds several Gaussian ones over the same draw.

    Two aggregations on one draw (a retry, an evaluation of the training cohort) are one sampled event of both.

    Args:
        multipliers: z of each.

    Returns:
        1 / sqrt(sum of 1/z^2).

    >>> round(together(1.5, 1.5), 3)
    1.061
    """
    return 1 / math.sqrt(math.fsum(1 / checks.positive("noise_multiplier", z) ** 2 for z in multipliers))
