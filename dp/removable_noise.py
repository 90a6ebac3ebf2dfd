"""Noise that dropouts cannot thin and survivors do not pile up: add enough for the worst, then take the excess off.

Every share is sized for the most dropouts allowed, so with fewer of them the sum holds too much. So each client makes
its share of a part that always stays, from its own key, and of `seeds` smaller parts, each from a seed of its own
that it shares among its neighbours. When the round has fixed who is in the sum, the seeds of the parts that are not
needed are revealed, for every client in the sum, and the server takes those parts off again.

With n invited, C of them colluding, t missing from the sum, and V the variance the honest shares must add up to,

    v(t) = V / (n - t - C)    is what each honest client's share must keep;
    part 0 has variance v(0); parts 1..m have delta 2^(j-1), delta = (v(T) - v(0)) / (2^m - 1);
    kept at t: the parts whose sizes add up to ceil((v(t) - v(0)) / delta), in units of delta.

So the honest shares hold at least V whoever drops out, and at most v's rounding to delta more (0.05% at m = 8).

Invariants: which parts are revealed follows from the number missing of the *planned* cohort alone; more than T missing
is refused; every part has deviation 2 or more, so that the tight epsilon holds.

Source: Jiang, Wang, Chen 2024 (Dordis, EuroSys), section 4, with binary-weighted parts in place of one a dropout.
Not here: how seeds are shared and revealed (the conditional secrets of another package).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp import checks
from dp.discrete_gaussian import DiscreteGaussian
from dp.errors import ParameterError
from dp.events import Gaussian
from dp.keystream import Keystream
from dp.tight import LEAST_STDDEV, SMOOTHING_VARIANCE, shares_slack, smoothing_slack

__all__ = ["RemovableDiscreteGaussian"]

_ROUNDING = 1 + 2.0**-40
_MOST_PARTS = 8


@dataclass(frozen=True, kw_only=True)
class RemovableDiscreteGaussian:
    """Distributed discrete Gaussian noise whose excess is taken off when fewer clients dropped out than feared.

    Guarantee: if at most `dropouts` of the `cohort` are missing from the sum, at most `colluders` of the others
    are known to the observer, and only the seeds that `revealed` names are revealed, one release costs a client no
    more than `event`, under zero-out adjacency, whoever dropped out and whenever.

    Args:
        noise_multiplier: z, effective deviation of the honest shares' sum over `sensitivity`, above 0.
        sensitivity: D, joint l2 norm of one client's integer vector, in integer units, above 0.
        dimension: d, number of integer coordinates.
        cohort: n, clients invited.
        dropouts: T, most of them that may be missing from the sum.
        colluders: C, most of those in the sum whose shares the observer knows.

    Raises:
        ParameterError: a value is out of range, nobody honest is left, or a share's deviation would fall below 2.

    >>> mechanism = RemovableDiscreteGaussian(
    ...     noise_multiplier=1.0, sensitivity=5000.0, dimension=10, cohort=100, dropouts=20, colluders=10)
    >>> mechanism.seeds, mechanism.revealed(0), mechanism.revealed(20)
    (8, (1, 2, 3, 4, 5, 6, 7, 8), ())
    """

    noise_multiplier: float
    sensitivity: float
    dimension: int
    cohort: int
    dropouts: int
    colluders: int

    def __post_init__(self) -> None:
        checks.positive("noise_multiplier", self.noise_multiplier)
        checks.positive("sensitivity", self.sensitivity)
        checks.integer("dimension", self.dimension, 1)
        checks.integer("cohort", self.cohort, 1)
        checks.integer("dropouts", self.dropouts, 0)
        checks.integer("colluders", self.colluders, 0)
        if self.honest_survivors < 1:
            raise ParameterError(
                f"a cohort of {self.cohort} less {self.dropouts} dropouts and {self.colluders} colluders leaves"
                " nobody honest; allow fewer"
            )
        if self._kept_variance(0) < LEAST_STDDEV**2:
            raise ParameterError(
                f"the part that stays would have deviation {math.sqrt(self._kept_variance(0)):.3g} in integer units,"
                f" below {LEAST_STDDEV:g}; raise the encoding's resolution or the noise multiplier"
            )

    @property
    def trusted_server(self) -> bool:
        """False: the server never sees a vector without noise."""
        return False

    @property
    def honest_survivors(self) -> int:
        """Fewest honest shares the sum can hold."""
        return self.cohort - self.dropouts - self.colluders

    @cached_property
    def seeds(self) -> int:
        """m, how many seeds a client shares: none where there is no excess worth a part."""
        excess = self._kept_variance(self.dropouts) - self._kept_variance(0)
        parts = _MOST_PARTS
        while parts and excess / (2**parts - 1) < LEAST_STDDEV**2:
            parts -= 1
        return parts

    @property
    def local_stddev(self) -> float:
        """Deviation of one client's whole share, before anything is taken off, in integer units."""
        return math.sqrt(self._part_variance(0) + sum(map(self._part_variance, range(1, self.seeds + 1))))

    def stddev_of_sum(self, survivors: int) -> float:
        """Deviation of the noise in a sum of `survivors` clients, the excess taken off, in integer units."""
        missing = self._missing(survivors)
        kept = set(range(self.seeds + 1)) - set(self.revealed(missing))
        return math.sqrt(survivors * sum(map(self._part_variance, kept)))

    def revealed(self, missing: int) -> tuple[int, ...]:
        """Numbers of the seeds that are revealed when so many of the cohort are missing from the sum.

        Raises:
            ParameterError: more are missing than the noise was sized for.
        """
        missing = checks.integer("missing", missing, 0)
        if missing > self.dropouts:
            raise ParameterError(
                f"{missing} of {self.cohort} are missing and the noise was sized for {self.dropouts}; give the round up"
            )
        needed = self._kept_variance(missing) - self._part_variance(0)
        units = math.ceil(needed / self._unit - 1e-9) if self.seeds and needed > 0 else 0
        units = min(units, 2**self.seeds - 1)
        return tuple(part for part in range(1, self.seeds + 1) if not units >> (part - 1) & 1)

    def share(self, keystream: Keystream, seeds: Sequence[bytes]) -> NDArray[np.int64]:
        """Draw one client's noise share: the part that stays, and one part from each seed.

        Args:
            keystream: The client's own randomness, for the part that stays.
            seeds: Its `seeds` conditional secrets, 32 bytes each, in order.

        Returns:
            int64 array, shape (dimension,). Secret: it must be added before anything leaves the client.

        Raises:
            ParameterError: another number of seeds.
        """
        if len(seeds) != self.seeds:
            raise ParameterError(f"{len(seeds)} seeds were given; this noise needs {self.seeds}")
        share = self._sampler(0).sample(self.dimension, entropy=keystream)
        return share + self.excess(enumerate(seeds, start=1))

    def add_share(self, vector: NDArray[np.int64], keystream: Keystream, seeds: Sequence[bytes]) -> None:
        """Add to a client's integer vector, shape (dimension,), what `share` would draw.

        Args:
            vector: int64, changed in place.
            keystream: Randomness of the part that stays.
            seeds: 32 bytes for each part that can be taken off.
        """
        vector += self.share(keystream, seeds)

    def excess(self, seeds: Iterable[tuple[int, bytes]]) -> NDArray[np.int64]:
        """The parts that numbered seeds give: what the server takes off once these were revealed to it.

        Args:
            seeds: (number of the part, its seed) of any clients.

        Returns:
            int64 array, shape (dimension,): the parts' sum.
        """
        total = np.zeros(self.dimension, np.int64)
        for part, seed in seeds:
            total += self._sampler(part).sample(self.dimension, entropy=Keystream(seed))
        return total

    @cached_property
    def event(self) -> Gaussian:
        """What one release costs one client."""
        smallest = min(map(self._part_variance, range(self.seeds + 1)))
        # Merging a and b costs a slack at ab/(a + b), which is at least half the smaller of them.
        within = self.cohort * self.seeds * smoothing_slack(smallest / 2) if self.seeds else 0.0
        between = shares_slack(self._part_variance(0), self.cohort)
        return Gaussian(
            self.noise_multiplier, self.dimension * (within + between + smoothing_slack(SMOOTHING_VARIANCE))
        )

    def describe(self) -> Mapping[str, Any]:
        """Everything the event follows from, as JSON values."""
        return {
            "kind": "distributed discrete Gaussian, excess removed",
            "noise_multiplier": self.noise_multiplier,
            "sensitivity": self.sensitivity,
            "dimension": self.dimension,
            "cohort": self.cohort,
            "dropouts": self.dropouts,
            "colluders": self.colluders,
        }

    @property
    def _unit(self) -> float:
        excess: float = self._kept_variance(self.dropouts) - self._kept_variance(0)
        return float(excess / (2**self.seeds - 1))

    def _kept_variance(self, missing: int) -> float:
        """v(t): variance that each honest share must keep, rounded up."""
        target = (self.noise_multiplier * self.sensitivity) ** 2 + SMOOTHING_VARIANCE
        return float(target / (self.cohort - missing - self.colluders) * _ROUNDING)

    def _part_variance(self, part: int) -> float:
        if part:
            return float(self._unit * 2.0 ** (part - 1))
        # Without seeds nothing is ever taken off, and the part that stays must do for the worst.
        return self._kept_variance(0 if self.seeds else self.dropouts)

    def _missing(self, survivors: int) -> int:
        return self.cohort - checks.integer("survivors", survivors, 1)

    def _sampler(self, part: int) -> DiscreteGaussian:
        if part not in self._samplers:
            self._samplers[part] = DiscreteGaussian(stddev=math.sqrt(self._part_variance(part)) * _ROUNDING)
        return self._samplers[part]

    @cached_property
    def _samplers(self) -> dict[int, DiscreteGaussian]:
        return {}
