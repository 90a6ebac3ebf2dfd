"""Whether a ledger's rows fit together: the chain of hashes, the order of kinds, and the running totals.

A single edit is named by its own row: what follows is checked against the hash as it stands in the file.

Not here: reading the file (`dp.ledger_file`), what its rows cost (`dp.verification`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from dp.errors import LedgerError
from dp.ledger_file import StoredRow, link
from dp.shared_budget import Costs

__all__ = ["Totals", "problems"]

_TYPES = (int, str, int, int, str, bytes)
_FIRST = {"plan": 1, "shared": 0}


@dataclass(frozen=True)
class Totals:
    """What a run was charged up to some row, and, on a shared ledger, what all runs together were.

    Args:
        charged: Rounds reserved and not refunded.
        settled: Rounds that gave a sum.
        refunded: Rounds taken back.
        spent: What both filters of a shared ledger were charged, by all runs.
    """

    charged: int = 0
    settled: int = 0
    refunded: int = 0
    spent: Costs | None = None

    def after(self, kind: str, cost: Costs | None = None) -> Totals:
        """The totals after a `reserve`, `settle` or `refund`."""
        return Totals(
            self.charged + (kind == "reserve") - (kind == "refund"),
            self.settled + (kind == "settle"),
            self.refunded + (kind == "refund"),
            self.spent if cost is None or self.spent is None else self.spent.plus(cost),
        )

    def as_json(self) -> dict[str, Any]:
        """For a row's body."""
        counts = {"charged": self.charged, "settled": self.settled, "refunded": self.refunded}
        return counts if self.spent is None else {**counts, "spent": self.spent.as_json()}

    @classmethod
    def of(cls, body: Any) -> Totals:
        """The totals in a row's body; none in a first row's.

        Raises:
            LedgerError: they cannot be read.
        """
        try:
            totals = body.get("totals")
            if totals is None:
                return cls()
            spent = totals.get("spent")
            counts = (totals["charged"], totals["settled"], totals["refunded"])
            return cls(*counts, None if spent is None else Costs.from_json(spent))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LedgerError(f"a row holds totals that are none ({error!r}); verify the ledger") from error


@dataclass
class _State:
    """What the rows so far allow next."""

    shared: bool = False
    runs: int = 0
    spent: Costs | None = None
    totals: dict[int, Totals] = field(default_factory=dict)
    open: dict[int, int] = field(default_factory=dict)
    last_round: int = 0

    def take(self, sequence: int, kind: str, run: int, number: int, body: Any) -> str | None:
        """Accept a row, or say what is wrong with it."""
        if not self._in_order(sequence, kind, run, number):
            return f"is a {kind} that cannot stand there"
        try:
            fits = self._add_up(kind, run, number, body)
        except (KeyError, TypeError, ValueError, AttributeError, LedgerError):
            return f"lacks what a {kind} must hold"
        return None if fits else "holds totals that are not those of the rows above it"

    def _in_order(self, sequence: int, kind: str, run: int, number: int) -> bool:
        if sequence == 0 or kind in _FIRST:
            return sequence == number == 0 and _FIRST.get(kind) == run
        if kind == "run":
            return self.shared and number == 0 and run == self.runs + 1
        if kind == "reserve":
            return 1 <= run <= self.runs and number > self.last_round
        return kind in ("settle", "refund") and self.open.get(number) == run

    def _add_up(self, kind: str, run: int, number: int, body: Any) -> bool:
        """Add a row in order to the totals; whether its own agree."""
        if kind in _FIRST:
            self.shared, self.runs = kind == "shared", run
            self.totals = {run: Totals()}
            if self.shared:
                filters = (body["budget"]["readers"], body["budget"]["server"])
                self.spent = Costs(*(None if budget is None else (0.0, 0.0) for budget in filters))
            return True
        if kind == "run":
            self.runs, self.totals[run] = run, Totals(spent=self.spent)
            return Totals.of(body) == self.totals[run]
        if kind == "reserve":
            self.last_round, self.open[number] = number, run
        else:
            del self.open[number]
        paid = self.shared and kind != "settle"
        before = replace(self.totals[run], spent=self.spent)
        self.totals[run] = before.after(kind, Costs.from_json(body["cost"]) if paid else None)
        self.spent = self.totals[run].spent
        return Totals.of(body) == self.totals[run]


def problems(rows: Iterable[StoredRow]) -> Iterator[tuple[int, str]]:
    """What does not fit: each row's number, and what is wrong with it.

    A row out of its chain makes what it and the rows after it add up to unknowable, so that only the chain is checked
    from there on.
    """
    state: _State | None = _State()
    before: bytes | None = bytes(32)
    expected = 0
    for row in rows:
        problem = None
        if tuple(map(type, row)) != _TYPES:
            problem, before = "is damaged", None
        else:
            sequence, kind, run, number, body, digest = row
            if sequence != expected:
                yield expected, "is missing"
                expected, before, state = sequence, None, None
            if before is not None and digest != link(before, sequence, kind, run, number, body):
                problem = "does not fit the row before it: one of the two was edited, moved or replaced"
            before = digest
            if state is not None and problem is None:
                problem = _read(state, sequence, kind, run, number, body)
        if problem is not None:
            state = None
            yield expected, problem
        expected += 1
    if expected == 0:
        yield 0, "is missing: there is no plan"


def _read(state: _State, sequence: int, kind: str, run: int, number: int, body: str) -> str | None:
    try:
        content = json.loads(body)
    except json.JSONDecodeError:
        return "holds no JSON"
    return state.take(sequence, kind, run, number, content)
