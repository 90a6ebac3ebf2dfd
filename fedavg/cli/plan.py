"""What a run would cost before it begins: `dp.plan`, with the cohort, ring and noise shares of a run.

`dp.plan` is the engine: it solves for the one figure that is left out. What is added here is what only a whole run
knows: the event of its own encoding, so that a plan, the run and its ledger agree to the last digit; the noise on the
average; bits and bytes of a round.

Not here: the options (`fedavg.cli.budget`), CPU and bytes (`fedavg.cli.round_cost`), the picture
(`fedavg.cli.plan_plot`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

import dp
from dp.events import Gaussian, NoiseEvent
from fedavg.aggregation import AggregationPlan, SecureAggregation
from fedavg.cli.round_cost import RoundCost, round_cost
from fedavg.errors import ParameterError
from fedavg.layout import Layout
from fedavg.pytree import TreeSpec

__all__ = ["FIGURES", "Accountant", "Asked", "Mechanism", "Noise", "Planned", "plan", "settings", "varied"]

FIGURES = (
    "population",
    "cohort",
    "rounds",
    "delta",
    "noise_multiplier",
    "epsilon_readers",
    "epsilon_server",
    "max_participations",
)
"""The figures of a plan that may be a list of choices."""


class Mechanism(StrEnum):
    """Whose noise: `gaussian` is a trusted server's, the others are shares added by every client."""

    gaussian = "gaussian"
    discrete_gaussian = "discrete_gaussian"
    skellam = "skellam"


class Accountant(StrEnum):
    """Privacy loss distributions, or the Renyi orders that many papers used."""

    pld = "pld"
    rdp = "rdp"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One plan to make: one of the figures is None, or both epsilons are, and is solved for."""

    population: int | None
    cohort: float | None
    rounds: int | None
    delta: float | None
    noise_multiplier: float | None = None
    epsilon_readers: float | None = None
    epsilon_server: float | None = None
    max_participations: int | None = None
    mechanism: Mechanism = Mechanism.discrete_gaussian
    accountant: Accountant = Accountant.pld
    parameters: int = 1_000_000
    clip: float | None = None
    update_norm: float | None = None
    tolerance: float = 0.1
    corruption: float = 0.1


@dataclass(frozen=True)
class Noise:
    """What noise does to the average, if nobody drops out: that is when most shares are in the sum.

    Args:
        per_coordinate: Deviation of the noise in one coordinate of the average, in units of the update.
        share_of_update: Norm of the whole noise over the norm of a typical update.
    """

    per_coordinate: float
    share_of_update: float


@dataclass(frozen=True)
class Planned:
    """The answer of `dp.plan`, and what a run of it would be.

    Args:
        answer: What `dp.plan` returns.
        aggregation: How a round is summed; None for the central mechanism, where nothing is masked.
        cost: Bits, bytes and the shape of a round, None where nothing is masked.
        noise: On the average; None if no clip was given.
    """

    answer: Mapping[str, Any]
    aggregation: AggregationPlan | None
    cost: RoundCost | None
    noise: Noise | None

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        aggregation, answer = self.aggregation, dict(self.answer)
        answer["max_participations"] = answer["max_participations"] or answer["rounds"]
        return {
            **answer,
            "min_survivors": None if aggregation is None else aggregation.minimum_survivors,
            "honest_survivors": None if aggregation is None else aggregation.honest_survivors,
            "modulus_bits": None if aggregation is None else aggregation.modulus_bits,
            "noise": None
            if self.noise is None
            else {
                "per_coordinate": self.noise.per_coordinate,
                "share_of_update": self.noise.share_of_update,
            },
            "bytes_up_per_client": None if self.cost is None else self.cost.bytes_up_per_client,
            "bytes_up_round": None if self.cost is None else self.cost.bytes_up_round,
            "neighbours": None if self.cost is None else self.cost.neighbours,
        }


def settings(asked: Mapping[str, tuple[Any, ...]], **rest: Any) -> Iterator[Asked]:
    """Every combination of the choices given for each figure; a figure without choices is left out."""
    names = [name for name in FIGURES if asked.get(name)]
    missing: dict[str, Any] = {name: None for name in FIGURES if name not in names}
    for values in itertools.product(*(asked[name] for name in names)):
        yield Asked(**missing, **dict(zip(names, values, strict=True)), **rest)


def plan(asked: Asked) -> Planned:
    """Make one plan.

    Raises:
        ParameterError: the sizes make no round.
        dp.ParameterError: not exactly one figure is left out, a value is out of range, or nothing keeps the promise.
        secagg.ParameterError: no graph withstands the dropouts and colluders asked for.

    >>> answer = plan(Asked(population=3000, cohort=300, rounds=50, delta=1e-5, noise_multiplier=1.5,
    ...     max_participations=10, parameters=7850, clip=0.3)).as_dict()
    >>> round(answer["epsilon"]["readers"], 2), round(answer["epsilon"]["server"], 1), answer["cohort"]
    (2.53, 10.7, 416)
    """
    if asked.parameters < 1:
        raise ParameterError(f"parameters is {asked.parameters}; give at least 1")
    for name in ("clip", "update_norm"):
        value = getattr(asked, name)
        if value is not None and not 0 < value < math.inf:
            raise ParameterError(f"{name} is {value:g}; give a positive finite number")
    if asked.update_norm is not None and asked.clip is None:
        raise ParameterError(
            "update_norm is compared with the noise, which follows from the clip; give clip too"
        )
    answer = dp.plan(
        population=asked.population,
        cohort=asked.cohort,
        rounds=asked.rounds,
        delta=asked.delta,
        noise_multiplier=asked.noise_multiplier,
        readers_epsilon=asked.epsilon_readers,
        server_epsilon=asked.epsilon_server,
        max_participations=asked.max_participations,
        mechanism=asked.mechanism.value,
        accountant=asked.accountant.value,
        release=lambda sampler, noise: _event(asked, sampler, noise),
    )
    sampler = dp.PaddedPoisson(answer["population"], answer["expected"])
    multiplier = answer["noise_multiplier"]
    if asked.mechanism is Mechanism.gaussian:
        noise = None if asked.clip is None else _noise(asked, multiplier * asked.clip / sampler.expected)
        return Planned(answer, None, None, noise)
    aggregation = _aggregation(asked, sampler, multiplier)
    noise = (
        None if asked.clip is None else _noise(asked, aggregation.stddev_of_sum("update") / sampler.expected)
    )
    return Planned(answer, aggregation, round_cost(aggregation), noise)


def varied(asked: Asked, **figures: Any) -> Asked:
    """The same plan with other figures, the epsilons left out."""
    return replace(asked, epsilon_readers=None, epsilon_server=None, **figures)


def _noise(asked: Asked, per_coordinate: float) -> Noise:
    typical = asked.update_norm or asked.clip or 1.0
    return Noise(per_coordinate, per_coordinate * math.sqrt(asked.parameters) / typical)


def _event(asked: Asked, sampler: dp.PaddedPoisson, noise_multiplier: float) -> NoiseEvent:
    if asked.mechanism is Mechanism.gaussian:
        return Gaussian(noise_multiplier)
    return _aggregation(asked, sampler, noise_multiplier).mechanism.event


def _aggregation(asked: Asked, sampler: dp.PaddedPoisson, noise_multiplier: float) -> AggregationPlan:
    privacy = dp.Privacy(
        delta=0.5,  # Not read: the epsilons are those of `dp.plan`.
        l2_clip_norm=asked.clip or 1.0,
        noise_multiplier=noise_multiplier,
        mechanism=asked.mechanism.value,
    )
    form = TreeSpec.of(np.broadcast_to(np.float32(0), (asked.parameters,)))
    return AggregationPlan.choose(
        Layout(form, {}, privacy, sampler.expected).blocks(noise_multiplier),
        cohort=sampler.cohort_size,
        privacy=privacy,
        noise_multiplier=noise_multiplier,
        secure=SecureAggregation(dropout=asked.tolerance, corruption=asked.corruption),
    )
