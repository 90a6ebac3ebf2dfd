"""What a context promises: population, budgets and how often programs run; and from these any program's cost.

Nothing here runs anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import dp
from fedavg.aggregation import SecureAggregation
from fedavg.core.computation import FederatedComputation
from fedavg.core.errors import ExecutionError
from fedavg.core.plan import Plan, PrivacyReport

__all__ = ["Bound", "Promise"]


@dataclass(frozen=True)
class Bound:
    """A program under a promise: its plan, and the accountant that its ledger asks."""

    plan: Plan
    accountant: dp.RunAccountant


@dataclass(frozen=True)
class Promise:
    """A context's public settings.

    Args:
        sampler: Who is drawn for a run.
        privacy: Budgets, delta, cap.
        rounds: How often a program runs; None for a filter.
        secure: How sums are taken.
        seeded: Whether randomness comes from a seed.
    """

    sampler: dp.PaddedPoisson
    privacy: dp.Privacy
    rounds: int | None
    secure: SecureAggregation
    seeded: bool

    def bind(self, computation: FederatedComputation) -> Bound:
        """Plan a program's noise.

        Raises:
            ExecutionError, ParameterError: there is no plan that keeps the promise.
        """
        if computation.insecure:
            raise ExecutionError(
                f"{computation.name} is insecure=True: its sums need no bounds, so it runs in an insecure context"
                " alone; take insecure=True away, and bound what it sums"
            )
        if not computation.asks_clients:
            raise ExecutionError(f"{computation.name} asks nothing of clients; it costs nothing")
        rounds = self.rounds or 1
        # A filter's budgets are for all programs on its ledger; so its noise is what was asked for.
        promised = self.privacy
        if self.rounds is None:
            promised = replace(promised, readers_epsilon=None, server_epsilon=None)
        least = dp.calibrate(promised, self.sampler, rounds=rounds)
        plan = Plan.choose(
            computation.results,
            noise_multiplier=least,
            sampler=self.sampler,
            privacy=self.privacy,
            secure=self.secure,
            task=f"fedavg.core {computation.name}",
        )
        if self.secure.masked:
            for stage in plan.stages:
                stage.plan.check_graph()  # Infeasible graphs are refused here, before anything is charged.
        return Bound(plan, dp.RunAccountant(plan.mechanism, self.sampler, self.privacy, rounds))

    def filter(self) -> dp.SharedBudget:
        """The budget that all programs on a ledger share, where the number of runs is not fixed."""
        privacy = self.privacy
        return dp.SharedBudget(
            delta=privacy.delta,
            readers_epsilon=privacy.readers_epsilon,
            server_epsilon=privacy.server_epsilon,
        )

    def report(self, bound: Bound) -> PrivacyReport:
        """What all planned runs cost; under a filter its budget, with what the first run takes of it.

        Raises:
            dp.BudgetExceeded: one run is more than the filter lets pass.
        """
        runs, sharing = self.rounds or 1, None
        cost = bound.accountant.epsilons(runs)
        if self.rounds is None:
            sharing = dp.Sharing(self.filter(), runs=1)
            cost = sharing.budget.after(sharing.budget.cost(*bound.accountant.events(1)))
        return PrivacyReport(
            self.statements(bound, cost, charged=runs, sharing=sharing),
            bound.plan.events(),
            bound.plan.mechanism.noise_multiplier,
            self.rounds,
        )

    def statements(
        self,
        bound: Bound,
        cost: dp.Epsilons,
        *,
        charged: int,
        aborted: int = 0,
        sharing: dp.Sharing | None = None,
    ) -> dp.Statements:
        """Both statements for a cost; on a shared ledger its budget is claimed, whatever was spent."""
        both = dp.statements(
            cost,
            **bound.plan.terms_of_statements,
            sampler=self.sampler,
            privacy=self.privacy,
            charged=charged,
            aborted=aborted,
            seeded=self.seeded,
            sharing=sharing,
        )
        said = []
        if len(bound.plan.stages) > 1:
            said.append(
                f"the {len(bound.plan.stages)} sums of a round are under one draw, and charged as one event"
            )
        if self.rounds is None:
            said.append(
                "a filter keeps all rounds on the ledger within its budget, however many were run and why"
            )
        readers, server = (
            replace(statement, assumptions=(*statement.assumptions, *said))
            for statement in (both.readers, both.server)
        )
        return dp.Statements(readers, server)
