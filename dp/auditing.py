"""Attacks on one's own run: what an adversary's measured success proves, or suggests, about epsilon.

* `one_run_bound`: canaries are included by fair coins, the auditor guesses some of the coins; a *lower bound* on
  epsilon at a stated significance (Steinke, Nasr, Jagielski 2023). Valid, and weak: a bug may halve the noise unseen.
* `one_shot_estimate`: canary clients send random directions; how far the released update leans towards them gives an
  *estimate*, not a bound (Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar 2023).
* `membership_inference`: how well scores of a trained model tell members from others, beside the most that an
  epsilon allows any attack (Yeom et al. 2018; Carlini et al. 2022 for the rate of few false alarms).

Neither proves that a run is private. A bound above the promise proves that it is not.

Not here: running the canaries through a federated run (`fedavg`), the promise itself (`dp.statements`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dp import checks
from dp.errors import ParameterError

__all__ = [
    "Membership",
    "OneRun",
    "OneShot",
    "membership_inference",
    "most_true_alarms",
    "one_run_bound",
    "one_run_p_value",
    "one_shot_estimate",
]

_LARGEST_EPSILON = 50.0


@dataclass(frozen=True)
class OneRun:
    """A lower bound on epsilon, with the guesses it rests on.

    Attributes:
        epsilon: With confidence `1 - significance`, the mechanism is not (e, delta)-DP for any e below this.
        guesses: How many coins were guessed.
        right: How many of them rightly.
        significance: Probability of a bound above the truth.
    """

    epsilon: float
    guesses: int
    right: int
    significance: float


@dataclass(frozen=True)
class OneShot:
    """An estimate of epsilon from the spread of the canaries' cosines; neither a lower nor an upper bound.

    Attributes:
        epsilon: The estimate at the asked delta.
        mean: Mean cosine of the canaries that took part.
        stddev: Their deviation.
        null_stddev: Deviation of the cosine of a direction that did not take part.
    """

    epsilon: float
    mean: float
    stddev: float
    null_stddev: float


@dataclass(frozen=True)
class Membership:
    """How well one attack tells members from others.

    Attributes:
        area: Area under the curve of true over false alarms: 0.5 is guessing.
        advantage: Largest true alarms less false alarms, over all thresholds.
        true_alarms: Share of members found where `false_alarms` of the others are taken for members.
        false_alarms: That share.
        members: How many there were.
        others: How many there were.
    """

    area: float
    advantage: float
    true_alarms: float
    false_alarms: float
    members: int
    others: int


def membership_inference(
    members: NDArray[np.float64], others: NDArray[np.float64], *, false_alarms: float = 0.01
) -> Membership:
    """Judge an attack by its scores.

    Args:
        members: One score a member, larger means "was a member"; shape (n,).
        others: One score for each of those who were none; shape (m,).
        false_alarms: Share of the others that may be taken for members.

    Raises:
        ParameterError: no scores, scores that are not finite, or a share outside (0, 1).

    >>> found = membership_inference(np.array([3.0, 2.0, 1.0]), np.array([0.0, 0.5, 2.5]), false_alarms=0.5)
    >>> round(found.area, 3), round(found.advantage, 3), found.true_alarms
    (0.778, 0.667, 1.0)
    """
    members, others = np.asarray(members, np.float64), np.asarray(others, np.float64)
    for scores in (members, others):
        if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
            raise ParameterError(
                f"scores of shape {scores.shape} were given; give finite ones, at least one each"
            )
    checks.probability("false_alarms", false_alarms)
    thresholds = np.unique(np.concatenate([members, others]))
    true = np.array([1.0, *(1 - np.searchsorted(np.sort(members), thresholds, side="right") / len(members))])
    false = np.array([1.0, *(1 - np.searchsorted(np.sort(others), thresholds, side="right") / len(others))])
    area = float(((false[:-1] - false[1:]) * (true[:-1] + true[1:]) / 2).sum())
    found = float(true[false <= false_alarms + 1e-12].max())
    return Membership(area, float((true - false).max()), found, false_alarms, len(members), len(others))


def most_true_alarms(false_alarms: float, *, epsilon: float, delta: float) -> float:
    """Largest share of members that any attack finds at a share of false alarms, if (epsilon, delta) is kept.

    Args:
        false_alarms: In [0, 1].
        epsilon: At least 0; infinity allows everything.
        delta: In [0, 1).

    Source: Kairouz, Oh, Viswanath 2015 (1311.0776), theorem 2.1.

    >>> round(most_true_alarms(0.01, epsilon=1.0, delta=0.0), 4)
    0.0272
    """
    if not math.isfinite(epsilon):
        return 1.0
    growth = math.exp(min(epsilon, 700.0))
    return min(1.0, growth * false_alarms + delta, 1 - (1 - delta - false_alarms) / growth)


def one_run_p_value(*, canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Probability that some (epsilon, delta)-DP mechanism lets `right` or more of `guesses` coins be guessed.

    Args:
        canaries: m, canaries with a fair coin each.
        guesses: r, coins guessed, at most m.
        right: v, guessed rightly, at most r.
        epsilon: At least 0.
        delta: In [0, 1).

    Raises:
        ParameterError: a count out of order.

    Source: Steinke, Nasr, Jagielski 2023 (2305.08846), theorem 5.2 and its simplification in appendix D.
    """
    from scipy.stats import binom

    if not 0 <= right <= guesses <= canaries:
        raise ParameterError(
            f"{right} right of {guesses} guesses over {canaries} canaries; each is at most the next"
        )
    checks.at_least("epsilon", epsilon, 0)
    chance = 1 / (1 + math.exp(-epsilon))
    tails = binom.sf(np.arange(right, -1, -1) - 1, guesses, chance)  # P[Q >= v - i], i = 0..v
    gain = np.max((tails[1:] - tails[0]) / np.arange(1, right + 1), initial=0.0)
    return min(1.0, float(tails[0] + 2 * canaries * delta * gain))


def one_run_bound(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    delta: float,
    significance: float = 0.05,
    fractions: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.5),
) -> OneRun:
    """Lower bound on epsilon from one run with canaries.

    Guarantee: if the run is (e, delta)-DP towards each canary, the bound exceeds e with probability at most
    `significance`, over the coins and the run; the choice among `fractions` is paid for (union bound).

    Args:
        scores: One a canary, shape (m,): larger means "was included".
        included: The coins, bool, shape (m,).
        delta: In [0, 1).
        significance: In (0, 1).
        fractions: Shares of the canaries to guess on, half "in" from the top and half "out" from the bottom.

    Raises:
        ParameterError: shapes differ, scores are not finite, or a number is out of range.
    """
    scores, included = np.asarray(scores, np.float64), np.asarray(included, np.bool_)
    if scores.shape != included.shape or scores.ndim != 1 or not np.isfinite(scores).all():
        raise ParameterError(
            f"scores {scores.shape} and coins {included.shape} must be two finite vectors of one length"
        )
    if len(scores) < 2:
        raise ParameterError(f"{len(scores)} canaries were given; one is guessed in and one out: give two")
    checks.probability("significance", significance)
    order = np.argsort(scores, kind="stable")
    level = significance / len(fractions)
    found = []
    for fraction in fractions:
        half = max(1, int(len(scores) * fraction / 2))
        right = int(np.count_nonzero(included[order[-half:]]) + np.count_nonzero(~included[order[:half]]))
        guesses = 2 * half
        found.append(
            OneRun(_largest(len(scores), guesses, right, delta, level), guesses, right, significance)
        )
    return max(found, key=lambda run: run.epsilon)


def _largest(canaries: int, guesses: int, right: int, delta: float, level: float) -> float:
    """Largest epsilon whose p-value is at most `level`, from below."""

    def refuted(epsilon: float) -> bool:
        p = one_run_p_value(canaries=canaries, guesses=guesses, right=right, epsilon=epsilon, delta=delta)
        return p <= level

    return _last(refuted, _LARGEST_EPSILON) if refuted(0.0) else 0.0


def one_shot_estimate(
    cosines: NDArray[np.float64], *, dimension: int, delta: float, null_stddev: float | None = None
) -> OneShot:
    """Estimate epsilon from the cosines between canaries' random directions and the released update.

    Args:
        cosines: One a canary that took part, shape (k,), k at least 2.
        dimension: d of the update; a direction that did not take part has cosine N(0, 1/d) nearly.
        delta: In (0, 1).
        null_stddev: Deviation of that cosine where directions are not spread evenly; 1/sqrt(d) when None.

    Raises:
        ParameterError: fewer than two canaries, or a number out of range.

    Source: Andrew et al. 2023 (2302.03098), section 3: the two Gaussians' exact (epsilon, delta) curve.
    """
    cosines = np.asarray(cosines, np.float64)
    if cosines.ndim != 1 or len(cosines) < 2 or not np.isfinite(cosines).all():
        raise ParameterError(f"{cosines.shape} finite cosines were given; give one a canary, at least two")
    checks.integer("dimension", dimension, 1)
    checks.probability("delta", delta)
    null = 1 / math.sqrt(dimension) if null_stddev is None else checks.positive("null_stddev", null_stddev)
    mean, stddev = float(cosines.mean()), float(cosines.std(ddof=1))

    def larger(epsilon: float) -> bool:
        return (
            max(_hockey(mean, stddev, 0.0, null, epsilon), _hockey(0.0, null, mean, stddev, epsilon)) > delta
        )

    epsilon = _last(larger, _LARGEST_EPSILON) if larger(0.0) else 0.0
    return OneShot(epsilon, mean, stddev, null)


def _hockey(mean: float, stddev: float, other: float, other_stddev: float, epsilon: float) -> float:
    """Hockey-stick divergence at e^epsilon of N(mean, stddev^2) from N(other, other_stddev^2), in closed form."""
    from scipy.special import ndtr

    # log p - log q - epsilon is a quadratic a x^2 + b x + c; integrate p - e^epsilon q where it is positive.
    a = 0.5 / other_stddev**2 - 0.5 / stddev**2
    b = mean / stddev**2 - other / other_stddev**2
    c = (
        0.5 * other**2 / other_stddev**2
        - 0.5 * mean**2 / stddev**2
        + math.log(other_stddev / stddev)
        - epsilon
    )
    intervals = _positive(a, b, c)

    def mass(low: float, high: float) -> float:
        first = ndtr((high - mean) / stddev) - ndtr((low - mean) / stddev)
        second = ndtr((high - other) / other_stddev) - ndtr((low - other) / other_stddev)
        return float(first - math.exp(epsilon) * second)

    return max(0.0, sum(mass(low, high) for low, high in intervals))


def _positive(a: float, b: float, c: float) -> list[tuple[float, float]]:
    """Where a x^2 + b x + c > 0."""
    if abs(a) < 1e-9 * (abs(b) + abs(c) + 1e-300) and b:
        root = -c / b
        return [(root, math.inf)] if b > 0 else [(-math.inf, root)]
    inside = b * b - 4 * a * c
    if inside <= 0:
        return [(-math.inf, math.inf)] if a > 0 or (a == 0 and c > 0) else []
    low, high = sorted(((-b - math.sqrt(inside)) / (2 * a), (-b + math.sqrt(inside)) / (2 * a)))
    return [(-math.inf, low), (high, math.inf)] if a > 0 else [(low, high)]


def _last(holds: Callable[[float], bool], above: float) -> float:
    """Largest number, to 1e-9 from below, where a condition that stays false once false still holds."""
    low, high = 0.0, above
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
