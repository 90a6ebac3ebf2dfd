"""What a history of releases costs, against each of two observers.

*Readers* of the released models do not know who was drawn: their cost is every round, amplified by the draw, by the
privacy loss distribution of the Poisson-sampled Gaussian, both directions, the larger. *The server* knows the cohort:
its cost is one client's own participations, at most its cap, unsampled, in closed form.

A pointwise factor exp(+-slack) a release (`dp.tight`) costs 2 n slack of epsilon and a factor e^(n slack) of delta.
The same function plans, charges and stops, so that a plan that fits its budget never runs over it by a rounding.

Not here: loss distributions (`dp.pld`), the closed form (`dp.gaussian`), the search for noise (`dp.calibration`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from dp import checks
from dp.cohorts import PaddedPoisson
from dp.errors import UnsupportedEvent
from dp.events import Composed, Gaussian, Poisson
from dp.gaussian import gaussian_epsilon
from dp.mechanisms import DistributedDiscreteGaussian
from dp.pld import poisson_epsilon
from dp.privacy import Epsilons, Privacy

__all__ = ["RunAccountant", "epsilon", "epsilon_of"]

_poisson_epsilon = lru_cache(maxsize=4096)(poisson_epsilon)


def epsilon(cost: Composed, *, delta: float) -> float:
    """Epsilon of a composed event, never below the truth.

    Args:
        cost: What was released, how often.
        delta: In (0, 1).

    Returns:
        The smallest epsilon this library can show; infinite where the slack alone exceeds `delta`.

    Raises:
        ParameterError: `delta` is out of range.
        UnsupportedEvent: No accountant covers the event.

    >>> round(epsilon(Composed(Poisson(Gaussian(1.5), 0.1), 50), delta=1e-5), 3)
    2.53
    >>> round(epsilon(Composed(Gaussian(1.5), 10), delta=1e-5), 1)
    10.7
    """
    checks.probability("delta", delta)
    event, rate = (cost.step.event, cost.step.rate) if isinstance(cost.step, Poisson) else (cost.step, 1.0)
    if not isinstance(event, Gaussian):
        raise UnsupportedEvent(f"No accountant here covers {event!r}; use a mechanism of this library.")
    if cost.count == 0:
        return 0.0
    slack = cost.count * event.slack
    delta *= math.exp(-slack)
    if rate == 1:
        continuous = gaussian_epsilon(shift=math.sqrt(cost.count) / event.noise_multiplier, delta=delta)
    else:
        continuous = _poisson_epsilon(event.noise_multiplier, rate, cost.count, delta)
    return continuous + 2 * slack


def epsilon_of(
    mechanism: DistributedDiscreteGaussian,
    sampler: PaddedPoisson,
    rounds: int,
    delta: float,
    max_participations: int | None = None,
) -> Epsilons:
    """Both epsilons of `rounds` rounds.

    Args:
        mechanism: What a round releases.
        sampler: How its cohort is drawn.
        rounds: Rounds charged, at least 0.
        delta: In (0, 1), the same for both observers.
        max_participations: Cap on the rounds a client contributes to, or None for every round.

    Returns:
        Epsilon against readers and against the server.
    """
    participations = rounds if max_participations is None else min(rounds, max_participations)
    return Epsilons(
        readers=epsilon(sampler.readers_event(mechanism.event, rounds), delta=delta),
        server=epsilon(sampler.server_event(mechanism.event, participations), delta=delta),
    )


@dataclass(frozen=True)
class RunAccountant:
    """The costs and budgets of one run, in the shape a ledger asks for.

    Args:
        mechanism: What a round releases.
        sampler: How its cohort is drawn.
        privacy: The promise: delta, budgets, cap.
        rounds: Rounds planned.
    """

    mechanism: DistributedDiscreteGaussian
    sampler: PaddedPoisson
    privacy: Privacy
    rounds: int

    def __post_init__(self) -> None:
        checks.integer("rounds", self.rounds, 1)

    def epsilons(self, rounds: int) -> Epsilons:
        """Both epsilons after `rounds` charged rounds."""
        return epsilon_of(
            self.mechanism, self.sampler, rounds, self.privacy.delta, self.privacy.max_participations
        )

    @cached_property
    def budgets(self) -> Epsilons:
        """The most that may be spent, infinite where there is no budget."""
        readers, server = self.privacy.readers_epsilon, self.privacy.server_epsilon
        return Epsilons(math.inf if readers is None else readers, math.inf if server is None else server)

    def describe(self) -> Mapping[str, Any]:
        """Everything the epsilons follow from, as JSON values."""
        return {
            "adjacency": "zero-out",
            "delta": self.privacy.delta,
            "max_participations": self.privacy.max_participations,
            "mechanism": self.mechanism.describe(),
            "readers_epsilon": self.privacy.readers_epsilon,
            "rounds": self.rounds,
            "sampler": self.sampler.describe(),
            "server_epsilon": self.privacy.server_epsilon,
        }
