"""Who takes part in a round, and what that choice is worth to the accountant.

Default, *padded Poisson*: each client is drawn with probability q by its own exact coin; a draw above the fixed
cohort size is redrawn in full before anyone is invited; the cohort is filled to exactly that size with random
padding clients, who send zeros with their noise share. The noise total does not depend on who was drawn, so
readers face exactly the Poisson mixture.

Invariants:
- Nothing public tells who was drawn or how many: `invited` always has `cohort_size` sorted ids, and `contributes`
  belongs to the operator's private state and to each client alone.
- Redrawing is free under zero-out adjacency: given everybody else's coins, the redraw only lowers a client's
  probability from q (to 0 when the others alone fill the cohort), and the divergence grows with q.
- A client at its cap is padding: it may be invited, it never contributes.
- A sampler is paired only with the accountant that describes it: `readers_event` and `server_event` are the other
  faces of `draw`.

*Self-sampling* has known carriers, each of whom flips a coin of its own: then the coin holds against the server too.

Source: Poisson subsampling as in Abadi et al. 2016 (1607.00133), section 3; the padding is this project's.
Not here: cohorts without coins (`dp.fixed_cohorts`), a round's noise (`dp.mechanisms`), its cost (`dp.accounting`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dp import checks
from dp.errors import ParameterError
from dp.events import Composed, NoiseEvent, Poisson

if TYPE_CHECKING:
    from dp.keystream import Keystream

__all__ = ["Draw", "PaddedPoisson", "Sampler", "SelfSampling", "capped_mask", "choose", "participations"]

_TAIL_DEVIATIONS = 7


@dataclass(frozen=True)
class Draw:
    """One round's cohort.

    Args:
        invited: int64 ids in ascending order, shape (cohort size,); public.
        contributes: bool, same shape: True where the client was drawn and is below its cap; private.
    """

    invited: NDArray[np.int64]
    contributes: NDArray[np.bool_] = field(repr=False)


class Sampler(Protocol):
    """What every cohort sampler offers: a draw, and the accounting of that draw against both observers."""

    @property
    def population(self) -> int:
        """Number of clients, with ids 0..N-1."""
        ...

    @property
    def expected(self) -> float:
        """Expected number of clients whose data is in a round: the public divisor."""
        ...

    @property
    def cohort_size(self) -> int:
        """The fixed number invited."""
        ...

    @property
    def sampling_rate(self) -> float:
        """Probability that a client contributes to a round, against readers; 1 where nothing is hidden."""
        ...

    def draw(
        self, keystream: Keystream, *, number: int = 0, capped: Iterable[int] | NDArray[np.bool_] = ()
    ) -> Draw:
        """Draw the cohort of round `number`; clients at their cap do not contribute.

        Args:
            keystream: Where its randomness comes from.
            number: The charged round, from 1; only fixed orders use it.
            capped: Clients at their cap: ids, or a bool array of shape (population,).

        Returns:
            Who is invited, and who of them contributes.
        """
        ...

    def readers_event(self, event: NoiseEvent, rounds: int, cap: int | None = None) -> Composed:
        """What `rounds` rounds cost a client against readers.

        Args:
            event: What one release costs a client that is in it.
            rounds: How many.
            cap: Most participations of a client, or None.
        """
        ...

    def server_event(self, event: NoiseEvent, rounds: int, cap: int | None = None) -> Composed:
        """What `rounds` rounds cost a client against the server.

        Args:
            event: What one release costs a client that is in it.
            rounds: How many.
            cap: Most participations of a client, or None.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Everything the accountant's sampling follows from, as JSON values."""
        ...


@dataclass(frozen=True)
class PaddedPoisson:
    """Poisson sampling, padded to a fixed cohort.

    Guarantee: against an observer who sees only noised sums, each client contributes to a round with probability at
    most `sampling_rate`, given everybody else's participation, and the cohort size is a constant.

    Args:
        population: N, number of clients, with ids 0..N-1.
        expected: q N, expected number drawn, in (0, N].

    Raises:
        ParameterError: `population` below 1, or `expected` outside (0, population].

    >>> sampler = PaddedPoisson(population=3000, expected=300)
    >>> sampler.sampling_rate, sampler.cohort_size
    (0.1, 416)
    """

    population: int
    expected: float

    def __post_init__(self) -> None:
        checks.integer("population", self.population, 1)
        checks.positive("expected", self.expected)
        if self.expected > self.population:
            raise ParameterError(
                f"The expected cohort {self.expected:g} is larger than the population {self.population}; "
                f"expect at most {self.population}."
            )

    @property
    def sampling_rate(self) -> float:
        """The rate q as the accountant uses it: the exact rate, rounded up to a float."""
        rate = float(self._rate)
        return math.nextafter(rate, 1.0) if Fraction(rate) < self._rate else rate

    @property
    def cohort_size(self) -> int:
        """n_max, the fixed number invited: q N plus seven standard deviations, at most N."""
        rate = self.expected / self.population
        spread = math.sqrt(self.expected * (1 - rate))
        return min(self.population, math.ceil(self.expected + _TAIL_DEVIATIONS * spread))

    def draw(
        self, keystream: Keystream, *, number: int = 0, capped: Iterable[int] | NDArray[np.bool_] = ()
    ) -> Draw:
        """Draw one cohort, private until the round's noised sum is released.

        Args:
            keystream: Source of every coin, unused before.
            number: The round's number; no draw here depends on it.
            capped: Clients at their cap: ids, or a bool mask of shape (population,).

        Returns:
            The cohort: `cohort_size` invited ids, and which of them contribute.
        """
        drawn = self._drawn(keystream)
        members = drawn.copy()
        rest = np.flatnonzero(~drawn)
        members[choose(keystream, rest, self.cohort_size - int(np.count_nonzero(drawn)))] = True
        invited = np.flatnonzero(members).astype(np.int64)
        return Draw(invited, (drawn & ~capped_mask(capped, self.population))[invited])

    def readers_event(self, event: NoiseEvent, rounds: int, cap: int | None = None) -> Composed:
        """What `rounds` rounds cost against readers: Poisson sampled; a cap never adds, and is not counted."""
        return Composed(Poisson(event, self.sampling_rate), checks.integer("rounds", rounds, 0))

    def server_event(self, event: NoiseEvent, rounds: int, cap: int | None = None) -> Composed:
        """What `rounds` rounds cost against whoever knows who was drawn: a client's participations, unamplified."""
        return Composed(event, participations(rounds, cap))

    def describe(self) -> dict[str, Any]:
        """Everything the accountant's sampling follows from, as JSON values."""
        return {
            "kind": "padded Poisson",
            "population": self.population,
            "expected": self.expected,
            "cohort": self.cohort_size,
        }

    def _drawn(self, keystream: Keystream) -> NDArray[np.bool_]:
        """Everybody's coins, flipped again until they fit the cohort."""
        while True:
            drawn = _coins(keystream, self._rate, self.population)
            if np.count_nonzero(drawn) <= self.cohort_size:
                return drawn

    @property
    def _rate(self) -> Fraction:
        return Fraction(self.expected) / self.population


@dataclass(frozen=True)
class SelfSampling:
    """Carriers drawn by padded Poisson, each of whom includes its data by a coin of its own.

    A carrier whose coin says no sends zeros with its noise share, in the same form, size and time.

    Guarantee: against the server, which knows the carriers and not their coins, a client contributes to a round with
    probability at most `coin`; against readers, who know neither, with at most the product of both rates. It holds if
    every client flips its coin from its own secret randomness.

    Args:
        carriers: Who carries; with `expected` equal to `population` everybody does, every round.
        coin: Probability that a carrier includes its data, in (0, 1).

    >>> SelfSampling(PaddedPoisson(population=100, expected=40), coin=0.25).expected
    10.0
    """

    carriers: PaddedPoisson
    coin: float

    def __post_init__(self) -> None:
        checks.probability("coin", self.coin)

    @property
    def population(self) -> int:
        """Number of clients."""
        return self.carriers.population

    @property
    def expected(self) -> float:
        """Expected number of clients whose data is in a round: the public divisor."""
        return self.carriers.expected * self.coin

    @property
    def sampling_rate(self) -> float:
        """Probability that a client contributes to a round, against readers."""
        return min(1.0, math.nextafter(self.carriers.sampling_rate * self.coin, 1.0))

    @property
    def cohort_size(self) -> int:
        """The fixed number invited."""
        return self.carriers.cohort_size

    def draw(
        self, keystream: Keystream, *, number: int = 0, capped: Iterable[int] | NDArray[np.bool_] = ()
    ) -> Draw:
        """Draw carriers, and flip their coins for them, as a simulation must; see `PaddedPoisson.draw`."""
        draw = self.carriers.draw(keystream, number=number, capped=capped)
        coins = _coins(keystream, Fraction(self.coin), len(draw.invited))
        return Draw(draw.invited, draw.contributes & coins)

    def readers_event(self, event: NoiseEvent, rounds: int, cap: int | None = None) -> Composed:
        """What `rounds` rounds cost against readers: both coins."""
        return Composed(Poisson(event, self.sampling_rate), checks.integer("rounds", rounds, 0))

    def server_event(self, event: NoiseEvent, rounds: int, cap: int | None = None) -> Composed:
        """What `rounds` rounds cost against the server: carrying every round, each amplified by the coin.

        A cap counts coins that fell yes, which the server does not see: it never adds, and is not counted.
        """
        return Composed(Poisson(event, self.coin), checks.integer("rounds", rounds, 0))

    def describe(self) -> dict[str, Any]:
        """Everything the accountant's sampling follows from, as JSON values."""
        return {**self.carriers.describe(), "kind": "self-sampling", "coin": self.coin}


def participations(rounds: int, cap: int | None) -> int:
    """Most rounds one client can contribute to."""
    checks.integer("rounds", rounds, 0)
    return rounds if cap is None else min(rounds, checks.integer("max_participations", cap, 1))


def _coins(keystream: Keystream, rate: Fraction, count: int) -> NDArray[np.bool_]:
    """`count` independent coins that fall True with probability exactly `rate`."""
    if rate == 1:
        return np.ones(count, dtype=np.bool_)
    threshold, rest = divmod(rate.numerator << 64, rate.denominator)
    words = keystream.words(count, np.uint64)
    coins: NDArray[np.bool_] = words < np.uint64(threshold)
    # A word equal to the threshold decides nothing: the remaining bits of the rate do, in further words.
    for tied in np.flatnonzero(words == np.uint64(threshold)) if rest else ():
        coins[tied] = _coins(keystream, Fraction(rest, rate.denominator), 1)[0]
    return coins


def choose(keystream: Keystream, pool: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """`count` members of `pool`, uniform without replacement: those with the smallest random keys."""
    if count == len(pool):
        return pool
    while True:
        keys = keystream.words(len(pool), np.uint64)
        order = np.argpartition(keys, count)
        # A tie across the boundary would be broken by position: draw again, which favours nobody.
        if count == 0 or keys[order[:count]].max() < keys[order[count]]:
            return pool[order[:count]]


def capped_mask(capped: Iterable[int] | NDArray[np.bool_], population: int) -> NDArray[np.bool_]:
    """Clients at their cap, given as ids or as a mask, as a mask of shape (population,)."""
    if isinstance(capped, np.ndarray) and capped.dtype == np.bool_:
        if capped.shape != (population,):
            raise ParameterError(
                f"The mask of capped clients has shape {capped.shape}; it must be ({population},)."
            )
        return capped
    mask = np.zeros(population, dtype=np.bool_)
    ids = np.fromiter(capped, dtype=np.int64)
    if len(ids) and not (ids.min() >= 0 and ids.max() < population):
        raise ParameterError(f"A capped client id lies outside 0..{population - 1}; ids count from 0.")
    mask[ids] = True
    return mask
