"""The ledger: what was promised, reserved, settled and refunded, in an append-only file that shows an edit.

A ledger is one SQLite file. Its first row is the *plan* (everything the cost of a round follows from); then

    reserve   before anybody is invited: the round's whole cost, or nothing is written and `BudgetExceeded` is raised
    settle    after the sum: survivors and the hash of the released model
    refund    for a reserved round that ended without a sum before any unmasking share was answered

Invariants:

* a reservation counts as spent until it is refunded; one that was never settled (a crash) stays spent;
* every row holds the SHA-256 of the row before it, so an edited, deleted, swapped or inserted row shows;
* check and reservation are one transaction (`BEGIN IMMEDIATE`, synchronous FULL): two processes that share a ledger
  cannot overspend it, and a power cut leaves what was committed;
* no row tells who was drawn or how many.

What the chain cannot show: a ledger replaced whole, or restored from a backup. Keep the newest hash elsewhere.

Not here: what a round costs (the accountant that is passed in), the clock (timestamps are passed in).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dp.errors import BudgetExceeded, LedgerError
from dp.privacy import Epsilons

__all__ = ["Accountant", "Ledger", "Row"]

_VERSION = 1
_APPLICATION_ID = 0x56454C53  # "VELS"
_BUSY_SECONDS = 20.0
_SCHEMA = (
    "CREATE TABLE row (sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, round INTEGER NOT NULL, body TEXT NOT NULL,"
    " hash BLOB NOT NULL)",
    "CREATE TRIGGER no_update BEFORE UPDATE ON row BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON row BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)


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


@dataclass(frozen=True)
class Row:
    """One row as it stands: `body` is what its kind keeps; `hash` covers it and everything before it."""

    sequence: int
    kind: str
    round: int
    body: Mapping[str, Any]
    hash: bytes


class Ledger:
    """A ledger that is attached to one run: `reserve`, `settle`, `refund`, `spent`.

    Use `Ledger.attach` to create or continue one, `Ledger.open` to read one.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path | None, accountant: Accountant | None
    ) -> None:
        self._connection = connection
        self.path = path
        self._accountant = accountant

    @classmethod
    def attach(cls, path: str | Path | None, *, accountant: Accountant, run: Mapping[str, Any]) -> Ledger:
        """Create the ledger of a run, or continue it.

        Args:
            path: The file; None keeps the ledger in memory, where nothing outlives the process.
            accountant: What a round costs, and the budgets.
            run: What the run is, as JSON values; a ledger of another run is refused.

        Raises:
            LedgerError: the file is unreadable, unwritable, damaged, of a newer version, or another run's.
        """
        plan = _canonical({"run": run, "accountant": accountant.describe()})
        target = None if path is None else Path(path)
        ledger = cls(_connect(target, create=True), target, accountant)
        with ledger._writing():
            if not ledger._has_table():
                for statement in _SCHEMA:
                    ledger._connection.execute(statement)
                ledger._append("plan", 0, plan)
        ledger.verify()
        ledger._same_run(json.loads(plan))
        return ledger

    @classmethod
    def open(cls, path: str | Path) -> Ledger:
        """Open a ledger for reading.

        Raises:
            LedgerError: there is none, or it is damaged, of a newer version, or no ledger.
        """
        target = Path(path)
        if not target.is_file():
            raise LedgerError(f"there is no ledger at {target}; give the path of a run's ledger.sqlite")
        ledger = cls(_connect(target, create=False), target, None)
        with _explained(target):
            if not ledger._has_table():
                raise LedgerError(f"{target} is empty; restore it from a backup")
        return ledger

    def reserve(self, *, timestamp: float | None = None) -> int:
        """Charge one round before anybody is invited.

        Returns:
            The round's number, never used before in this ledger.

        Raises:
            BudgetExceeded: the round would pass a budget; nothing was written.
            LedgerError: the ledger cannot be written, or was opened for reading.
        """
        accountant = self._attached()
        with self._writing():
            after = accountant.epsilons(self.charged + 1)
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
            number = int(self._scalar("SELECT COALESCE(MAX(round), 0) + 1 FROM row"))
            self._append("reserve", number, _canonical({"time": timestamp}))
        return number

    def settle(
        self, number: int, *, survivors: int, model_hash: bytes, timestamp: float | None = None
    ) -> None:
        """Record that a reserved round gave a sum.

        Args:
            number: The round, reserved and neither settled nor refunded.
            survivors: Clients of the padded cohort whose input is in the sum.
            model_hash: 32 bytes naming the model that was released.
            timestamp: Seconds since the epoch, if the caller has a clock.

        Raises:
            LedgerError: the round is not open, or the ledger cannot be written.
        """
        self._close(number, "settle", {"survivors": survivors, "model": model_hash.hex(), "time": timestamp})

    def refund(self, number: int, *, reason: str, timestamp: float | None = None) -> None:
        """Take a reservation back: only while no share that unmasks was answered; the caller vouches for that.

        Raises:
            LedgerError: the round is not open, or the ledger cannot be written.
        """
        self._close(number, "refund", {"reason": reason, "time": timestamp})

    def spent(self) -> Epsilons:
        """Both epsilons of everything charged so far."""
        return self._attached().epsilons(self.charged)

    @property
    def charged(self) -> int:
        """Rounds reserved and not refunded."""
        return self._count("reserve") - self._count("refund")

    @property
    def aborted(self) -> int:
        """Rounds that stay charged without having given a sum: lost, or under way."""
        return self.charged - self._count("settle")

    @property
    def head(self) -> tuple[int, str]:
        """Sequence and hash of the newest row: kept elsewhere, they show a ledger that lost its tail."""
        with _explained(self.path):
            query = "SELECT sequence, hash FROM row ORDER BY sequence DESC LIMIT 1"
            sequence, digest = self._connection.execute(query).fetchone()
        return int(sequence), digest.hex()

    def require(self, sequence: int, digest: str) -> None:
        """Check that a row seen earlier is still there.

        Raises:
            LedgerError: it is not: the ledger was replaced, or lost rows.
        """
        found = self._connection.execute("SELECT hash FROM row WHERE sequence = ?", (sequence,)).fetchone()
        if found is None or found[0].hex() != digest:
            raise LedgerError(
                f"the ledger {self.path} does not hold row {sequence} as this run left it: it was replaced, or rows are"
                " missing; restore it from a backup"
            )

    def rows(self) -> Iterator[Row]:
        """Every row, oldest first, as it stands in the file."""
        with _explained(self.path):
            for sequence, kind, number, body, digest in self._stored():
                yield Row(sequence, kind, number, json.loads(body), digest)

    def verify(self) -> None:
        """Recompute the chain.

        Raises:
            LedgerError: names the first row that does not fit what stands before it.
        """
        before, order = bytes(32), _Order()
        with _explained(self.path):
            for expected, (sequence, kind, number, body, digest) in enumerate(self._stored()):
                if sequence != expected or digest != _link(before, expected, kind, number, body):
                    raise LedgerError(
                        f"row {expected} of the ledger {self.path} does not fit the row before it: it was edited"
                        " or moved, or a row is missing; restore the ledger from a backup"
                    )
                order.take(sequence, kind, number, self.path)
                before = digest
        if not order.planned:
            raise LedgerError(f"the ledger {self.path} holds no plan; restore it from a backup")

    def _stored(self) -> Iterator[tuple[int, str, int, str, bytes]]:
        query = "SELECT sequence, kind, round, body, hash FROM row ORDER BY sequence"
        for row in self._connection.execute(query):
            if tuple(map(type, row)) != (int, str, int, str, bytes):
                raise LedgerError(f"row {row[0]} of {self.path} is damaged; restore the ledger from a backup")
            yield row

    def _close(self, number: int, kind: str, body: Mapping[str, Any]) -> None:
        with self._writing():
            kinds = [
                kind
                for (kind,) in self._connection.execute("SELECT kind FROM row WHERE round = ?", (number,))
            ]
            if kinds != ["reserve"]:
                raise LedgerError(
                    f"round {number} cannot take a {kind}: its rows are {', '.join(kinds) or 'none'}; it must be"
                    " reserved and still open"
                )
            self._append(kind, number, _canonical(body))

    def _append(self, kind: str, number: int, body: str) -> None:
        sequence = int(self._scalar("SELECT COUNT(*) FROM row"))
        before = (
            self._scalar("SELECT hash FROM row ORDER BY sequence DESC LIMIT 1") if sequence else bytes(32)
        )
        self._connection.execute(
            "INSERT INTO row VALUES (?, ?, ?, ?, ?)",
            (sequence, kind, number, body, _link(before, sequence, kind, number, body)),
        )

    def _attached(self) -> Accountant:
        if self._accountant is None:
            raise LedgerError("this ledger was opened for reading; attach it to its run to charge it")
        return self._accountant

    def _same_run(self, plan: Mapping[str, Any]) -> None:
        stored = next(self.rows()).body
        for part in ("run", "accountant"):
            odd = sorted(k for k in {*stored[part], *plan[part]} if stored[part].get(k) != plan[part].get(k))
            if odd:
                raise LedgerError(
                    f"the ledger {self.path} belongs to another run: it differs in {', '.join(odd)}; resume with"
                    " the same settings, or give another ledger"
                )

    def _has_table(self) -> bool:
        return bool(self._scalar("SELECT COUNT(*) FROM sqlite_master WHERE name = 'row'"))

    def _count(self, kind: str) -> int:
        return int(self._scalar("SELECT COUNT(*) FROM row WHERE kind = ?", kind))

    def _scalar(self, query: str, *values: object) -> Any:
        with _explained(self.path):
            return self._connection.execute(query, values).fetchone()[0]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: everything inside is kept, or nothing."""
        with _explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


class _Order:
    """Which kinds of row may follow which, over a whole ledger."""

    def __init__(self) -> None:
        self.planned = False
        self._open: set[int] = set()
        self._last = 0

    def take(self, sequence: int, kind: str, number: int, path: Path | None) -> None:
        if kind == "plan":
            fits = sequence == 0
            self.planned = True
        elif kind == "reserve":
            fits = self.planned and number > self._last
            self._last = number
            self._open.add(number)
        else:
            fits = kind in ("settle", "refund") and number in self._open
            self._open.discard(number)
        if not fits:
            raise LedgerError(f"row {sequence} of the ledger {path} is a {kind} that cannot stand there")


def _connect(path: Path | None, *, create: bool) -> sqlite3.Connection:
    with _explained(path):
        if path is None:
            connection = sqlite3.connect(":memory:", isolation_level=None)
        else:
            mode = "rwc" if create else "ro"
            uri = path.absolute().as_uri() + f"?mode={mode}"
            connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        kind = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    if tables and kind != _APPLICATION_ID:
        raise LedgerError(f"{path} is a database, but no ledger; give another path")
    if version > _VERSION:
        raise LedgerError(
            f"the ledger {path} is of version {version}, newer than this library's {_VERSION}; use a newer library"
        )
    return connection


@contextmanager
def _explained(path: Path | None) -> Iterator[None]:
    """SQLite's errors as one sentence each."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise LedgerError(
            f"the ledger {path} cannot be used ({error}); check the folder, its rights and space"
        ) from error
    except (sqlite3.DatabaseError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LedgerError(
            f"{path} is no ledger, or a damaged one ({error}); restore it from a backup"
        ) from error


def _canonical(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _link(before: bytes, sequence: int, kind: str, number: int, body: str) -> bytes:
    """SHA-256 over length-prefixed fields, so that no two rows share an encoding."""
    fields = (before, sequence.to_bytes(8, "big"), kind.encode(), number.to_bytes(8, "big"), body.encode())
    return hashlib.sha256(b"".join(len(field).to_bytes(8, "big") + field for field in fields)).digest()
