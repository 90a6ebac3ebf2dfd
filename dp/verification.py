"""Checking a spent budget from its ledger alone: the rows, and both epsilons by a code path of its own.

* The chain of hashes, the order of rows and the running totals; each misfit is named by its row.
* The clock: a row dated before one above it.
* On a shared ledger, what every row charged to the filters, from its run's own description.
* Both epsilons, once more, by `dp.recomputation`: dp-accounting's engines and curves coded twice.
* The models that settled rounds name, where they are at hand.

Not here: charging (`dp.ledger`). A ledger that was replaced whole fits itself: keep its newest hash elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from dp.accounting import RunAccountant
from dp.errors import DPError
from dp.ledger import Ledger
from dp.ledger_chain import Totals
from dp.ledger_file import BUSY_SECONDS, Row
from dp.privacy import Epsilons
from dp.recomputation import independent_epsilon, independent_filter_epsilon
from dp.shared_budget import Costs, SharedBudget
from dp.spending import accountant_of

__all__ = ["Models", "Verification", "verify"]

Models = Mapping[int, bytes] | Callable[[int], bytes | None]
"""A round's number to the SHA-256 of the model it released, as its `settle` row names it; None if it is not at hand."""

_TOLERANCE = 2e-3
"""Relative difference that two right accountants may show, their grids being different."""
_MOST_FINDINGS = 50


@dataclass(frozen=True)
class Verification:
    """What a ledger says, and what does not fit.

    Args:
        path: The ledger.
        rows: Number of rows read.
        charged: Rounds reserved and not refunded, by all runs.
        settled: Rounds that gave a sum.
        refunded: Rounds taken back.
        epsilons: Both epsilons by the accountant or the filters that charge; None if the accountant is not one of this
            library's own, or the rows do not fit.
        recomputed: Both by the second code path; an observer is None where it does not cover the events.
        newest_hash: Hash of the last row, in hexadecimal.
        findings: What does not fit, one sentence each; empty if all does.
        runs: How many runs were charged.
        shared: Whether the ledger is one that several runs may share.
        models_checked: Settled rounds whose model was at hand.
    """

    path: Path
    rows: int
    charged: int
    settled: int
    refunded: int
    epsilons: Epsilons | None
    recomputed: Mapping[str, float | None]
    newest_hash: str
    findings: tuple[str, ...]
    runs: int = 1
    shared: bool = False
    models_checked: int = 0

    def as_dict(self) -> dict[str, Any]:
        """JSON values; infinity is None."""

        def finite(value: float | None) -> float | None:
            return value if value is not None and math.isfinite(value) else None

        spent = self.epsilons
        return {
            "ledger": str(self.path),
            "rows": self.rows,
            "runs": self.runs,
            "shared": self.shared,
            "charged": self.charged,
            "settled": self.settled,
            "refunded": self.refunded,
            "epsilon": None
            if spent is None
            else {"readers": finite(spent.readers), "server": finite(spent.server)},
            "recomputed": {observer: finite(value) for observer, value in self.recomputed.items()},
            "newest_hash": self.newest_hash,
            "models_checked": self.models_checked,
            "findings": list(self.findings),
        }


def verify(path: str | Path, models: Models | None = None) -> Verification:
    """Read a ledger, recompute its chain and its epsilons, and name what does not fit.

    Args:
        path: The ledger's file; it is only read.
        models: What is known of the models that were released.

    Returns:
        What was found; `findings` is empty if everything fits.

    Raises:
        LedgerError: The file cannot be read as a ledger at all.
    """
    ledger = Ledger.open(path)
    broken = list(islice(ledger.problems(), _MOST_FINDINGS))
    if broken:
        return Verification(Path(path), 0, 0, 0, 0, None, {}, "", tuple(broken))
    read = _Reading(models)
    for row in ledger.rows():
        read.take(row)
    totals = [totals for _, _, totals in ledger.runs()]
    epsilons, recomputed, findings = read.epsilons({run: totals.charged for run, _, totals in ledger.runs()})
    sequence, newest_hash = ledger.head
    return Verification(
        path=Path(path),
        rows=sequence + 1,
        charged=sum(each.charged for each in totals),
        settled=sum(each.settled for each in totals),
        refunded=sum(each.refunded for each in totals),
        epsilons=epsilons,
        recomputed=recomputed,
        newest_hash=newest_hash,
        findings=tuple(islice((*read.findings, *findings), _MOST_FINDINGS)),
        runs=len(totals),
        shared=read.budget is not None,
        models_checked=read.models_checked,
    )


@dataclass
class _Reading:
    """What is gathered from rows that fit together, one after the other."""

    models: Models | None
    budget: SharedBudget | None = None
    accountants: dict[int, RunAccountant | None] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    models_checked: int = 0
    _spent: Costs | None = None
    _owed: dict[int, Costs] = field(default_factory=dict)
    _latest: float = -math.inf

    def take(self, row: Row) -> None:
        """Look at one row."""
        try:
            problems = list(self._problems(row))
        except (KeyError, TypeError, ValueError, AttributeError, DPError) as error:
            problems = [f"cannot be read as a {row.kind} ({error!r})"]
        self.findings.extend(f"Row {row.sequence} {problem}." for problem in problems)

    def epsilons(
        self, charged: Mapping[int, int]
    ) -> tuple[Epsilons | None, dict[str, float | None], list[str]]:
        """Both epsilons, once more by the second code path, and where they differ or pass a budget."""
        if self.budget is not None:
            return self._shared(self.budget, charged)
        (accountant,) = self.accountants.values()
        if accountant is None:
            return None, {}, []
        ours, delta, sampler = accountant.epsilons(charged[1]), accountant.privacy.delta, accountant.sampler
        history = accountant.mechanism.event, charged[1], accountant.privacy.max_participations
        readers = independent_epsilon(sampler.readers_event(*history), delta=delta, scale=ours.readers)
        server = independent_epsilon(sampler.server_event(*history), delta=delta, scale=ours.readers)
        seen = accountant.mechanism.trusted_server and charged[1] > 0
        theirs = _both(readers, server, seen=seen)
        return ours, theirs, list(_compared(ours, theirs, accountant.budgets))

    def _shared(
        self, budget: SharedBudget, charged: Mapping[int, int]
    ) -> tuple[Epsilons | None, dict[str, float | None], list[str]]:
        events = {
            run: each.events(charged[run]) for run, each in self.accountants.items() if each is not None
        }
        if len(events) < len(self.accountants) or self._spent is None:
            return None, {}, []
        readers = server = None
        seen = budget.server_epsilon is None and any(charged.values())
        if budget.readers_epsilon is not None:
            costs = [each[0] for each in events.values()]
            readers = independent_filter_epsilon(costs, delta=budget.delta, order=budget.readers_order)
        if budget.server_epsilon is not None:
            own = [each[1] for each in events.values() if each[1] is not None]
            server = independent_filter_epsilon(own, delta=budget.delta, order=budget.server_order)
        ours = budget.after(self._spent)
        theirs = _both(readers if budget.readers else server, server, seen=seen)
        return ours, theirs, list(_compared(ours, theirs, budget.epsilons))

    def _problems(self, row: Row) -> Iterator[str]:
        yield from self._clock(row)
        if row.kind == "shared":
            self.budget = SharedBudget.from_description(row.body["budget"])
            self._spent = self.budget.nothing
        elif row.kind in ("plan", "run"):
            self.accountants[row.run] = accountant_of(row.body["accountant"])
            if row.kind == "run" and self.accountants[row.run] is None:
                yield "joins with an accountant that is not known here, so that what it charged cannot be checked"
        elif row.kind == "settle":
            yield from self._model(row)
        else:
            yield from self._cost(row)

    def _clock(self, row: Row) -> Iterator[str]:
        """Rows are dated in order, but for what may have waited for the file: several processes can charge one run."""
        time = row.body.get("time")
        if time is None:
            return
        if time < self._latest - BUSY_SECONDS:
            yield f"is dated {self._latest - time:.3f} s before a row above it: a clock ran back"
        self._latest = max(self._latest, time)

    def _model(self, row: Row) -> Iterator[str]:
        stored = bytes.fromhex(row.body["model"])
        if self.models is None:
            return
        kept = self.models.get(row.round) if isinstance(self.models, Mapping) else self.models(row.round)
        if kept is None:
            return
        self.models_checked += 1
        if kept != stored:
            yield (
                f"settles round {row.round} with the model {stored.hex()[:16]}..., and the one at hand is"
                f" {kept.hex()[:16]}..."
            )

    def _cost(self, row: Row) -> Iterator[str]:
        """On a shared ledger: whether a row charged what its run's description says."""
        accountant = self.accountants[row.run]
        if self.budget is None or accountant is None:
            return
        earlier = self._owed.get(row.run, self.budget.nothing)
        later = self._owed[row.run] = self.budget.cost(*accountant.events(Totals.of(row.body).charged))
        owed, paid = later.plus(earlier.negative()), Costs.from_json(row.body["cost"])
        self._spent = None if self._spent is None else self._spent.plus(paid)
        if paid != owed:
            yield f"charges {paid} to the filters, and run {row.run} owed {owed}"


def _both(readers: float | None, server: float | None, *, seen: bool) -> dict[str, float | None]:
    """Readers see nothing that a server does not, unless it is trusted; then its bound is what its sums would cost."""
    if readers is not None and server is not None:
        readers = min(readers, server)
    return {"readers": readers, "server": math.inf if seen else server}


def _compared(ours: Epsilons, theirs: Mapping[str, float | None], budgets: Epsilons) -> Iterable[str]:
    for observer in ("readers", "server"):
        own, other, budget = getattr(ours, observer), theirs[observer], getattr(budgets, observer)
        if other is not None and own != other and not abs(own - other) <= _TOLERANCE * max(1.0, own):
            yield f"Epsilon against {observer} is {own:.6g} by this library and {other:.6g} by dp-accounting."
        if own > budget:
            yield f"Epsilon against {observer} is {own:.6g}, over the budget of {budget:g} in row 0."
