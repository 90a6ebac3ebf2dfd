"""Cohorts of a fixed number: drawn without replacement, or in a fixed order.

*Fixed size*: the cohort is a uniform sample of exactly m clients. A client that is not drawn makes room for another, so
the Poisson formula would be too small; the accounting is that of sampling without replacement.

*Fixed order*: clients take turns, m at a time. Nothing is hidden, nothing is amplified; what it buys is that a client's
participations are at least `separation` rounds apart and known in number, which correlated noise needs.

Not here: cohorts by coins (`dp.cohorts`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp import checks
from dp.cohorts import Draw, capped_mask, choose, participations
from dp.errors import CohortMismatch, ParameterError
from dp.events import BandedGaussian, Composed, FixedSize, NoiseEvent

if TYPE_CHECKING:
    from dp.keystream import Keystream

__all__ = ["FixedOrder", "FixedSizeSample"]


@dataclass(frozen=True)
class FixedSizeSample:
    """A uniform sample of exactly `expected` clients, without replacement, afresh every round.

    Guarantee: against an observer who sees only noised sums, every set of `expected` clients is equally likely.

    Args:
        population: N, number of clients, with ids 0..N-1.
        expected: m, number of clients in every cohort, in 1..N.

    >>> FixedSizeSample(population=3000, expected=300).sampling_rate
    0.1
    """

    population: int
    expected: int

    def __post_init__(self) -> None:
        _check_cohort(self.population, self.expected)

    @property
    def sampling_rate(self) -> float:
        """Probability that a client is in the sample, rounded up."""
        return _rounded_up(self.expected, self.population)

    @property
    def cohort_size(self) -> int:
        """The number invited."""
        return self.expected

    def draw(
        self, keystream: Keystream, *, number: int = 0, capped: Iterable[int] | NDArray[np.bool_] = ()
    ) -> Draw:
        """Draw one cohort; see `PaddedPoisson.draw`. A client at its cap keeps its place and does not contribute."""
        invited = np.sort(choose(keystream, np.arange(self.population), self.expected)).astype(np.int64)
        return Draw(invited, ~capped_mask(capped, self.population)[invited])

    def readers_event(self, event: NoiseEvent, rounds: int, cap: int | None = None) -> Composed:
        """What `rounds` rounds cost against readers: sampled without replacement."""
        return Composed(FixedSize(event, self.sampling_rate), checks.integer("rounds", rounds, 0))

    def server_event(self, event: NoiseEvent, rounds: int, cap: int | None = None) -> Composed:
        """What `rounds` rounds cost against the server: a client's participations, unamplified."""
        return Composed(event, participations(rounds, cap))

    def describe(self) -> dict[str, Any]:
        """Everything the accountant's sampling follows from, as JSON values."""
        return {
            "kind": "fixed size",
            "population": self.population,
            "expected": self.expected,
            "cohort": self.expected,
        }


@dataclass(frozen=True)
class FixedOrder:
    """Clients take turns in the order of their ids, `expected` at a time.

    Guarantee: two participations of a client are at least `separation` rounds apart, and T rounds hold at most
    T / `separation` of them, rounded up, if `draw` is given the number of rounds charged: a round that was refunded is
    drawn again for the same clients.

    Args:
        population: N, number of clients, with ids 0..N-1.
        expected: m, number of clients in every cohort, in 1..N.

    >>> FixedOrder(population=1000, expected=100).separation
    10
    """

    population: int
    expected: int

    def __post_init__(self) -> None:
        _check_cohort(self.population, self.expected)

    @property
    def sampling_rate(self) -> float:
        """1: whose turn it is, is no secret."""
        return 1.0

    @property
    def separation(self) -> int:
        """Least number of rounds from one participation of a client to its next."""
        return self.population // self.expected

    @property
    def cohort_size(self) -> int:
        """The number invited."""
        return self.expected

    def draw(
        self, keystream: Keystream, *, number: int = 0, capped: Iterable[int] | NDArray[np.bool_] = ()
    ) -> Draw:
        """The cohort of the charged round `number`, counted from 1; the keystream is not used."""
        start = checks.integer("number", number, 1) - 1
        turns = (start * self.expected + np.arange(self.expected, dtype=np.int64)) % self.population
        invited = np.sort(turns)
        return Draw(invited, ~capped_mask(capped, self.population)[invited])

    def readers_event(self, event: NoiseEvent, rounds: int, cap: int | None = None) -> Composed:
        """What `rounds` rounds cost against readers: the same as against the server, for the order is no secret."""
        return self.server_event(event, rounds, cap)

    def server_event(self, event: NoiseEvent, rounds: int, cap: int | None = None) -> Composed:
        """What `rounds` rounds cost: one event for each turn a client can have had."""
        if isinstance(event, BandedGaussian) and event.bands > self.separation:
            raise CohortMismatch(
                f"A client's turns are {self.separation} rounds apart, and the noise is correlated over {event.bands}; "
                f"use at most {self.separation} bands, or smaller cohorts."
            )
        turns = -(-checks.integer("rounds", rounds, 0) // self.separation)
        return Composed(event, participations(turns, cap))

    def describe(self) -> dict[str, Any]:
        """Everything the accountant's counting follows from, as JSON values."""
        return {
            "kind": "fixed order",
            "population": self.population,
            "expected": self.expected,
            "cohort": self.expected,
            "separation": self.separation,
        }


def _check_cohort(population: int, expected: int) -> None:
    checks.integer("population", population, 1)
    if checks.integer("expected", expected, 1) > population:
        raise ParameterError(
            f"The cohort {expected} is larger than the population {population}; draw at most {population}."
        )


def _rounded_up(numerator: int, denominator: int) -> float:
    rate = Fraction(numerator, denominator)
    return float(rate) if Fraction(float(rate)) >= rate else math.nextafter(float(rate), 1.0)
