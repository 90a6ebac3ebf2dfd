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
- A sampler is paired only with the accountant that describes it: `readers_event` is the other face of `draw`.

Source: Poisson subsampling as in Abadi et al. 2016 (1607.00133), section 3; the padding is this project's.
Not here: what a round's noise is (`dp.mechanisms`), what a history costs (`dp.accounting`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp import checks
from dp.errors import ParameterError
from dp.events import Composed, NoiseEvent, Poisson

if TYPE_CHECKING:
    from dp.keystream import Keystream

__all__ = ["Draw", "PaddedPoisson"]

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

    def draw(self, keystream: Keystream, *, capped: Iterable[int] | NDArray[np.bool_] = ()) -> Draw:
        """Draw one cohort, private until the round's noised sum is released.

        Args:
            keystream: Source of every coin, unused before.
            capped: Clients at their cap: ids, or a bool mask of shape (population,).

        Returns:
            The cohort: `cohort_size` invited ids, and which of them contribute.
        """
        drawn = _coins(keystream, self._rate, self.population)
        while np.count_nonzero(drawn) > self.cohort_size:
            drawn = _coins(keystream, self._rate, self.population)
        members = drawn.copy()
        rest = np.flatnonzero(~drawn)
        members[_choose(keystream, rest, self.cohort_size - int(np.count_nonzero(drawn)))] = True
        invited = np.flatnonzero(members).astype(np.int64)
        return Draw(invited, (drawn & ~_mask(capped, self.population))[invited])

    def readers_event(self, event: NoiseEvent, rounds: int) -> Composed:
        """What `rounds` rounds of `event` cost against readers: Poisson sampled, composed."""
        return Composed(Poisson(event, self.sampling_rate), checks.integer("rounds", rounds, 0))

    def server_event(self, event: NoiseEvent, participations: int) -> Composed:
        """What `participations` rounds cost against whoever knows the cohort: no amplification."""
        return Composed(event, checks.integer("participations", participations, 0))

    def describe(self) -> dict[str, Any]:
        """Everything the accountant's sampling follows from, as JSON values."""
        return {
            "kind": "padded Poisson",
            "population": self.population,
            "expected": self.expected,
            "cohort": self.cohort_size,
        }

    @property
    def _rate(self) -> Fraction:
        return Fraction(self.expected) / self.population


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


def _choose(keystream: Keystream, pool: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """`count` members of `pool`, uniform without replacement: those with the smallest random keys."""
    if count == len(pool):
        return pool
    while True:
        keys = keystream.words(len(pool), np.uint64)
        order = np.argpartition(keys, count)
        # A tie across the boundary would be broken by position: draw again, which favours nobody.
        if count == 0 or keys[order[:count]].max() < keys[order[count]]:
            return pool[order[:count]]


def _mask(capped: Iterable[int] | NDArray[np.bool_], population: int) -> NDArray[np.bool_]:
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
