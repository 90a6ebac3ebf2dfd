"""What a history of releases costs, against each of two observers.

*Readers* of the released models do not know who was drawn: their cost is every round, amplified by the draw, by the
privacy loss distribution of the Poisson-sampled Gaussian, both directions, the larger. *The server* knows the cohort:
its cost is one client's own participations, at most its cap, unsampled, in closed form.

A pointwise factor exp(+-slack) a release (`dp.tight`) costs 2 n slack of epsilon and a factor e^(n slack) of delta.
Noise whose loss distribution is not proven (Skellam, shares narrower than 2) is accounted for in Renyi DP. The same
function plans, charges and stops, so that a plan that fits its budget never runs over it by a rounding.

Not here: loss distributions (`dp.pld`), Renyi curves (`dp.renyi`, `dp.amplification`), the closed form (`dp.gaussian`),
costs chosen after seeing outputs (`dp.filters`), the search for noise (`dp.calibration`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp import checks
from dp.amplification import poisson_renyi
from dp.cohorts import Sampler
from dp.errors import ParameterError, UnsupportedEvent
from dp.events import BandedGaussian, Composed, DiscreteGaussianShares, FixedSize, Gaussian, Poisson, Skellam
from dp.mechanisms import Mechanism
from dp.pld import fixed_size_epsilon, poisson_epsilon
from dp.privacy import Epsilons, Privacy
from dp.renyi import renyi_curve, renyi_epsilon

__all__ = ["RunAccountant", "epsilon", "epsilon_of"]


def epsilon(cost: Composed, *, delta: float) -> float:
    """Epsilon of a composed event, never below the truth.

    Args:
        cost: What was released, how often.
        delta: In (0, 1).

    Returns:
        The smallest epsilon this library can show.

    Raises:
        ParameterError: `delta` is out of range.
        UnsupportedEvent: No accountant covers the event.

    >>> round(epsilon(Composed(Poisson(Gaussian(1.5), 0.1), 50), delta=1e-5), 3)
    2.53
    >>> round(epsilon(Composed(Gaussian(1.5), 10), delta=1e-5), 1)
    10.7
    """
    checks.probability("delta", delta)
    return _epsilon(cost, delta) if cost.count else 0.0


@lru_cache(maxsize=4096)
def _epsilon(cost: Composed, delta: float) -> float:
    step, rate = cost.step, 1.0
    sampled = step if isinstance(step, Poisson | FixedSize) else None
    event = step if sampled is None else sampled.event
    rate = 1.0 if sampled is None else sampled.rate
    if isinstance(event, BandedGaussian):
        event = event.participation
    if isinstance(event, Gaussian):
        slack = cost.count * event.slack
        engine = fixed_size_epsilon if isinstance(sampled, FixedSize) else poisson_epsilon
        return engine(event.noise_multiplier, rate, cost.count, delta * math.exp(-slack)) + 2 * slack
    if isinstance(event, DiscreteGaussianShares | Skellam) and (rate == 1 or isinstance(sampled, Poisson)):
        return renyi_epsilon(cost.count * _renyi_curve(event, rate), delta=delta)
    raise UnsupportedEvent(
        f"No accountant here covers {step!r}; use a Gaussian mechanism or Poisson sampling."
    )


@lru_cache(maxsize=64)
def _renyi_curve(event: DiscreteGaussianShares | Skellam, rate: float) -> NDArray[np.float64]:
    curve = lru_cache(maxsize=None)(event.renyi)
    return renyi_curve(lambda order: poisson_renyi(curve, rate, order))


def epsilon_of(
    mechanism: Mechanism,
    sampler: Sampler,
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
        Epsilon against readers and against the server; the latter infinite where the server is trusted.
    """
    readers = sampler.readers_event(mechanism.event, rounds, max_participations)
    server = sampler.server_event(mechanism.event, rounds, max_participations)
    seen = mechanism.trusted_server and rounds > 0
    against_readers, against_server = epsilon(readers, delta=delta), epsilon(server, delta=delta)
    # Readers see nothing that a server and its rosters do not, so its bound is theirs, too.
    return Epsilons(min(against_readers, against_server), math.inf if seen else against_server)


@dataclass(frozen=True)
class RunAccountant:
    """The costs and budgets of one run, in the shape a ledger asks for.

    Args:
        mechanism: What a round releases.
        sampler: How its cohort is drawn.
        privacy: The promise: delta, budgets, cap.
        rounds: Rounds planned.

    Raises:
        CohortMismatch: The sampler's accounting does not cover the mechanism; nothing was charged.
        ParameterError: A budget against a server that the mechanism trusts.
    """

    mechanism: Mechanism
    sampler: Sampler
    privacy: Privacy
    rounds: int

    def __post_init__(self) -> None:
        checks.integer("rounds", self.rounds, 1)
        if self.mechanism.trusted_server and self.privacy.server_epsilon is not None:
            raise ParameterError(
                f"server_epsilon is {self.privacy.server_epsilon:g}, and the mechanism trusts the server, against whom "
                "epsilon is infinite; leave it out, or use DistributedDiscreteGaussian."
            )
        self.epsilons(1)  # A pairing that no accountant covers is refused here.

    def epsilons(self, rounds: int) -> Epsilons:
        """Both epsilons after `rounds` charged rounds."""
        return epsilon_of(
            self.mechanism, self.sampler, rounds, self.privacy.delta, self.privacy.max_participations
        )

    def fits(self, rounds: int) -> bool:
        """Whether `rounds` rounds keep the budgets; no more is computed than whether the whole plan does."""
        # Costs only grow with rounds, and what is computed is never below the truth.
        return (rounds <= self.rounds and self._plan_fits) or self._fits(rounds)

    def events(self, rounds: int) -> tuple[Composed, Composed | None]:
        """What `rounds` rounds cost against readers, and against the server; None where it is trusted."""
        event, cap = self.mechanism.event, self.privacy.max_participations
        server = self.sampler.server_event(event, rounds, cap)
        return self.sampler.readers_event(
            event, rounds, cap
        ), None if self.mechanism.trusted_server else server

    @cached_property
    def _plan_fits(self) -> bool:
        return self._fits(self.rounds)

    def _fits(self, rounds: int) -> bool:
        reached = self.epsilons(rounds)
        return reached.readers <= self.budgets.readers and reached.server <= self.budgets.server

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
