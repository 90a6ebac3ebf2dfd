"""A budget that several runs share, fixed before the first of them: the two filters behind a shared ledger.

A run's settings may depend on what earlier runs released, so no loss distribution of a whole plan holds; filters do.

*Readers*: one Renyi filter. Every round of every run is one event, amplified by its own fresh draw, whatever run it
belongs to.

*The server*: one filter over a single client's own contributions. Let client i contribute to n_k(i) rounds of run k,
which charged c_k rounds, with cap m_k. Given everything before it, a round's release costs i its run's event if i
contributes and nothing if it does not, and whether it does follows from draws, which no data enters. On every path,

    sum over rounds of what i pays = sum_k n_k(i) cost_k <= sum_k min(c_k, m_k) cost_k,

and the right-hand side is what is charged and kept under the limit. That is the premise of the filter theorem, for each
client by itself; so it holds whoever chose the runs, the cap and the stopping, and however they looked at releases.

Runs may overlap: a round's event is fixed when it is reserved, so that in the order of releases, too, it follows from
what was released before.

Where only the server's epsilon is promised, readers have the same promise: they see nothing that the server does not.

Source: Feldman and Zrnic 2021 (2008.11193), theorem 4.3.
Not here: rows and transactions (`dp.ledger`), the filters themselves (`dp.filters`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dp import checks
from dp.errors import BudgetExceeded, ParameterError
from dp.events import Composed, Gaussian
from dp.filters import GaussianFilter, RenyiFilter
from dp.privacy import Epsilons

__all__ = ["Costs", "SharedBudget", "Sharing"]

Spent = tuple[float, float]
"""What a filter was charged: divergence (or sum of 1/z^2), and slack."""


@dataclass(frozen=True)
class Costs:
    """What was charged to both filters, None where there is no filter."""

    readers: Spent | None
    server: Spent | None

    def plus(self, other: Costs) -> Costs:
        """Both added up; exact, because costs are multiples of the filters' units."""
        return Costs(_plus(self.readers, other.readers), _plus(self.server, other.server))

    def negative(self) -> Costs:
        """What takes these costs off again."""
        return self.times(-1)

    def times(self, count: int) -> Costs:
        """These costs `count` times."""
        return Costs(
            *(None if c is None else (count * c[0], count * c[1]) for c in (self.readers, self.server))
        )

    def as_json(self) -> dict[str, list[float] | None]:
        """For a ledger's row."""
        return {
            "readers": None if self.readers is None else list(self.readers),
            "server": None if self.server is None else list(self.server),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Costs:
        """The inverse of `as_json`."""
        return cls(*(None if fields[who] is None else _pair(*fields[who]) for who in ("readers", "server")))


@dataclass(frozen=True, kw_only=True)
class SharedBudget:
    """What several runs on one ledger may cost together; everything in it is fixed before the first of them.

    Guarantee: everything charged to the ledger is (`readers_epsilon`, `delta`)-DP against readers of all its releases,
    and (`server_epsilon`, `delta`)-DP against the server, under zero-out adjacency of one client, even if each run was
    chosen after looking at everything released before it.

    Args:
        delta: In (0, 1); every run that joins must promise the same one.
        readers_epsilon: Most epsilon against readers, or None: then they have the server's promise.
        server_epsilon: Most epsilon against the server, or None: then nothing is promised against it.
        readers_order: Order alpha of the readers' Renyi filter; None takes the one that is best without sampling.
            Sampled rounds want a larger one: see `planned`.
        server_order: Order of a Renyi filter against the server, which any mechanism can join; None takes the
            Gaussian filter, which is tighter, and which only Gaussian mechanisms can join.

    Raises:
        ParameterError: A value is out of range, neither epsilon is given, or an order cannot show its epsilon.

    >>> SharedBudget(delta=1e-6, readers_epsilon=4.0, server_epsilon=20.0).readers_order
    7
    """

    delta: float
    readers_epsilon: float | None = None
    server_epsilon: float | None = None
    readers_order: int | None = None
    server_order: int | None = None

    def __post_init__(self) -> None:
        checks.probability("delta", self.delta)
        if self.readers_epsilon is None and self.server_epsilon is None:
            raise ParameterError("No budget was given; give readers_epsilon, server_epsilon, or both.")
        if self.readers_epsilon is not None and self.readers_order is None:
            unsampled = Composed(Gaussian(1.0), 1)
            epsilon = checks.positive("readers_epsilon", self.readers_epsilon)
            chosen = RenyiFilter.planned(epsilon=epsilon, delta=self.delta, expected=unsampled)
            object.__setattr__(self, "readers_order", chosen.order)
        for observer, promised, order in (
            ("readers", self.readers_epsilon, self.readers_order),
            ("server", self.server_epsilon, self.server_order),
        ):
            if promised is None and order is not None:
                raise ParameterError(f"{observer}_order is {order} without {observer}_epsilon; give both.")
        self.after(self.nothing)  # Filters that cannot be are refused here.

    @classmethod
    def planned(
        cls,
        *,
        delta: float,
        expected: Composed,
        readers_epsilon: float,
        server_epsilon: float | None = None,
        server_order: int | None = None,
    ) -> SharedBudget:
        """A budget whose readers' order has most to spare after the sampled rounds one expects in all.

        Args:
            delta: In (0, 1).
            expected: The events one expects of all runs.
            readers_epsilon: Budget against readers, above 0.
            server_epsilon: Budget against the server; None promises it nothing.
            server_order: Renyi order of the server's filter; a Gaussian filter when None.

        >>> from dp.events import Poisson
        >>> rounds = Composed(Poisson(Gaussian(1.5), 0.01), 500)
        >>> SharedBudget.planned(delta=1e-6, expected=rounds, readers_epsilon=2.0).readers_order
        12
        """
        chosen = RenyiFilter.planned(epsilon=readers_epsilon, delta=delta, expected=expected)
        return cls(
            delta=delta,
            readers_epsilon=readers_epsilon,
            server_epsilon=server_epsilon,
            readers_order=chosen.order,
            server_order=server_order,
        )

    @cached_property
    def readers(self) -> RenyiFilter | None:
        """The readers' filter, with nothing charged."""
        if self.readers_epsilon is None or self.readers_order is None:
            return None
        return RenyiFilter(self.readers_epsilon, self.delta, self.readers_order)

    @cached_property
    def server(self) -> RenyiFilter | GaussianFilter | None:
        """The server's filter, with nothing charged."""
        if self.server_epsilon is None:
            return None
        if self.server_order is None:
            return GaussianFilter(self.server_epsilon, self.delta)
        return RenyiFilter(self.server_epsilon, self.delta, self.server_order)

    @property
    def epsilons(self) -> Epsilons:
        """The promise: the most that may ever be spent, infinite against a server to which nothing is promised."""
        server = math.inf if self.server_epsilon is None else self.server_epsilon
        readers = server if self.readers_epsilon is None else self.readers_epsilon
        return Epsilons(min(readers, server), server)

    @property
    def nothing(self) -> Costs:
        """What an unused ledger was charged."""
        return Costs((0.0, 0.0) if self.readers else None, (0.0, 0.0) if self.server else None)

    def cost(self, readers: Composed, server: Composed | None) -> Costs:
        """What a run's rounds cost.

        Args:
            readers: Its rounds against readers.
            server: One client's contributions to them; None where the server is trusted.

        Raises:
            ParameterError: the server is trusted, and a promise against it was made.
            UnsupportedEvent: A filter does not cover the event.
        """
        if server is None and self.server_epsilon is not None:
            raise ParameterError(
                f"The budget promises epsilon {self.server_epsilon:g} against the server, which the mechanism trusts"
                " with every sum; use DistributedDiscreteGaussian, or a ledger without that promise."
            )
        return Costs(_cost(self.readers, readers), None if server is None else _cost(self.server, server))

    def after(self, costs: Costs) -> Epsilons:
        """Both epsilons of the filters with these costs charged: bookkeeping, for the guarantee is `epsilons`.

        Raises:
            BudgetExceeded: the costs pass a budget.
        """
        readers = _reached("readers", self.readers, costs.readers)
        server = _reached("server", self.server, costs.server)
        if server is None:
            server = math.inf if readers else 0.0
        return Epsilons(server if readers is None else min(readers, server), server)

    def describe(self) -> dict[str, Any]:
        """For a ledger's first row."""
        readers = {"epsilon": self.readers_epsilon, "order": self.readers_order}
        server = {"epsilon": self.server_epsilon, "order": self.server_order}
        return {
            "delta": self.delta,
            "readers": None if self.readers is None else readers,
            "server": None if self.server is None else server,
        }

    @classmethod
    def from_description(cls, fields: Mapping[str, Any]) -> SharedBudget:
        """The inverse of `describe`; `fields` as that made them."""
        readers, server = fields["readers"] or {}, fields["server"] or {}
        return cls(
            delta=fields["delta"],
            readers_epsilon=readers.get("epsilon"),
            server_epsilon=server.get("epsilon"),
            readers_order=readers.get("order"),
            server_order=server.get("order"),
        )

    def require_alike(self, run: Mapping[str, Any], joined: Mapping[str, Any]) -> None:
        """Refuse a run beside one with which this budget would be no promise: what either gives away, both do.

        Args:
            run: What the run says of itself: "seeded" where its randomness is known, "masked" false where the server
                sees single inputs.
            joined: The same of one that is on the ledger.

        Raises:
            ParameterError: one is seeded and the other is not; or one is masked and the other is not, and something is
                promised against the server.
        """
        other = joined.get("task", joined.get("program", "another"))
        if bool(run.get("seeded")) != bool(joined.get("seeded")):
            raise ParameterError(
                f"One of this run and {other}, which is on the ledger, is seeded: noise from a seed is known, so that"
                " together they promise nothing; give the run a ledger of its own."
            )
        promised = self.server_epsilon is not None
        if promised and bool(run.get("masked", True)) != bool(joined.get("masked", True)):
            raise ParameterError(
                f"One of this run and {other}, which is on the ledger, is without masks: the server sees its single"
                " inputs, so that together they promise nothing against it; give the run a ledger of its own."
            )


@dataclass(frozen=True)
class Sharing:
    """How a run shares its ledger, for statements.

    Args:
        budget: What all runs together may cost.
        runs: How many have joined.
    """

    budget: SharedBudget
    runs: int


def _cost(budget: RenyiFilter | GaussianFilter | None, events: Composed) -> Spent | None:
    if budget is None:
        return None
    divergence, slack = budget.cost(events.step)
    return events.count * divergence, events.count * slack


def _reached(observer: str, budget: RenyiFilter | GaussianFilter | None, spent: Spent | None) -> float | None:
    if budget is None or spent is None:
        return None
    try:
        return budget.charged(*spent).reached
    except BudgetExceeded as error:
        raise BudgetExceeded(
            f"against {'the ' * (observer == 'server')}{observer}, over all runs that share the ledger, {error}",
            observer=observer,
            would_reach=error.would_reach,
            budget=error.budget,
        ) from None


def _plus(first: Spent | None, second: Spent | None) -> Spent | None:
    return first and second and (first[0] + second[0], first[1] + second[1])


def _pair(divergence: float, slack: float) -> Spent:
    return float(divergence), float(slack)
