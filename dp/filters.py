"""Budgets for costs that are chosen after seeing outputs: adaptive noise, a ledger that several runs share.

A privacy loss distribution answers for a plan that was fixed before the first release. If the next cost may depend on
what was released, only a *filter* holds: it keeps a running sum under a bound that was fixed beforehand.

- `RenyiFilter`: the sum of Renyi divergences of one order, chosen beforehand; any events.
- `GaussianFilter`: the sum of 1/z^2, for releases that are not sampled; tighter.

A filter is a value: charging gives the next one, or raises and charges nothing.

Source: Feldman and Zrnic 2021 (2008.11193), theorem 4.3, at one order; Koskela, Tobaben, Honkela 2023 (2210.17520) and
Smith, Thakurta 2022 (2207.08335) for Gaussians.
Not here: fixed plans (`dp.accounting`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dp import checks
from dp.amplification import poisson_renyi
from dp.errors import BudgetExceeded, ParameterError, UnsupportedEvent
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
from dp.gaussian import gaussian_shift
from dp.renyi import ORDERS

__all__ = ["GaussianFilter", "RenyiFilter"]

_SLACK_LIMIT = 1e-6
"""Most slack a filter's releases may have in all; it is taken off the budget beforehand."""


@dataclass(frozen=True)
class RenyiFilter:
    """A budget on Renyi divergences of one order.

    Guarantee: whatever decides the events, and whenever it stops, all that was charged is (`epsilon`, `delta`)-DP.

    Args:
        epsilon: The budget, above 0.
        delta: In (0, 1).
        order: alpha, a whole number from 2; fixed beforehand, best by `RenyiFilter.planned`.
        spent: Divergence charged so far.
        slack: Slack charged so far.

    >>> budget = RenyiFilter.planned(epsilon=3.0, delta=1e-5, expected=Composed(Poisson(Gaussian(1.5), 0.1), 50))
    >>> for _ in range(50):
    ...     budget = budget.charge(Poisson(Gaussian(1.5), 0.1))
    >>> budget.order, budget.left > 0
    (6, True)
    """

    epsilon: float
    delta: float
    order: int
    spent: float = 0.0
    slack: float = 0.0

    def __post_init__(self) -> None:
        checks.positive("epsilon", self.epsilon)
        checks.probability("delta", self.delta)
        checks.integer("order", self.order, 2)
        if self.limit <= 0:
            raise ParameterError(
                f"Order {self.order} cannot show epsilon {self.epsilon:g} at delta {self.delta:g} at all; use a larger "
                "order or epsilon."
            )

    @classmethod
    def planned(cls, *, epsilon: float, delta: float, expected: Composed) -> RenyiFilter:
        """A filter of the order that has most to spare after the events one expects."""
        spare = {}
        for order in ORDERS:
            try:
                budget = cls(epsilon, delta, order)
            except ParameterError:
                continue
            spare[order] = budget.limit / max(expected.count * _divergence(expected.step, order), 1e-300)
        if not spare:
            cls(epsilon, delta, ORDERS[-1])
        return cls(epsilon, delta, max(spare, key=lambda order: spare[order]))

    @property
    def limit(self) -> float:
        """The most divergence that may be charged."""
        a, log_delta = self.order, math.log(self.delta) - _SLACK_LIMIT
        return self.epsilon - 2 * _SLACK_LIMIT - math.log1p(-1 / a) + (log_delta + math.log(a)) / (a - 1)

    @property
    def left(self) -> float:
        """Divergence that may still be charged."""
        return self.limit - self.spent

    def charge(self, step: NoiseEvent | Poisson | FixedSize) -> RenyiFilter:
        """The filter after one more release.

        Raises:
            BudgetExceeded: The release would pass the budget; nothing is charged.
            UnsupportedEvent: No divergence is known for it.
        """
        charged = replace(
            self, spent=self.spent + _divergence(step, self.order), slack=self.slack + _slack(step)
        )
        if charged.spent > charged.limit or charged.slack > _SLACK_LIMIT:
            raise _exceeded(charged.spent, charged.limit, charged.slack, self.epsilon, "divergence")
        return charged


@dataclass(frozen=True)
class GaussianFilter:
    """A budget on the squared shifts 1/z^2 of Gaussian releases that are not sampled.

    Guarantee: as `RenyiFilter`.

    Args:
        epsilon: The budget, above 0.
        delta: In (0, 1).
        spent: Sum of 1/z^2 charged so far.
        slack: Slack charged so far.

    >>> GaussianFilter(10.7, 1e-5).charge(Gaussian(1.5)).spent
    0.4444444444444444
    """

    epsilon: float
    delta: float
    spent: float = 0.0
    slack: float = 0.0

    def __post_init__(self) -> None:
        checks.positive("epsilon", self.epsilon)
        checks.probability("delta", self.delta)
        if self.epsilon <= 2 * _SLACK_LIMIT:
            raise ParameterError(
                f"epsilon is {self.epsilon!r}; a filter needs more than {2 * _SLACK_LIMIT:g}."
            )

    @property
    def limit(self) -> float:
        """The most sum of 1/z^2 that may be charged."""
        delta = self.delta * math.exp(-_SLACK_LIMIT)
        return gaussian_shift(epsilon=self.epsilon - 2 * _SLACK_LIMIT, delta=delta) ** 2

    @property
    def left(self) -> float:
        """Sum of 1/z^2 that may still be charged."""
        return self.limit - self.spent

    def charge(self, step: NoiseEvent | Poisson | FixedSize) -> GaussianFilter:
        """The filter after one more release, taken without credit for sampling.

        Raises:
            BudgetExceeded: The release would pass the budget; nothing is charged.
            UnsupportedEvent: It is not Gaussian.
        """
        event = step.event if isinstance(step, Poisson | FixedSize) else step
        event = event.participation if isinstance(event, BandedGaussian) else event
        if not isinstance(event, Gaussian):
            raise UnsupportedEvent(f"A Gaussian filter cannot charge {event!r}; use a Renyi filter.")
        charged = replace(self, spent=self.spent + event.noise_multiplier**-2, slack=self.slack + event.slack)
        if charged.spent > charged.limit or charged.slack > _SLACK_LIMIT:
            raise _exceeded(charged.spent, charged.limit, charged.slack, self.epsilon, "sum of 1/z^2")
        return charged


def _divergence(step: NoiseEvent | Poisson | FixedSize, order: int) -> float:
    if isinstance(step, FixedSize):
        raise UnsupportedEvent(
            f"No Renyi divergence is known here for {step!r}; draw cohorts by coins, or charge it without sampling."
        )
    event, rate = (step.event, step.rate) if isinstance(step, Poisson) else (step, 1.0)
    if isinstance(event, DiscreteGaussianShares | Skellam):
        return poisson_renyi(event.renyi, rate, order)
    noise = event.participation if isinstance(event, BandedGaussian) else event
    return poisson_renyi(lambda a: a / (2 * noise.noise_multiplier**2), rate, order)


def _slack(step: NoiseEvent | Poisson | FixedSize) -> float:
    event = step.event if isinstance(step, Poisson | FixedSize) else step
    event = event.participation if isinstance(event, BandedGaussian) else event
    return event.slack if isinstance(event, Gaussian) else 0.0


def _exceeded(spent: float, limit: float, slack: float, epsilon: float, what: str) -> BudgetExceeded:
    return BudgetExceeded(
        f"Another release would bring the {what} to {spent:.4g} of {limit:.4g}, and its slack to {slack:.1g} of "
        f"{_SLACK_LIMIT:g}, that keep epsilon at {epsilon:g}; stop here, or release it with more noise.",
        observer="whoever the filter is for",
        would_reach=spent / limit * epsilon,
        budget=epsilon,
    )
