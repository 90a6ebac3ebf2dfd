"""What a ledger says was spent, and what is left: for both observers, run by run and in total.

Everything is read from the file: accountants are rebuilt from the descriptions in its rows.

Not here: whether the ledger is to be believed (`dp.verification`), words (`dp.statements`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dp import checks
from dp.accounting import RunAccountant
from dp.central import CentralFloatGaussianNotFloatingPointSafe, CentralGaussian, CentralMatrix
from dp.cohorts import PaddedPoisson, Sampler, SelfSampling
from dp.errors import DPError, ParameterError
from dp.fixed_cohorts import FixedOrder, FixedSizeSample
from dp.ledger import Ledger
from dp.ledger_chain import Totals
from dp.mechanisms import DistributedDiscreteGaussian, DistributedSkellam, Mechanism, NarrowDiscreteGaussian
from dp.one_draw import ONE_DRAW, UnderOneDraw
from dp.privacy import Epsilons, Privacy
from dp.removable_noise import RemovableDiscreteGaussian
from dp.shared_budget import Costs, SharedBudget

__all__ = ["RunSpending", "Spending", "accountant_of", "spending"]


@dataclass(frozen=True)
class RunSpending:
    """One run of a ledger.

    Args:
        number: k, counted from 1 in the order of joining.
        run: What it is, as it named itself.
        description: Its accountant, in full.
        charged: Rounds reserved and not refunded.
        settled: Rounds that gave a sum.
        refunded: Rounds taken back.
    """

    number: int
    run: Mapping[str, Any]
    description: Mapping[str, Any]
    charged: int
    settled: int
    refunded: int

    @property
    def aborted(self) -> int:
        """Rounds that stay charged without having given a sum: lost, or under way."""
        return self.charged - self.settled

    @cached_property
    def accountant(self) -> RunAccountant | None:
        """Its accountant, rebuilt; None if it is not one of this library's own."""
        return accountant_of(self.description)

    @cached_property
    def spent(self) -> Epsilons | None:
        """Both epsilons of its own rounds, by its own accountant; None if that is not known."""
        return None if self.accountant is None else self.accountant.epsilons(self.charged)

    @property
    def budgets(self) -> Epsilons | None:
        """Its own budgets, infinite where it has none."""
        return None if self.accountant is None else self.accountant.budgets

    @property
    def left(self) -> Epsilons | None:
        """Its own budgets less what its own rounds spent."""
        return _less(self.budgets, self.spent)

    def as_dict(self) -> dict[str, Any]:
        """JSON values; what is infinite or unknown is None."""
        return {
            "number": self.number,
            "run": dict(self.run),
            "accountant": dict(self.description),
            "charged": self.charged,
            "settled": self.settled,
            "refunded": self.refunded,
            "aborted": self.aborted,
            "epsilon": _finite(self.spent),
            "budget": _finite(self.budgets),
            "left": _finite(self.left),
        }


@dataclass(frozen=True)
class Spending:
    """What a ledger holds.

    On a shared ledger `spent` is what the filters say for all rounds of all runs. That is bookkeeping, because a run
    may have been chosen, or stopped, for what others released; what is guaranteed is `budgets`.

    Args:
        path: The ledger.
        rows: Number of rows.
        newest_hash: Hash of the last, in hexadecimal.
        runs: Its runs, in the order of joining.
        shared: The budget that they share; None for one run's ledger.
        total: What its filters were charged by all runs; None if it is not shared.
    """

    path: Path | None
    rows: int
    newest_hash: str
    runs: tuple[RunSpending, ...]
    shared: SharedBudget | None
    total: Costs | None

    @property
    def delta(self) -> float | None:
        """The delta of both epsilons."""
        if self.shared is not None:
            return self.shared.delta
        return self.runs[0].description.get("delta")

    @cached_property
    def spent(self) -> Epsilons | None:
        """Both epsilons of everything charged; None if the accountant is not one of this library's own."""
        if self.shared is None:
            return self.runs[0].spent
        return self.shared.after(self.total or self.shared.nothing)

    @property
    def budgets(self) -> Epsilons | None:
        """The most that may be spent, infinite where there is no budget."""
        return self.runs[0].budgets if self.shared is None else self.shared.epsilons

    @property
    def left(self) -> Epsilons | None:
        """The budgets less what was spent."""
        return _less(self.budgets, self.spent)

    def after(self, run: int, *, rounds: int = 1) -> Epsilons:
        """What would be spent after more rounds of a run.

        Args:
            run: Its number.
            rounds: How many, at least 0.

        Raises:
            BudgetExceeded: they pass the budget of a shared ledger.
            ParameterError: there is no such run, or its accountant is not known.
        """
        checks.integer("rounds", rounds, 0)
        if not 1 <= run <= len(self.runs) or (accountant := self.runs[run - 1].accountant) is None:
            raise ParameterError(
                f"Run {run!r} is not one of the {len(self.runs)} runs of {self.path} whose cost is known here."
            )
        charged = self.runs[run - 1].charged
        if self.shared is None:
            return accountant.epsilons(charged + rounds)
        first, last = (self.shared.cost(*accountant.events(count)) for count in (charged, charged + rounds))
        return self.shared.after((self.total or self.shared.nothing).plus(last).plus(first.negative()))

    def as_dict(self) -> dict[str, Any]:
        """JSON values; what is infinite or unknown is None."""
        return {
            "ledger": str(self.path),
            "rows": self.rows,
            "newest_hash": self.newest_hash,
            "delta": self.delta,
            "shared": None if self.shared is None else self.shared.describe(),
            "epsilon": _finite(self.spent),
            "budget": _finite(self.budgets),
            "left": _finite(self.left),
            "runs": [run.as_dict() for run in self.runs],
        }


def spending(path: str | Path) -> Spending:
    """Read what a ledger says was spent, from its running totals; `dp.verify` checks them.

    Args:
        path: The ledger's file.

    Returns:
        What was spent and what is left, by run and in all.

    Raises:
        LedgerError: the file cannot be read as a ledger.
    """
    ledger = Ledger.open(path)
    sequence, newest_hash = ledger.head
    sharing = ledger.sharing
    runs = tuple(
        RunSpending(number, plan["run"], plan["accountant"], totals.charged, totals.settled, totals.refunded)
        for number, plan, totals in ledger.runs()
    )
    total = next((totals for _, _, totals in ledger.runs()), Totals())
    shared = None if sharing is None else sharing.budget
    return Spending(Path(path), sequence + 1, newest_hash, runs, shared, total.spent)


def accountant_of(description: Mapping[str, Any]) -> RunAccountant | None:
    """Rebuild an accountant from its description in a ledger.

    Returns:
        The accountant, or None if the description is not of one of this library's own.
    """
    try:
        if "mechanism" not in description:
            description = _query(description)
        mechanism = _mechanism(description["mechanism"])
        sampler = _SAMPLERS[description["sampler"]["kind"]](description["sampler"])
        privacy = Privacy(
            delta=description["delta"],
            l2_clip_norm=1.0,
            readers_epsilon=description["readers_epsilon"],
            server_epsilon=description["server_epsilon"],
            noise_multiplier=mechanism.noise_multiplier,
            max_participations=description["max_participations"],
        )
        return RunAccountant(mechanism, sampler, privacy, description["rounds"])
    except (KeyError, TypeError, AttributeError, DPError):
        return None


def _query(description: Mapping[str, Any]) -> dict[str, Any]:
    """The description of `dp.tensorflow_privacy.QueryAccountant` for one event a round, in the form of a plan's."""
    noise = {"noise_multiplier": description["noise_multiplier"], "sensitivity": 1.0, "dimension": 1}
    return {
        **description,
        "mechanism": {"kind": _FLOAT_GAUSSIAN, **noise},
        "server_epsilon": None,
        "max_participations": None,
        "rounds": 1,
    }


def _mechanism(description: Mapping[str, Any]) -> Mechanism:
    return _MECHANISMS[description["kind"]](_figures(description))


def _figures(description: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in description.items() if name != "kind"}


_FLOAT_GAUSSIAN = "central float Gaussian, not floating-point safe"
_MECHANISMS: dict[str, Callable[[dict[str, Any]], Mechanism]] = {
    "distributed discrete Gaussian": lambda figures: DistributedDiscreteGaussian(**figures),
    "narrow discrete Gaussian": lambda figures: NarrowDiscreteGaussian(**figures),
    "distributed discrete Gaussian, excess removed": lambda figures: RemovableDiscreteGaussian(**figures),
    "distributed Skellam": lambda figures: DistributedSkellam(**figures),
    _FLOAT_GAUSSIAN: lambda figures: CentralFloatGaussianNotFloatingPointSafe(**figures, trusted_server=True),
    "central discrete Gaussian": lambda figures: CentralGaussian(**figures, trusted_server=True),
    "central banded matrix": lambda figures: CentralMatrix(**figures, trusted_server=True),
    ONE_DRAW: lambda figures: UnderOneDraw(tuple(map(_mechanism, figures["stages"]))),
}
_SAMPLERS: dict[str, Callable[[Mapping[str, Any]], Sampler]] = {
    "padded Poisson": lambda plan: PaddedPoisson(plan["population"], plan["expected"]),
    "self-sampling": lambda plan: SelfSampling(
        PaddedPoisson(plan["population"], plan["expected"]), plan["coin"]
    ),
    "fixed size": lambda plan: FixedSizeSample(plan["population"], plan["expected"]),
    "fixed order": lambda plan: FixedOrder(plan["population"], plan["expected"]),
}


def _less(budgets: Epsilons | None, spent: Epsilons | None) -> Epsilons | None:
    if budgets is None or spent is None:
        return None
    return Epsilons(
        *(
            max(0.0, most - gone) if math.isfinite(most) else most
            for most, gone in ((budgets.readers, spent.readers), (budgets.server, spent.server))
        )
    )


def _finite(epsilons: Epsilons | None) -> dict[str, float | None]:
    if epsilons is None:
        return {"readers": None, "server": None}
    return {
        who: value if math.isfinite(value) else None
        for who, value in (("readers", epsilons.readers), ("server", epsilons.server))
    }
