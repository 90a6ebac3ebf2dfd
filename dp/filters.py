"""Budgets for costs that are chosen after seeing outputs: adaptive noise, a ledger that several runs share.

A privacy loss distribution answers for a plan that was fixed before the first release. If the next cost may depend on
what was released, only a *filter* holds: it keeps a running sum under a bound that was fixed beforehand.

- `RenyiFilter`: the sum of Renyi divergences of one order, chosen beforehand; any events.
- `GaussianFilter`: the sum of 1/z^2, for releases that are not sampled; tighter.

A filter is a value: charging gives the next one, or raises and charges nothing. Costs are rounded up to multiples of
2^-40 (slack: of 2^-72), so that sums of them are exact in floats, whatever their order, and a refund takes off exactly
what was charged.

Source: Feldman and Zrnic 2021 (2008.11193), theorem 4.3, at one order; Koskela, Tobaben, Honkela 2023 (2210.17520) and
Smith, Thakurta 2022 (2207.08335) for Gaussians.
Not here: fixed plans (`dp.accounting`), a filter that runs share (`dp.shared_budget`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

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
from dp.gaussian import gaussian_epsilon, gaussian_shift
from dp.renyi import ORDERS

__all__ = ["GaussianFilter", "RenyiFilter"]

_SLACK_LIMIT = 1e-6
"""Most slack a filter's releases may have in all; it is taken off the budget beforehand."""

_UNIT, _SLACK_UNIT = 2.0**-40, 2.0**-72
_LARGEST_LIMIT = 2.0**12
"""Sums of multiples of `_UNIT` are exact floats up to here, and no budget worth the name reaches it."""


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
        """A filter of the order that has most to spare after the events one expects.

        Args:
            epsilon: The budget, above 0.
            delta: In (0, 1).
            expected: The events one expects in all.
        """
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
        return min(self.epsilon - self._offset, _LARGEST_LIMIT)

    @property
    def left(self) -> float:
        """Divergence that may still be charged."""
        return self.limit - self.spent

    @property
    def reached(self) -> float:
        """The epsilon whose filter what was charged would fill: bookkeeping, for the guarantee is `epsilon`."""
        return min(self.epsilon, max(0.0, self.spent + self._offset)) if self.spent else 0.0

    def cost(self, step: NoiseEvent | Poisson | FixedSize) -> tuple[float, float]:
        """Divergence and slack of one release.

        Args:
            step: The release.

        Raises:
            UnsupportedEvent: No divergence is known for it.
        """
        return _up(_divergence(step, self.order), _UNIT), _up(_slack(step), _SLACK_UNIT)

    def charge(self, step: NoiseEvent | Poisson | FixedSize) -> RenyiFilter:
        """The filter after one more release.

        Args:
            step: The release.

        Raises:
            BudgetExceeded: The release would pass the budget; nothing is charged.
            UnsupportedEvent: No divergence is known for it.
        """
        return self.charged(*self.cost(step))

    def charged(self, divergence: float, slack: float) -> RenyiFilter:
        """The filter after costs that `cost` gave, added up.

        Args:
            divergence: Sum of divergences at the filter's order.
            slack: Sum of slacks.

        Raises:
            BudgetExceeded: They would pass the budget; nothing is charged.
        """
        after = replace(self, spent=self.spent + divergence, slack=self.slack + slack)
        if not (
            after.spent <= self.limit and after.slack <= _SLACK_LIMIT
        ):  # What is not a number is refused, too.
            raise _exceeded(after, after.spent + self._offset, "divergence")
        return after

    @property
    def _offset(self) -> float:
        """What turning divergence into epsilon adds, with all the slack there may be."""
        a, log_delta = self.order, math.log(self.delta) - _SLACK_LIMIT
        return 2 * _SLACK_LIMIT + math.log1p(-1 / a) - (log_delta + math.log(a)) / (a - 1)


@dataclass(frozen=True)
class GaussianFilter:
    """A budget on the squared shifts 1/z^2 of Gaussian releases that are not sampled.

    Guarantee: as `RenyiFilter`.

    Args:
        epsilon: The budget, above 0.
        delta: In (0, 1).
        spent: Sum of 1/z^2 charged so far.
        slack: Slack charged so far.

    >>> round(GaussianFilter(10.7, 1e-5).charge(Gaussian(2.0)).spent, 6)
    0.25
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
        return min(_squared_shift(self.epsilon, self.delta), _LARGEST_LIMIT)

    @property
    def left(self) -> float:
        """Sum of 1/z^2 that may still be charged."""
        return self.limit - self.spent

    @property
    def reached(self) -> float:
        """The epsilon whose filter what was charged would fill: bookkeeping, for the guarantee is `epsilon`."""
        return min(self.epsilon, self._reach(self.spent))

    def cost(self, step: NoiseEvent | Poisson | FixedSize) -> tuple[float, float]:
        """1/z^2 and slack of one release, without credit for sampling.

        Args:
            step: The release.

        Raises:
            UnsupportedEvent: It is not Gaussian.
        """
        event = _noise(step)
        if not isinstance(event, Gaussian):
            raise UnsupportedEvent(f"A Gaussian filter cannot charge {event!r}; use a Renyi filter.")
        return _up(event.noise_multiplier**-2, _UNIT), _up(event.slack, _SLACK_UNIT)

    def charge(self, step: NoiseEvent | Poisson | FixedSize) -> GaussianFilter:
        """The filter after one more release, taken without credit for sampling.

        Args:
            step: The release.

        Raises:
            BudgetExceeded: The release would pass the budget; nothing is charged.
            UnsupportedEvent: It is not Gaussian.
        """
        return self.charged(*self.cost(step))

    def charged(self, squared_shift: float, slack: float) -> GaussianFilter:
        """The filter after costs that `cost` gave, added up.

        Args:
            squared_shift: Sum of 1/z^2.
            slack: Sum of slacks.

        Raises:
            BudgetExceeded: They would pass the budget; nothing is charged.
        """
        after = replace(self, spent=self.spent + squared_shift, slack=self.slack + slack)
        if not (
            after.spent <= self.limit and after.slack <= _SLACK_LIMIT
        ):  # What is not a number is refused, too.
            raise _exceeded(after, self._reach(after.spent), "sum of 1/z^2")
        return after

    def _reach(self, squared_shift: float) -> float:
        if not squared_shift:
            return 0.0
        shift, delta = math.sqrt(squared_shift), self.delta * math.exp(-_SLACK_LIMIT)
        return gaussian_epsilon(shift=shift, delta=delta) + 2 * _SLACK_LIMIT


@lru_cache(maxsize=64)
def _squared_shift(epsilon: float, delta: float) -> float:
    shift = gaussian_shift(epsilon=epsilon - 2 * _SLACK_LIMIT, delta=delta * math.exp(-_SLACK_LIMIT))
    return shift**2 * (1 - 2.0**-50)


@lru_cache(maxsize=256)
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


def _noise(step: NoiseEvent | Poisson | FixedSize) -> NoiseEvent:
    event = step.event if isinstance(step, Poisson | FixedSize) else step
    return event.participation if isinstance(event, BandedGaussian) else event


def _slack(step: NoiseEvent | Poisson | FixedSize) -> float:
    event = _noise(step)
    return event.slack if isinstance(event, Gaussian) else 0.0


def _up(cost: float, unit: float) -> float:
    """The next multiple of `unit` above a cost, over what computing the cost may have lost: 2e-13, or 1e-14 of it."""
    units = cost / unit * (1 + 2.0**-46) + 0.25
    return math.ceil(units) * unit if math.isfinite(units) else math.inf


def _exceeded(after: RenyiFilter | GaussianFilter, would_reach: float, what: str) -> BudgetExceeded:
    over = (
        f"the {what} to {after.spent:.4g}, where {after.limit:.4g} is the most"
        if not after.spent <= after.limit
        else f"the slack to {after.slack:.2g}, where {_SLACK_LIMIT:g} is the most"
    )
    return BudgetExceeded(
        f"the budget of epsilon {after.epsilon:g} at delta {after.delta:g} does not hold another release like this: it"
        f" would bring {over}; stop here, or release it with more noise",
        observer="whoever the filter is for",
        would_reach=would_reach,
        budget=after.epsilon,
    )
