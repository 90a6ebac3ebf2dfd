"""One detector for each way in which a run can quietly break its promise; the attacks alone would miss most of them.

Each sends known inputs through the run's own pipeline and tests what comes out; each has a level at which it errs when
nothing is wrong.

| failure | detector | statistic |
| --- | --- | --- |
| less noise than promised | `noise_in_full` | variance of the sum of known inputs, chi-square, lower tail |
| the clip is not applied | `clip_applied` | how far one oversized client moves the sum along its direction, normal |
| the same noise in two rounds | `fresh_noise` | correlation of two rounds' noise, normal |
| masks that change the sum | `masks_cancel` | equality with the sum without masks |
| the cohort is not the sampled one | `cohort_fits` | four moments of who contributed, against independent coins |
| something beside the masked vectors | `fedavg.auditing.transcript` | the messages themselves |
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

import dp
from fedavg.aggregation import AggregationPlan
from fedavg.auditing.canaries import Canaries
from fedavg.auditing.findings import Finding
from fedavg.entropy import RunEntropy
from fedavg.errors import ParameterError

__all__ = [
    "clip_applied",
    "cohort_fits",
    "draw_rounds",
    "fresh_noise",
    "masks_cancel",
    "noise_in_full",
    "without_masks",
]

_OVERSIZED = 100.0


def noise_in_full(plan: AggregationPlan, *, entropy: RunEntropy, level: float = 0.05) -> Finding:
    """Whether a sum of known inputs holds the noise of all its shares.

    Rounding adds a little to it, which makes the test err less often than `level`.

    Args:
        plan: How rounds are summed: `Federation.plan`.
        entropy: Randomness of the trial.
        level: How often it may flag an honest plan, in (0, 1).
    """
    from scipy.stats import chi2

    noise = _noise(Canaries(plan, entropy), 1)
    expected = _noise_stddev(plan)
    p = float(chi2.cdf(noise @ noise / expected**2, len(noise)))
    measured = float(np.sqrt(noise @ noise / len(noise)))
    return Finding(
        "noise in full",
        p,
        level,
        f"The noise in a sum of known inputs has deviation {measured / expected:.4f} of what all shares give,"
        f" over {len(noise):,} values.",
    )


def clip_applied(plan: AggregationPlan, *, entropy: RunEntropy, level: float = 0.05) -> Finding:
    """Whether a client whose values are a hundred times too large moves the sum by no more than the sensitivity.

    Args:
        plan: How rounds are summed: `Federation.plan`.
        entropy: Randomness of the trial.
        level: How often it may flag an honest plan, in (0, 1).
    """
    from scipy.stats import norm

    canaries = Canaries(plan, entropy)
    alone = np.zeros(plan.cohort, np.bool_)
    alone[0] = True
    release, direction = canaries.release(1, alone, size=_OVERSIZED), canaries.direction(1, 0)
    moved = float(direction @ release / np.linalg.norm(direction))
    sensitivity = plan.encoding.sensitivity
    p = float(norm.sf((moved - sensitivity) / _noise_stddev(plan)))
    return Finding(
        "clip applied",
        p,
        level,
        f"A client {_OVERSIZED:.0f} times too large moved the sum by {moved / sensitivity:.3g} times the sensitivity;"
        f" the noise has deviation {_noise_stddev(plan) / sensitivity:.3g} of it.",
    )


def fresh_noise(plan: AggregationPlan, *, entropy: RunEntropy, level: float = 0.05) -> Finding:
    """Whether the noise of two rounds is uncorrelated.

    Args:
        plan: How rounds are summed: `Federation.plan`.
        entropy: Randomness of the trial.
        level: How often it may flag an honest plan, in (0, 1).
    """
    from scipy.stats import norm

    canaries = Canaries(plan, entropy)
    first, second = (_noise(canaries, number) for number in (1, 2))
    correlation = float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
    p = float(2 * norm.sf(abs(correlation) * math.sqrt(len(first))))
    return Finding(
        "fresh noise",
        p,
        level,
        f"The noise of two rounds has correlation {correlation:.4f} over {len(first):,} values;"
        f" chance gives {1 / math.sqrt(len(first)):.4f}.",
    )


def masks_cancel(plan: AggregationPlan, *, seed: int, level: float = 0.05) -> Finding:
    """Whether one round under real masks gives, integer for integer, the sum that the other detectors looked at.

    Args:
        plan: With real masks.
        seed: Of the round, whose inputs are canaries.
        level: Not used but to say so: the sums are equal, or they are not.
    """
    everybody = np.ones(plan.cohort, np.bool_)
    masked, plain = (
        Canaries(one, RunEntropy.seeded(seed)).release(1, everybody) for one in (plan, without_masks(plan))
    )
    different = int(np.count_nonzero(masked != plain))
    return Finding(
        "masks cancel",
        0.0 if different else 1.0,
        level,
        f"One round under masks differs from the same round without them in {different:,} of {len(plain):,} values.",
    )


def without_masks(plan: AggregationPlan) -> AggregationPlan:
    """The same integers summed without cryptography: many times faster."""
    return replace(plan, secure=replace(plan.secure, masked=False))


def draw_rounds(sampler: dp.Sampler, rounds: int, *, entropy: RunEntropy) -> NDArray[np.bool_]:
    """Who contributes to each of some rounds, drawn afresh by a run's sampler, bool, shape (rounds, population)."""
    contributed = np.zeros((rounds, sampler.population), np.bool_)
    for number in range(1, rounds + 1):
        draw = sampler.draw(entropy.keystream("audited cohort", number), number=number)
        contributed[number - 1, draw.invited[draw.contributes]] = True
    return contributed


def cohort_fits(contributed: NDArray[np.bool_], *, sampling_rate: float, level: float = 0.05) -> Finding:
    """Whether cohorts are what the accountant assumes: every client by its own coin, every round afresh.

    Args:
        contributed: Who contributed to each round, bool, shape (rounds, population); at least 2 rounds.
        sampling_rate: q in (0, 1).
        level: In (0, 1).

    Raises:
        ParameterError: fewer than two rounds, or a rate at which nothing is drawn at random.
    """
    rounds, population = contributed.shape
    q = sampling_rate
    if rounds < 2 or not 0 < q < 1:
        raise ParameterError(
            f"{rounds} rounds at rate {q:g} tell nothing about coins; give at least 2 rounds and a rate inside (0, 1)"
        )
    sizes, counts = contributed.sum(axis=1), contributed.sum(axis=0)
    overlap = int((contributed[1:] & contributed[:-1]).sum())
    pairs = (rounds - 1) * population
    # Neighbouring pairs share a round: each such pair of pairs adds q^3 - q^4 twice.
    spread = pairs * q**2 * (1 - q**2) + 2 * (rounds - 2) * population * (q**3 - q**4)
    tests = {
        "how many in all": _normal(
            int(sizes.sum()), rounds * population * q, rounds * population * q * (1 - q)
        ),
        "how sizes vary": _dispersion(sizes, population, q),
        "how often the same client": _dispersion(counts, rounds, q),
        "how many stay from round to round": _normal(overlap, pairs * q**2, spread),
    }
    oddest = min(tests, key=lambda name: tests[name])
    p = min(1.0, len(tests) * tests[oddest])
    return Finding(
        "cohort fits",
        p,
        level,
        f"Over {rounds:,} draws of {population:,} clients at rate {q:.4g} the oddest is: {oddest}; mean size"
        f" {sizes.mean():.4g}, its variance {sizes.var():.4g} where coins give {population * q * (1 - q):.4g}.",
    )


def _normal(value: float, mean: float, variance: float) -> float:
    from scipy.stats import norm

    return float(2 * norm.sf(abs(value - mean) / math.sqrt(variance)))


def _dispersion(values: NDArray[np.int64], trials: int, rate: float) -> float:
    """Two-sided p-value of the spread of binomial values, by a gamma law of the right mean and variance."""
    from scipy.stats import gamma

    variance = trials * rate * (1 - rate)
    statistic = float(((values - trials * rate) ** 2).sum() / variance)
    count = len(values)
    spread = count * (2 + (1 - 6 * rate * (1 - rate)) / variance)
    law = gamma(count**2 / spread, scale=spread / count)
    return float(2 * min(law.cdf(statistic), law.sf(statistic)))


def _noise(canaries: Canaries, number: int) -> NDArray[np.float64]:
    """What a round's sum holds beside its known inputs, in integer units."""
    everybody = np.ones(canaries.plan.cohort, np.bool_)
    return canaries.release(number, everybody) - canaries.total(number)


def _noise_stddev(plan: AggregationPlan) -> float:
    """Deviation of the noise of a whole cohort in integer units."""
    name = plan.encoding.blocks[0].parts[0][0]
    return plan.stddev_of_sum(name) * plan.encoding.scale(name)
