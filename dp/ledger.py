"""The ledger: what was promised, reserved, settled and refunded, in an append-only file that shows an edit.

A ledger belongs to one run, or is *shared* by several. It is charged before anybody is invited:

    reserve   before anybody is invited: the round's whole cost, or nothing is written and `BudgetExceeded` is raised
    settle    after the sum: survivors and the hash of the released model
    refund    for a reserved round that ended without a sum before any unmasking share was answered

Invariants:

* a reservation counts as spent until it is refunded; one that was never settled (a crash) stays spent;
* every row holds the SHA-256 of the row before it, so an edited, deleted, swapped or inserted row shows;
* check and reservation are one transaction (`BEGIN IMMEDIATE`, synchronous FULL): processes and runs that share a
  ledger cannot overspend it, and a power cut leaves what was committed;
* no row tells who was drawn or how many.

What the chain cannot show: a ledger replaced whole, or restored from a backup. Keep the newest hash elsewhere.

**Format, version 2.** A SQLite database with `application_id` 0x56454C53, `user_version` 2 and one table,
`row(sequence, kind, run, round, body, hash)`: `sequence` counts from 0 without gaps; `body` is a JSON object, keys
sorted, without spaces; `hash` is the SHA-256 of these fields, each behind its length in 8 bytes, big-endian: the hash
of the row before (32 zero bytes for row 0), `kind`, `body` (UTF-8), then `sequence`, `run` and `round`, 8 bytes each.

| kind      | run | round | body |
| --------- | --- | ----- | ---- |
| `plan`    | 1   | 0     | row 0 of one run's ledger: `id`, `run`, `accountant` |
| `shared`  | 0   | 0     | row 0 of a shared one: `id`, `budget` |
| `run`     | k   | 0     | the k-th run to join a shared one: `run`, `accountant`, `totals` |
| `reserve` | k   | n     | `time`, `totals`; `cost` on a shared one |
| `settle`  | k   | n     | `survivors`, `model` (SHA-256, hexadecimal), `time`, `totals` |
| `refund`  | k   | n     | `reason`, `time`, `totals`; `cost`, negative, on a shared one |

`id` is random. `run` in a body is whatever the caller named its run by; `accountant` is everything its epsilons follow
from; `time` is seconds since the epoch, or null. Rounds are numbered over the whole ledger, from 1. `totals` are counts
of the row's run up to and with the row: `charged` (reserved and not refunded), `settled`, `refunded`. On a shared
ledger `budget` is `delta`, and for `readers` and `server` null or `epsilon` and `order`, of a Renyi filter or, if null,
of a Gaussian one; `totals` also hold `spent`, what all runs together were charged: for `readers` and `server` null, or
a pair of divergence (of a Gaussian filter, the sum of 1/z^2) and slack; and `cost` is what the row added to that.

Not here: what a round costs (the accountant that is passed in), the clock (timestamps are passed in), the file itself
(`dp.ledger_file`), whether the rows fit (`dp.ledger_chain`), reading what was spent (`dp.spending`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dp.errors import BudgetExceeded, LedgerError, ParameterError
from dp.events import Composed
from dp.ledger_chain import Totals, problems
from dp.ledger_file import LedgerFile, Row, canonical
from dp.privacy import Epsilons
from dp.shared_budget import SharedBudget, Sharing

__all__ = ["Accountant", "Ledger", "PlannedAccountant", "Row"]

_ID_BYTES = 16


class Accountant(Protocol):
    """What a ledger needs to know about cost: both epsilons after some number of charged rounds, and the budgets."""

    def epsilons(self, rounds: int) -> Epsilons:
        """Both epsilons after `rounds` charged rounds."""
        ...

    @property
    def budgets(self) -> Epsilons:
        """The most that may be spent, infinite where there is no budget."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Everything the epsilons follow from, as JSON values."""
        ...


@runtime_checkable
class PlannedAccountant(Protocol):
    """An accountant that also knows its plan and its events: only such a run can share a ledger."""

    def fits(self, rounds: int) -> bool:
        """Whether `rounds` rounds keep the budgets."""
        ...

    def events(self, rounds: int) -> tuple[Composed, Composed | None]:
        """What `rounds` rounds cost against readers, and against the server; None where it is trusted."""
        ...


class Ledger:
    """A ledger that is attached to one run: `reserve`, `settle`, `refund`, `spent`.

    Use `Ledger.attach` to create, join or continue one, `Ledger.share` to create a shared one, `Ledger.open` to read.

    Args:
        file: The opened file.
        accountant: What a round costs; None for reading only.
    """

    def __init__(self, file: LedgerFile, accountant: Accountant | None = None) -> None:
        self._file = file
        self._accountant = accountant
        self._run: int | None = None

    @property
    def path(self) -> Path | None:
        """The file; None in memory."""
        return self._file.path

    @classmethod
    def attach(cls, path: str | Path | None, *, accountant: Accountant, run: Mapping[str, Any]) -> Ledger:
        """Create the ledger of a run, or continue it; or join a shared one.

        On a shared ledger both hold: the run's own budgets, for its own rounds, and the shared ones, for everything.
        Runs of equal `run` and accountant are one run, continued: name runs apart in `run`.

        Args:
            path: The file; None keeps the ledger in memory, where nothing outlives the process.
            accountant: What a round costs, and the budgets.
            run: What the run is, as JSON values; a ledger of another run is refused.

        Returns:
            The ledger, attached to the run.

        Raises:
            LedgerError: the file is unreadable, unwritable, damaged, of another version, or another run's; or it is
                shared, and the run promises another delta.
            ParameterError: the ledger is shared and promises what the run cannot, or what it would not beside the
                runs that joined before.
            UnsupportedEvent: the ledger is shared, and its filters do not cover the run's events.
        """
        ledger = cls(LedgerFile(None if path is None else Path(path), writable=True), accountant)
        plan = json.loads(canonical({"run": run, "accountant": accountant.describe()}))
        with ledger._file.writing():
            if ledger._file.is_empty:
                ledger._file.make_table()
                ledger._file.append("plan", 1, 0, {"id": os.urandom(_ID_BYTES).hex(), **plan})
        ledger.verify()
        ledger._take_part(plan)
        return ledger

    @classmethod
    def share(cls, path: str | Path | None, *, budget: SharedBudget) -> Ledger:
        """Create a ledger for several runs, or open one for reading that was created with the same budget.

        Args:
            path: The file; None keeps the ledger in memory.
            budget: What all runs together may spend.

        Returns:
            The ledger; runs join it by `attach`.

        Raises:
            LedgerError: there is a ledger of another budget or of a single run, or the file cannot be used.
        """
        ledger = cls(LedgerFile(None if path is None else Path(path), writable=True))
        with ledger._file.writing():
            if ledger._file.is_empty:
                ledger._file.make_table()
                body = {"id": os.urandom(_ID_BYTES).hex(), "budget": budget.describe()}
                ledger._file.append("shared", 0, 0, body)
        ledger.verify()
        if ledger._budget != budget:
            what = "a single run" if ledger._budget is None else f"{ledger._budget}"
            raise LedgerError(f"the ledger {path} exists, for {what}; join it as it is, or give another path")
        return ledger

    @classmethod
    def open(cls, path: str | Path) -> Ledger:
        """Open a ledger for reading; nothing is ever written.

        Args:
            path: The file.

        Returns:
            The ledger, for reading only.

        Raises:
            LedgerError: there is none, or it is damaged, locked, of another version, or no ledger.
        """
        ledger = cls(LedgerFile(Path(path), writable=False))
        if ledger._file.is_empty:
            raise LedgerError(f"{path} is empty; restore it from a backup")
        return ledger

    def reserve(self, *, timestamp: float | None = None) -> int:
        """Charge one round before anybody is invited.

        Args:
            timestamp: Seconds since 1970 for the row; None leaves it out of the row.

        Returns:
            The round's number, never used before in this ledger.

        Raises:
            BudgetExceeded: the round would pass a budget; nothing was written.
            LedgerError: the ledger cannot be written, or was opened for reading.
        """
        accountant, run = self._attached()
        with self._file.writing():
            before = self._totals(run)
            _check(accountant, before.charged + 1)
            number = int(self._file.scalar("SELECT MAX(round) + 1 FROM row"))
            self._charge("reserve", number, before, {"time": timestamp})
        return number

    def settle(
        self, number: int, *, survivors: int, model_hash: bytes, timestamp: float | None = None
    ) -> None:
        """Record that a reserved round gave a sum.

        Args:
            number: The round, reserved by this run and neither settled nor refunded.
            survivors: Clients of the padded cohort whose input is in the sum.
            model_hash: 32 bytes naming the model that was released.
            timestamp: Seconds since the epoch, if the caller has a clock.

        Raises:
            LedgerError: the round is not open, or the ledger cannot be written.
        """
        self._close(number, "settle", {"survivors": survivors, "model": model_hash.hex(), "time": timestamp})

    def refund(self, number: int, *, reason: str, timestamp: float | None = None) -> None:
        """Take a reservation back: only while no share that unmasks was answered; the caller vouches for that.

        Args:
            number: The round, as `reserve` returned it.
            reason: Why there is no sum, in words; kept in the row.
            timestamp: Seconds since 1970 for the row, or None.

        Raises:
            LedgerError: the round is not open, or the ledger cannot be written.
        """
        self._close(number, "refund", {"reason": reason, "time": timestamp})

    def spent(self) -> Epsilons:
        """Both epsilons of everything charged so far.

        On a shared ledger: what its filters say for the rounds of all runs. That is bookkeeping, because a run may have
        been chosen for what it came to; what is guaranteed is the budget.
        """
        accountant, run = self._attached()
        totals = self._totals(run)
        if self._budget is None:
            return accountant.epsilons(totals.charged)
        return self._budget.after(totals.spent or self._budget.nothing)

    @property
    def sharing(self) -> Sharing | None:
        """The budget that this ledger is shared under, and by how many runs; None for one run's ledger."""
        if self._budget is None:
            return None
        return Sharing(self._budget, int(self._file.scalar("SELECT MAX(run) FROM row")))

    @property
    def run(self) -> int | None:
        """Number of the run that is attached; None for a ledger that was opened for reading."""
        return self._run

    @property
    def charged(self) -> int:
        """Rounds reserved and not refunded: of the run that is attached, else of all."""
        return sum(totals.charged for totals in self._counted())

    def turn(self, number: int) -> int:
        """How many rounds its run had been charged when round `number` was reserved, that one included.

        Unlike `charged`, it is the same however many processes charge the run at once: a fixed order counts by it.

        Raises:
            LedgerError: no such round was reserved, or its row cannot be read.
        """
        body = self._file.scalar("SELECT MAX(body) FROM row WHERE round = ? AND kind = 'reserve'", number)
        if body is None:
            raise LedgerError(f"the ledger {self.path} holds no round {number}; reserve it first")
        return Totals.of(json.loads(body)).charged

    @property
    def aborted(self) -> int:
        """Rounds that stay charged without having given a sum: lost, or under way."""
        return sum(totals.charged - totals.settled for totals in self._counted())

    @property
    def begun(self) -> bool:
        """Whether any round was ever charged, by whatever run."""
        return bool(self._file.scalar("SELECT MAX(round) FROM row"))

    @property
    def identity(self) -> bytes:
        """Hash of row 0, which holds a random name: no two ledgers share it.

        Raises:
            LedgerError: the file holds no plan.
        """
        first = self._file.row(0)
        if first is None:
            raise LedgerError(f"the ledger {self.path} holds no plan; restore it from a backup")
        return first[5]

    @property
    def head(self) -> tuple[int, str]:
        """Sequence and hash of the newest row: kept elsewhere, they show a ledger that lost its tail.

        Raises:
            LedgerError: the file holds no plan.
        """
        newest = self._file.newest()
        if newest is None:
            raise LedgerError(f"the ledger {self.path} holds no plan; restore it from a backup")
        return newest[0], newest[5].hex()

    def require(self, sequence: int, digest: str) -> None:
        """Check that a row seen earlier is still there.

        Args:
            sequence: The row's number.
            digest: Its hash, 64 hex digits.

        Raises:
            LedgerError: it is not: the ledger was replaced, or lost rows.
        """
        found = self._file.row(sequence)
        if found is None or found[5].hex() != digest:
            raise LedgerError(
                f"the ledger {self.path} does not hold row {sequence} as this run left it: it was replaced, or rows are"
                " missing; restore it from a backup"
            )

    def rows(self) -> Iterator[Row]:
        """Every row, oldest first, as it stands in the file."""
        with self._file.explained():
            for sequence, kind, run, number, body, digest in self._file.stored():
                yield Row(sequence, kind, run, number, json.loads(body), digest)

    def runs(self) -> Iterator[tuple[int, Mapping[str, Any], Totals]]:
        """Every run's number, what it joined with (`run`, `accountant`), and its totals so far."""
        kind = "plan" if self._budget is None else "run"
        with self._file.explained():
            for _, _, run, _, body, _ in self._file.stored(kind):
                yield run, json.loads(body), self._totals(run)

    def verify(self) -> None:
        """Recompute the chain, the order of rows and the running totals.

        Raises:
            LedgerError: names the first row that does not fit what stands before it.
        """
        for finding in self.problems():
            raise LedgerError(f"{finding}; restore the ledger from a backup")

    def problems(self) -> Iterator[str]:
        """Everything that does not fit, one finding for each row.

        Raises:
            LedgerError: the file is damaged beneath its rows.
        """
        self._file.check_pages()
        for sequence, problem in problems(self._file.stored()):
            yield f"row {sequence} of the ledger {self.path} {problem}"

    @cached_property
    def _budget(self) -> SharedBudget | None:
        """What row 0 of a shared ledger promises."""
        first = next(self.rows(), None)
        if first is None or first.kind != "shared":
            return None
        try:
            return SharedBudget.from_description(first.body["budget"])
        except (KeyError, TypeError, AttributeError, ParameterError) as error:
            raise LedgerError(
                f"row 0 of the ledger {self.path} holds no budget ({error}); restore it from a backup"
            ) from error

    def _take_part(self, plan: Mapping[str, Any]) -> None:
        """Become the one run of this ledger, or one of those that share it."""
        if self._budget is None:
            self._same_run(plan)
            self._run = 1
            return
        self._can_join(self._budget, plan["accountant"].get("delta"))
        with self._file.writing():
            for _, _, run, _, body, _ in self._file.stored("run"):
                joined = json.loads(body)
                if joined["run"] == plan["run"] and joined["accountant"] == plan["accountant"]:
                    self._run = run
                    return
                self._budget.require_alike(plan["run"], joined["run"])
            newest = self._file.newest()
            spent = None if newest is None else Totals.of(json.loads(newest[4])).spent
            totals = Totals(spent=spent or self._budget.nothing)
            self._run = int(self._file.scalar("SELECT MAX(run) + 1 FROM row"))
            self._file.append("run", self._run, 0, {**plan, "totals": totals.as_json()})

    def _can_join(self, budget: SharedBudget, delta: object) -> None:
        if not isinstance(self._accountant, PlannedAccountant):
            raise LedgerError(
                f"the ledger {self.path} is shared, and this run's accountant does not tell its events; give the run a"
                " ledger of its own"
            )
        if delta != budget.delta:
            raise LedgerError(
                f"the ledger {self.path} is shared at delta {budget.delta:g}, and this run promises delta {delta};"
                " give the run the ledger's delta, or a ledger of its own"
            )
        budget.cost(*self._accountant.events(1))  # What the filters do not cover is refused here.

    def _charge(self, kind: str, number: int, before: Totals, body: Mapping[str, Any]) -> None:
        """Append a row with its totals; on a shared ledger charged to, or taken off, both filters."""
        accountant, run = self._attached()
        if self._budget is None or kind == "settle" or not isinstance(accountant, PlannedAccountant):
            self._file.append(kind, run, number, {**body, "totals": before.after(kind).as_json()})
            return
        first, last = before.charged, before.after(kind).charged
        earlier, later = (self._budget.cost(*accountant.events(count)) for count in (first, last))
        cost = later.plus(earlier.negative())
        after = before.after(kind, cost)
        if kind == "reserve" and after.spent is not None:
            self._budget.after(after.spent)
        self._file.append(kind, run, number, {**body, "cost": cost.as_json(), "totals": after.as_json()})

    def _close(self, number: int, kind: str, body: Mapping[str, Any]) -> None:
        _, run = self._attached()
        with self._file.writing():
            stored = self._file.rows_of(number)
            kinds = [kind for _, kind in stored]
            if kinds != ["reserve"]:
                raise LedgerError(
                    f"round {number} cannot take a {kind}: its rows are {', '.join(kinds) or 'none'}; it must be"
                    " reserved and still open"
                )
            if stored[0][0] != run:
                raise LedgerError(
                    f"round {number} is another run's; only the run that reserved it may {kind} it"
                )
            self._charge(kind, number, self._totals(run), body)

    def _totals(self, run: int) -> Totals:
        """A run's counts so far, and what all runs spent."""
        own, newest = self._file.newest(run=run), self._file.newest()
        if own is None or newest is None:
            raise LedgerError(f"the ledger {self.path} holds no plan; restore it from a backup")
        with self._file.explained():
            totals = Totals.of(json.loads(own[4]))
            spent = Totals.of(json.loads(newest[4])).spent
        return Totals(totals.charged, totals.settled, totals.refunded, spent)

    def _counted(self) -> list[Totals]:
        """Totals of the attached run, or of every run."""
        last = int(self._file.scalar("SELECT MAX(run) FROM row"))
        runs = range(1, last + 1) if self._run is None else (self._run,)
        return [self._totals(run) for run in runs]

    def _attached(self) -> tuple[Accountant, int]:
        if self._accountant is None or self._run is None:
            raise LedgerError("this ledger was opened for reading; attach it to its run to charge it")
        return self._accountant, self._run

    def _same_run(self, plan: Mapping[str, Any]) -> None:
        stored = next(self.rows()).body
        for part in ("run", "accountant"):
            odd = sorted(k for k in {*stored[part], *plan[part]} if stored[part].get(k) != plan[part].get(k))
            if odd:
                raise LedgerError(
                    f"the ledger {self.path} belongs to another run: it differs in {', '.join(odd)}; resume with"
                    " the same settings, or give another ledger"
                )


def _check(accountant: Accountant, rounds: int) -> None:
    """Refuse to charge a round that would pass one of a run's own budgets."""
    if isinstance(accountant, PlannedAccountant) and accountant.fits(rounds):
        return
    after = accountant.epsilons(rounds)
    for observer in ("readers", "server"):
        cost, budget = getattr(after, observer), getattr(accountant.budgets, observer)
        if cost > budget:
            raise BudgetExceeded(
                f"another round would bring epsilon against {'the ' * (observer == 'server')}{observer} to "
                f"{cost:.4g}, over the budget of {budget:.4g}; stop here, or plan a run with more noise",
                observer=observer,
                would_reach=cost,
                budget=budget,
            )
