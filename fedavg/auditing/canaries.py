"""Canary clients: random directions at full norm, sent through a run's own clip, rounding, noise, masks and sum.

Every canary fills each block of the vector up to its bound, so that it stands for the worst client there is. A group of
canaries, one for each place in the cohort, takes part in a number of consecutive rounds, by one coin for all of them;
then comes a new group. What is measured is the cost of *that many* releases against whoever sees them and knows the
cohort: the server's statement, for a client that contributes as often.

Everything is measured in integer units, where all blocks have one noise.

Source: Steinke, Nasr, Jagielski 2023 (2305.08846); Andrew et al. 2023 (2302.03098).
Not here: the statistics (`dp.auditing`), detectors for single failures (`fedavg.auditing.detectors`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp.auditing import OneRun, OneShot, one_run_bound, one_shot_estimate
from fedavg.aggregation import AggregationPlan
from fedavg.entropy import RunEntropy

__all__ = ["Canaries", "integers", "one_run", "one_shot"]

_MODEL = bytes(32)
_ROWS = 16


@dataclass(frozen=True)
class Canaries:
    """The canaries of one plan: as many in a round as its cohort has places.

    Args:
        plan: How a round is summed.
        entropy: Randomness of canaries, coins and rounds.
    """

    plan: AggregationPlan
    entropy: RunEntropy
    _kept: dict[int, NDArray[np.uint8]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def _dice(self) -> RunEntropy:
        """The auditor's own dice: they repeat, so that a canary sent is a canary looked for."""
        if self.entropy.is_seeded:
            return self.entropy
        return RunEntropy.seeded(int.from_bytes(self.entropy.secret()[:7], "big"))

    def coins(self, group: int) -> NDArray[np.bool_]:
        """A fair coin for each canary of a group."""
        return self._dice.dice("coins", group).random(self.plan.cohort) < 0.5

    def values(self, group: int, client: int, *, size: float = 1.0) -> dict[str, NDArray[np.float64]]:
        """One canary's blocks: random signs, each block scaled to `size` times its bound."""
        signs = np.unpackbits(self._bits(group)[client], count=len(self._units)) * 2.0 - 1.0
        values: dict[str, NDArray[np.float64]] = {}
        start = 0
        for block in self.plan.encoding.blocks:
            unit = size * block.l2_bound / np.sqrt(block.length)
            for name, length in block.parts:
                values[name] = signs[start : start + length] * unit
                start += length
        return values

    def direction(self, group: int, client: int) -> NDArray[np.float64]:
        """The canary in integer units, shape (values,)."""
        return integers(self.plan, self.values(group, client))

    def total(self, group: int) -> NDArray[np.float64]:
        """The sum of a whole group in integer units, before anything is rounded, shape (values,)."""
        count, summed = self.plan.cohort, np.zeros(len(self._units))
        for rows in self._rows(group):
            summed += rows.sum(axis=0)
        total: NDArray[np.float64] = (2 * summed - count) * self._units
        return total

    def projections(self, group: int, released: NDArray[np.float64]) -> NDArray[np.float64]:
        """Length of what was released along each canary's direction, in integer units, shape (cohort,)."""
        weighted = self._units * released
        along = np.concatenate([rows @ weighted for rows in self._rows(group)])
        found: NDArray[np.float64] = (2 * along - weighted.sum()) / np.linalg.norm(self._units)
        return found

    def null_stddev(self, released: NDArray[np.float64]) -> float:
        """Deviation of the cosine between what was released and a canary that had no part in it.

        A block of few values, such as the indicator of an adaptive clip, holds the same share of every canary: sums of
        canaries stand out there, and chance cosines are larger than among that many evenly spread values.
        """
        along = np.linalg.norm(self._units * released)
        return float(along / (np.linalg.norm(self._units) * np.linalg.norm(released)))

    @cached_property
    def _units(self) -> NDArray[np.float64]:
        """Size of each coordinate of a canary in integer units."""
        encoding = self.plan.encoding
        return np.concatenate(
            [
                np.full(block.length, scale * block.l2_bound / np.sqrt(block.length))
                for block, scale in zip(encoding.blocks, encoding.scales, strict=True)
            ]
        )

    def _bits(self, group: int) -> NDArray[np.uint8]:
        """A group's signs as packed bits, a row for each canary; the last group's are kept."""
        if group not in self._kept:
            width = -(-len(self._units) // 8)
            drawn = self._dice.dice("canary", group).bytes(self.plan.cohort * width)
            self._kept.clear()
            self._kept[group] = np.frombuffer(drawn, np.uint8).reshape(self.plan.cohort, width)
        return self._kept[group]

    def _rows(self, group: int) -> Iterator[NDArray[np.float64]]:
        """A group's signs as zeros and ones, some rows at a time."""
        bits = self._bits(group)
        for start in range(0, len(bits), _ROWS):
            yield np.unpackbits(bits[start : start + _ROWS], axis=1, count=len(self._units)).astype(
                np.float64
            )

    def release(
        self, group: int, included: NDArray[np.bool_], *, number: int | None = None, size: float = 1.0
    ) -> NDArray[np.float64]:
        """One round's sum in integer units, noise included, shape (values,): canaries not included send zeros."""
        plan = self.plan
        released = plan.sum_round(
            lambda client: self.values(group, client, size=size) if included[client] else plan.zeros(),
            clients=range(plan.cohort),
            number=group if number is None else number,
            model_hash=_MODEL,
            dropouts={},
            entropy=self.entropy,
        )
        return integers(plan, released.sums)


def one_run(
    plan: AggregationPlan,
    *,
    delta: float,
    groups: int,
    entropy: RunEntropy,
    participations: int = 1,
    significance: float = 0.05,
) -> tuple[OneRun, NDArray[np.float64], NDArray[np.bool_]]:
    """Lower bound on epsilon, from canaries with fair coins.

    Guarantee: if `participations` releases are (e, delta)-DP towards each client, the bound exceeds e with probability
    at most `significance`.

    Args:
        plan: How a round is summed.
        delta: In [0, 1).
        groups: Groups of canaries, each as large as the cohort.
        entropy: Randomness of everything.
        participations: Rounds that a canary is in.
        significance: In (0, 1).

    Returns:
        The bound; the canaries' scores and coins, shape (groups * cohort,).
    """
    canaries = Canaries(plan, entropy)
    scores, coins = [], []
    for group in range(groups):
        included = canaries.coins(group)
        scores.append(canaries.projections(group, _releases(canaries, group, included, participations)))
        coins.append(included)
    measured, fell = np.concatenate(scores), np.concatenate(coins)
    return one_run_bound(measured, fell, delta=delta, significance=significance), measured, fell


def one_shot(
    plan: AggregationPlan, *, delta: float, groups: int, entropy: RunEntropy, participations: int = 1
) -> tuple[OneShot, NDArray[np.float64]]:
    """Estimate epsilon from canaries that all take part; neither a lower nor an upper bound.

    Args:
        plan: How a round is summed.
        delta: In (0, 1).
        groups: Groups of canaries, each as large as the cohort.
        entropy: Randomness of everything.
        participations: Rounds that a canary is in.

    Returns:
        The estimate, and the canaries' cosines with their releases, shape (groups * cohort,).
    """
    canaries = Canaries(plan, entropy)
    everybody = np.ones(plan.cohort, np.bool_)
    cosines, nulls = [], []
    for group in range(groups):
        released = _releases(canaries, group, everybody, participations)
        cosines.append(canaries.projections(group, released) / np.linalg.norm(released))
        nulls.append(canaries.null_stddev(released))
    measured = np.concatenate(cosines)
    dimension = sum(block.length for block in plan.encoding.blocks)
    null = float(np.sqrt(np.mean(np.square(nulls))))
    return one_shot_estimate(measured, dimension=dimension, delta=delta, null_stddev=null), measured


def integers(plan: AggregationPlan, values: Mapping[str, Any]) -> NDArray[np.float64]:
    """Named blocks as one vector in integer units."""
    encoding = plan.encoding
    names = [name for block in encoding.blocks for name, _ in block.parts]
    return np.concatenate(
        [np.asarray(values[name], np.float64).ravel() * encoding.scale(name) for name in names]
    )


def _releases(
    canaries: Canaries, group: int, included: NDArray[np.bool_], participations: int
) -> NDArray[np.float64]:
    """Sum of the releases that a group is in; sums are all that a Gaussian's loss depends on."""
    first = group * participations
    total = canaries.release(group, included, number=first)
    for number in range(first + 1, first + participations):
        total += canaries.release(group, included, number=number)
    return total
