"""Epsilons by a second code path: dp-accounting's engines, and curves coded a second time from their papers.

Nothing here uses the loss distributions, the closed form or the curves that charge a ledger. dp-accounting is loaded
when something here is called; whatever its version, from 0.4.3 on.

Source: Doroshenko et al. 2022 (2207.04380); Kairouz, Liu, Steinke 2021 (2102.06387), proposition 13; Agarwal, Kairouz,
Liu 2021 (2110.04995), theorem 3.5; Zhu and Wang 2019 (1905.10822), theorem 8; Zhu, Dong, Wang 2022 (2106.08567).
Not here: comparing the two (`dp.verification`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from dp.events import (
    BandedGaussian,
    Composed,
    DiscreteGaussianShares,
    FixedSize,
    Gaussian,
    NoiseEvent,
    Poisson,
    Skellam,
)

__all__ = ["independent_epsilon", "independent_filter_epsilon"]

_WHOLE = (*range(2, 65), 72, 80, 96, 112, 128, 160, 192, 224, 256)
_ORDERS = np.union1d(
    np.concatenate([np.linspace(1.02, 3, 200), np.linspace(3.05, 64, 1220)]), np.arange(2.0, 257.0)
)
_NEGLIGIBLE_DELTA = 1e-200
_DEVIATIONS = 12
_LEAST_NOISE = 0.1
"""Below it losses pass the range of floats, and sampling is given no credit."""


def independent_epsilon(cost: Composed, *, delta: float, scale: float) -> float | None:
    """Epsilon of a composed event.

    Args:
        cost: What was released, how often.
        delta: In (0, 1).
        scale: About how large the answer is: chooses the grid.

    Returns:
        Epsilon, or None for an event that nothing here covers.
    """
    if cost.count == 0:
        return 0.0
    event, rate = _parts(cost.step)
    if isinstance(event, DiscreteGaussianShares | Skellam):
        if isinstance(cost.step, FixedSize) and rate < 1:
            return None
        return _renyi_epsilon(_sampled(_noise_curve(event), rate), cost.count, delta)
    slack = cost.count * event.slack
    remaining = delta * math.exp(-slack)
    unsampled = _gaussian_epsilon(event.noise_multiplier / math.sqrt(cost.count), remaining) + 2 * slack
    if rate == 1 or event.noise_multiplier < _LEAST_NOISE:
        return unsampled
    grid = min(max(scale / 50_000, 1e-4), 1e-2)
    composed = _fixed_size if isinstance(cost.step, FixedSize) else _poisson
    return min(unsampled, composed(event.noise_multiplier, rate, cost.count, remaining, grid) + 2 * slack)


def independent_filter_epsilon(
    costs: Iterable[Composed], *, delta: float, order: int | None, slack: float = 1e-6
) -> float | None:
    """Epsilon that a filter stands for after these events.

    Args:
        costs: Everything that was charged.
        delta: In (0, 1).
        order: Of a Renyi filter; None for a Gaussian one.
        slack: Slack that the filter provides for.

    Returns:
        Epsilon, or None if an event is not covered.
    """
    total = 0.0
    for cost in costs:
        spent = _squared_shift(cost.step) if order is None else _divergence(cost.step, order)
        if spent is None:
            return None
        total += cost.count * spent
    if total == 0:
        return 0.0
    delta *= math.exp(-slack)
    if order is None:
        return _gaussian_epsilon(1 / math.sqrt(total), delta) + 2 * slack
    from dp_accounting.rdp import compute_epsilon

    return float(compute_epsilon([order], [total], delta)[0]) + 2 * slack


def _parts(
    step: NoiseEvent | Poisson | FixedSize,
) -> tuple[Gaussian | DiscreteGaussianShares | Skellam, float]:
    """The noise and the sampling rate of a step."""
    event, rate = (step.event, step.rate) if isinstance(step, Poisson | FixedSize) else (step, 1.0)
    return (event.participation if isinstance(event, BandedGaussian) else event), rate


def _gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """Epsilon of one Gaussian release, from dp-accounting's delta, by halving."""
    from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss

    losses = GaussianPrivacyLoss(noise_multiplier)

    def reached(epsilon: float) -> bool:
        return float(losses.get_delta_for_epsilon(epsilon)) <= delta

    low, high = 0.0, 1.0
    while not reached(high):
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return 0.0 if reached(0.0) else high


def _poisson(noise_multiplier: float, rate: float, count: int, delta: float, grid: float) -> float:
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    losses = from_gaussian_mechanism(noise_multiplier, sampling_prob=rate, value_discretization_interval=grid)
    return float(losses.self_compose(count).get_epsilon_for_delta(delta))


def _fixed_size(noise_multiplier: float, rate: float, count: int, delta: float, grid: float) -> float:
    """Sampling without replacement: dp-accounting's discretisation of the pair that dominates it, both ways at once."""
    from dp_accounting.pld.pld_pmf import create_pmf_pessimistic_connect_dots
    from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss

    losses = GaussianPrivacyLoss(noise_multiplier / 2, sampling_prob=rate)
    shift = 2 / noise_multiplier
    highest = np.logaddexp(math.log1p(-rate), math.log(rate) + shift * (shift / 2 + _DEVIATIONS))
    upward = np.arange(1, math.ceil(highest / grid) + 1)
    above = np.array(losses.get_delta_for_epsilon((upward * grid).tolist()))
    at_zero = float(losses.get_delta_for_epsilon(0.0))
    # The pair is its own mirror image: delta(-e) = 1 - exp(-e) (1 - delta(e)).
    below = 1 - np.exp(-upward * grid) * (1 - above)
    deltas = np.concatenate([below[::-1], [at_zero], above])
    single = create_pmf_pessimistic_connect_dots(
        grid, np.concatenate([-upward[::-1], [0], upward]), np.minimum.accumulate(np.clip(deltas, 0, 1))
    )
    return float(single.self_compose(count).get_epsilon_for_delta(delta))


def _renyi_epsilon(divergence: Callable[[int], float], count: int, delta: float) -> float:
    """Whole orders, lines between their log moments, and dp-accounting's conversion."""
    from dp_accounting.rdp import compute_epsilon

    moments = [0.0, *(count * (order - 1) * divergence(order) for order in _WHOLE)]
    between = np.interp(_ORDERS, (1, *_WHOLE), moments) / (_ORDERS - 1)
    return float(compute_epsilon(_ORDERS.tolist(), between.tolist(), delta)[0])


def _divergence(step: NoiseEvent | Poisson | FixedSize, order: int) -> float | None:
    event, rate = _parts(step)
    if isinstance(step, FixedSize) and rate < 1:
        return None
    if isinstance(event, DiscreteGaussianShares | Skellam):
        return _sampled(_noise_curve(event), rate)(order)
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    release = GaussianDpEvent(event.noise_multiplier)
    accountant = RdpAccountant([order]).compose(PoissonSampledDpEvent(rate, release) if rate < 1 else release)
    # The accountant tells epsilons alone; what its conversion added is taken off again.
    added = math.log1p(-1 / order) - math.log(_NEGLIGIBLE_DELTA * order) / (order - 1)
    return float(accountant.get_epsilon(_NEGLIGIBLE_DELTA)) - added


def _squared_shift(step: NoiseEvent | Poisson | FixedSize) -> float | None:
    event, _ = _parts(step)
    return 1 / event.noise_multiplier**2 if isinstance(event, Gaussian) else None


def _noise_curve(
    event: DiscreteGaussianShares | Skellam,
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Divergences of a release at whole orders, not sampled."""
    if isinstance(event, Skellam):
        mu, first, second = event.variance, event.l1_sensitivity, event.l2_sensitivity**2
        linear = 3 * first / (2 * mu)

        def skellam(orders: NDArray[np.float64]) -> NDArray[np.float64]:
            quadratic = (2 * orders * second - second + 6 * first) / (2 * mu) ** 2
            return orders * second / (2 * mu) + np.minimum(quadratic, linear)

        return skellam
    n, d, variance = event.shares, event.dimension, event.shares * event.local_stddev**2
    k = np.arange(1, n, dtype=np.float64)
    tau = 10 * float(np.exp(-2 * math.pi**2 * event.local_stddev**2 * k / (k + 1)).sum())
    squared = event.l2_sensitivity**2 / variance

    def shares(orders: NDArray[np.float64]) -> NDArray[np.float64]:
        ratio = orders * squared / 2 + tau * d * (2 * orders - 1) / (2 * orders - 2)
        expanded = squared + 2 * tau * event.l1_sensitivity / math.sqrt(variance) + d * tau**2
        joined = (math.sqrt(squared) + tau * math.sqrt(d)) ** 2
        return np.minimum(ratio, orders / 2 * min(expanded, joined))

    return shares


def _sampled(
    curve: Callable[[NDArray[np.float64]], NDArray[np.float64]], rate: float
) -> Callable[[int], float]:
    """The divergence of the Poisson-sampled release: all terms of the binomial at once."""
    from scipy.special import gammaln, logsumexp

    def divergence(order: int) -> float:
        taken = np.arange(order + 1, dtype=np.float64)
        if rate == 1:
            return float(curve(taken[-1:])[0])
        grown = np.zeros(order + 1)
        grown[2:] = (taken[2:] - 1) * curve(taken[2:])
        choose = gammaln(order + 1) - gammaln(taken + 1) - gammaln(order - taken + 1)
        weights = choose + taken * math.log(rate) + (order - taken) * math.log1p(-rate)
        return max(0.0, float(logsumexp(weights + grown))) / (order - 1)

    return divergence
