"""What a run would cost before it begins: both epsilons of a plan, or the noise that keeps a promise.

Cohort, ring and noise shares are planned by the same code that a run plans itself with (`fedavg.aggregation`), and the
epsilons are the accountant's own, so that a plan, the run and its ledger agree to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import dp
from dp.accounting import epsilon
from dp.events import Gaussian
from dp.mechanisms import DistributedSkellam
from fedavg.aggregation import AggregationPlan, SecureAggregation
from fedavg.errors import ParameterError

__all__ = ["Mechanism", "Plan", "Planned", "plan"]

_STEPS = 40  # Halvings of a range of e^18: closer than the accountants' own grids.
_LEAST_NOISE, _MOST_NOISE = 0.05, 1e6


class Mechanism(StrEnum):
    """Whose noise: `gaussian` is a trusted server's, the others are shares added by every client."""

    gaussian = "gaussian"
    discrete_gaussian = "discrete_gaussian"
    skellam = "skellam"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked: a noise multiplier to be costed, or epsilons to be kept by the least noise."""

    population: int
    cohort: int
    rounds: int
    delta: float
    mechanism: Mechanism
    noise_multiplier: float | None
    epsilon_readers: float | None
    epsilon_server: float | None
    max_participations: int | None
    length: int
    tolerance: float
    corruption: float


@dataclass(frozen=True)
class Planned:
    """The answer: the noise multiplier, both epsilons at it, and what the cohort and the ring come to."""

    noise_multiplier: float
    epsilon: dp.Epsilons
    sampler: dp.PaddedPoisson
    aggregation: AggregationPlan | None
    """None for the central mechanism, where nothing is masked."""


def plan(asked: Plan) -> Planned:
    """Cost a plan, or find the least noise that keeps what it asks for.

    Raises:
        ParameterError: the sizes make no round, or no noise keeps the promise.
        dp.ParameterError: a value is out of range, or no noise keeps the promise.

    >>> asked = Plan(
    ...     population=3000, cohort=300, rounds=50, delta=1e-5, mechanism=Mechanism.discrete_gaussian,
    ...     noise_multiplier=1.5, epsilon_readers=None, epsilon_server=None, max_participations=10, length=7850,
    ...     tolerance=0.1, corruption=0.1,
    ... )
    >>> answer = plan(asked)
    >>> round(answer.epsilon.readers, 2), round(answer.epsilon.server, 1), answer.sampler.cohort_size
    (2.53, 10.7, 416)
    """
    if asked.rounds < 1:
        raise ParameterError(f"rounds is {asked.rounds}; give at least 1")
    if asked.mechanism is Mechanism.gaussian and asked.epsilon_server is not None:
        raise ParameterError(
            f"no noise keeps epsilon {asked.epsilon_server:g} against the server with the central mechanism gaussian,"
            " which trusts it; plan with discrete_gaussian, or leave --epsilon-server out"
        )
    sampler = dp.PaddedPoisson(population=asked.population, expected=asked.cohort)
    privacy = dp.Privacy(
        delta=asked.delta,
        l2_clip_norm=1.0,
        readers_epsilon=asked.epsilon_readers,
        server_epsilon=asked.epsilon_server,
        noise_multiplier=asked.noise_multiplier,
        max_participations=asked.max_participations,
    )
    noise = (
        _least_skellam(asked, sampler, privacy)
        if asked.mechanism is Mechanism.skellam
        else dp.calibrate(privacy, sampler, rounds=asked.rounds)
    )
    aggregation = (
        None if asked.mechanism is Mechanism.gaussian else _aggregation(asked, sampler, privacy, noise)
    )
    return Planned(noise, _cost(asked, sampler, aggregation, noise), sampler, aggregation)


def _aggregation(
    asked: Plan, sampler: dp.PaddedPoisson, privacy: dp.Privacy, noise_multiplier: float
) -> AggregationPlan:
    return AggregationPlan.choose(
        size=asked.length,
        cohort=sampler.cohort_size,
        privacy=privacy,
        noise_multiplier=noise_multiplier,
        secure=SecureAggregation(dropout=asked.tolerance, corruption=asked.corruption),
        metrics={},
    )


def _cost(
    asked: Plan, sampler: dp.PaddedPoisson, aggregation: AggregationPlan | None, noise_multiplier: float
) -> dp.Epsilons:
    if aggregation is None:
        event = sampler.readers_event(Gaussian(noise_multiplier), asked.rounds, asked.max_participations)
        return dp.Epsilons(readers=epsilon(event, delta=asked.delta), server=math.inf)
    skellam = asked.mechanism is Mechanism.skellam
    mechanism = _skellam(aggregation, noise_multiplier) if skellam else aggregation.mechanism
    return dp.epsilon_of(mechanism, sampler, asked.rounds, asked.delta, asked.max_participations)


def _skellam(aggregation: AggregationPlan, noise_multiplier: float) -> DistributedSkellam:
    return DistributedSkellam(
        noise_multiplier=noise_multiplier,
        sensitivity=aggregation.encoding.sensitivity,
        dimension=aggregation.encoding.dimension,
        honest_survivors=aggregation.honest_survivors,
    )


def _least_skellam(asked: Plan, sampler: dp.PaddedPoisson, privacy: dp.Privacy) -> float:
    """The least Skellam noise that keeps both epsilons; a given multiplier is a floor."""
    floor = asked.noise_multiplier
    if asked.epsilon_readers is None and asked.epsilon_server is None and floor is not None:
        return floor
    aggregation = _aggregation(asked, sampler, privacy, 1.0)
    readers = math.inf if asked.epsilon_readers is None else asked.epsilon_readers
    server = math.inf if asked.epsilon_server is None else asked.epsilon_server

    def keeps(noise_multiplier: float) -> bool:
        cost = _cost(asked, sampler, aggregation, noise_multiplier)
        return cost.readers <= readers and cost.server <= server

    return _least(keeps, max(floor or 0.0, _LEAST_NOISE))


def _least(keeps: Callable[[float], bool], low: float) -> float:
    """The smallest number, to a part in a million, from `low` up at which a monotone condition holds."""
    if keeps(low):
        return low
    high = _MOST_NOISE
    if not keeps(high):
        raise ParameterError(
            f"no noise multiplier up to {high:g} keeps the promise; ask for a larger epsilon"
        )
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if keeps(middle) else (middle, high)
        if high / low < 1 + 1e-6:
            break
    return high
