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
from functools import lru_cache
from typing import Any

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
_DRAWN, _NUMBERS_AT_ONCE = 20_000, 1 << 21


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
    stays = (contributed[1:] & contributed[:-1]).sum(axis=1)
    # Every other pair of rounds shares no round with the next such pair: two exact tests, each paid for.
    stay = min(_binomial(part, population, q**2) for part in (stays[::2], stays[1::2]) if len(part))
    tests = {
        "how many in all": _binomial(sizes, population, q),
        "how sizes vary": _dispersion(sizes, population, q),
        "how often the same client": _dispersion(counts, rounds, q),
        "how many stay from round to round": min(1.0, 2 * stay),
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


def _binomial(values: NDArray[np.int64], trials: int, rate: float) -> float:
    """Two-sided p-value of a sum of binomial values, exactly."""
    from scipy.stats import binom

    law, total = binom(len(values) * trials, rate), int(values.sum())
    return min(1.0, float(2 * min(law.cdf(total), law.sf(total - 1))))


def _dispersion(values: NDArray[np.int64], trials: int, rate: float) -> float:
    """Two-sided p-value of the spread of binomial values, beside that of as many drawn 20,000 times.

    What is farther out than all of these has the p-value of a gamma law of the right mean and variance.
    """
    from scipy.stats import gamma

    mean, variance, count = trials * rate, trials * rate * (1 - rate), len(values)
    found = _spread(np.square(values).sum(), values.sum(), count, mean)
    drawn = _drawn_spreads(count, trials, rate)
    relative = count * (2 + (1 - 6 * rate * (1 - rate)) / variance)
    law = gamma(count**2 / relative, scale=variance * relative / count)
    tails = (
        (np.count_nonzero(drawn <= found), law.cdf(found)),
        (np.count_nonzero(drawn >= found), law.sf(found)),
    )
    least = 1 / (len(drawn) + 1)
    return min(1.0, float(2 * min((1 + seen) * least if seen else min(least, p) for seen, p in tails)))


@lru_cache(maxsize=8)
def _drawn_spreads(count: int, trials: int, rate: float) -> NDArray[np.float64]:
    """Spreads of `count` binomial values, drawn anew for each; dice of their own, the same every time."""
    from scipy.stats import binom

    dice = np.random.default_rng(0)
    # Values themselves, or how many there are of each, whichever are fewer.
    odds = binom.pmf(np.arange(trials + 1), trials, rate) if trials < count else None
    at_once = max(1, _NUMBERS_AT_ONCE // min(count, trials + 1))
    spreads = []
    for start in range(0, _DRAWN, at_once):
        size = min(at_once, _DRAWN - start)
        if odds is None:
            values = dice.binomial(trials, rate, (size, count))
            squares, sums = np.square(values).sum(axis=1), values.sum(axis=1)
        else:
            each = dice.multinomial(count, odds / odds.sum(), size)
            squares, sums = each @ np.arange(trials + 1) ** 2, each @ np.arange(trials + 1)
        spreads.append(_spread(squares, sums, count, rate * trials))
    return np.concatenate(spreads)


def _spread(squares: Any, sums: Any, count: int, mean: float) -> Any:
    """Squared distances from the mean, summed: by whole numbers, so that what is equal comes out equal."""
    return squares - 2 * mean * sums + count * mean**2


def _noise(canaries: Canaries, number: int) -> NDArray[np.float64]:
    """What a round's sum holds beside its known inputs, in integer units."""
    everybody = np.ones(canaries.plan.cohort, np.bool_)
    return canaries.release(number, everybody) - canaries.total(number)


def _noise_stddev(plan: AggregationPlan) -> float:
    """Deviation of the noise of a whole cohort in integer units."""
    name = plan.encoding.blocks[0].parts[0][0]
    return plan.stddev_of_sum(name) * plan.encoding.scale(name)
