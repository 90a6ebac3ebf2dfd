"""A ledger's file: one SQLite table of chained rows, and how it is opened without ever harming it.

Every row holds the SHA-256 of itself and of the row before it, so that an edited, deleted, swapped or inserted row
shows. The format is written out in `dp.ledger`.

Invariants: a file that is no ledger, damaged, locked or of another version is refused in one sentence and left as it
was found; opening for reading writes nothing, not even where a crash left a transaction to take back: that is done in
a copy.

Not here: what the rows mean (`dp.ledger`), whether they fit together (`dp.ledger_chain`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp.errors import LedgerError

__all__ = ["VERSION", "LedgerFile", "Row", "StoredRow", "canonical", "link"]

VERSION = 2
APPLICATION_ID = 0x56454C53
"""`VELS`."""
BUSY_SECONDS = 20.0
"""How long a writer waits for another one's transaction."""

_COLUMNS = "sequence, kind, run, round, body, hash"
_SCHEMA = (
    "CREATE TABLE row (sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, run INTEGER NOT NULL,"
    " round INTEGER NOT NULL, body TEXT NOT NULL, hash BLOB NOT NULL)",
    "CREATE INDEX row_of_run ON row (run)",
    "CREATE INDEX row_of_round ON row (round)",
    "CREATE TRIGGER no_update BEFORE UPDATE ON row BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON row BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)

StoredRow = tuple[int, str, int, int, str, bytes]
"""A row's columns: sequence, kind, run, round, body, hash."""


@dataclass(frozen=True)
class Row:
    """One row as it stands: `body` is what its kind keeps; `hash` covers it and everything before it.

    Attributes:
        sequence: Place in the ledger; the plan is row 0.
        kind: What it records.
        run: Which run of a shared ledger it belongs to.
        round: Number of the round, or 0.
        body: What its kind keeps.
        hash: 32 bytes over this row and everything before it.
    """

    sequence: int
    kind: str
    run: int
    round: int
    body: Mapping[str, Any]
    hash: bytes


class LedgerFile:
    """The table of one ledger.

    Args:
        path: The file; None keeps it in memory.
        writable: Whether rows may be added; a missing file is then made.

    Raises:
        LedgerError: It cannot be used: missing, damaged, foreign, locked, of another version.
    """

    def __init__(self, path: Path | None, *, writable: bool) -> None:
        self.path = path
        with self.explained():
            self._connection = self._writable() if writable else self._readable()
            self._connection.execute("PRAGMA synchronous = FULL")
            self._check_format()

    @property
    def is_empty(self) -> bool:
        """Whether there is no row, nor a table for any: a new file, or one whose first write was lost."""
        return not self.scalar("SELECT COUNT(*) FROM sqlite_master")

    def make_table(self) -> None:
        """Make the empty table, inside a transaction."""
        for statement in _SCHEMA:
            self._connection.execute(statement)

    def append(self, kind: str, run: int, number: int, body: Mapping[str, Any]) -> None:
        """Add a row, inside a transaction."""
        newest = self.newest()
        sequence, before = (0, bytes(32)) if newest is None else (newest[0] + 1, newest[5])
        text = canonical(body)
        row = (sequence, kind, run, number, text, link(before, sequence, kind, run, number, text))
        self._connection.execute("INSERT INTO row VALUES (?, ?, ?, ?, ?, ?)", row)

    def newest(self, *, run: int | None = None) -> StoredRow | None:
        """The last row, or the last of one run."""
        which = "" if run is None else "WHERE run = ?"
        query = f"SELECT {_COLUMNS} FROM row {which} ORDER BY sequence DESC LIMIT 1"
        with self.explained():
            found: StoredRow | None = self._connection.execute(
                query, () if run is None else (run,)
            ).fetchone()
        return found

    def row(self, sequence: int) -> StoredRow | None:
        """One row, or None."""
        query = f"SELECT {_COLUMNS} FROM row WHERE sequence = ?"
        with self.explained():
            found: StoredRow | None = self._connection.execute(query, (sequence,)).fetchone()
        return found

    def stored(self, kind: str | None = None) -> Iterator[StoredRow]:
        """Every row, oldest first, as it stands in the file, or those of one kind."""
        which = "" if kind is None else "WHERE kind = ?"
        query = f"SELECT {_COLUMNS} FROM row {which} ORDER BY sequence"
        with self.explained():
            yield from self._connection.execute(query, () if kind is None else (kind,))

    def check_pages(self) -> None:
        """Check the database beneath the rows: pages, indexes, order.

        Raises:
            LedgerError: it is damaged.
        """
        found = self.scalar("PRAGMA integrity_check(1)")
        if found != "ok":
            raise LedgerError(f"{self.path} is damaged ({found.splitlines()[-1]}); restore it from a backup")

    def rows_of(self, number: int) -> list[tuple[int, str]]:
        """Run and kind of a round's rows."""
        query = "SELECT run, kind FROM row WHERE round = ? ORDER BY sequence"
        with self.explained():
            return self._connection.execute(query, (number,)).fetchall()

    def scalar(self, query: str, *values: object) -> Any:
        """The one value that a query gives."""
        with self.explained():
            return self._connection.execute(query, values).fetchone()[0]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: everything inside is kept, or nothing."""
        with self.explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """SQLite's errors as one sentence each."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise LedgerError(
                    f"the ledger {self.path} has been locked by another process for {BUSY_SECONDS:g} seconds; try again"
                    " when that is done"
                ) from error
            raise LedgerError(
                f"the ledger {self.path} cannot be used ({error}); check the folder, its rights and space"
            ) from error
        except (sqlite3.DatabaseError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise LedgerError(
                f"{self.path} is no ledger, or a damaged one ({error}); restore it from a backup"
            ) from error

    def _writable(self) -> sqlite3.Connection:
        return _connect(":memory:" if self.path is None else _uri(self.path, "rwc"))

    def _readable(self) -> sqlite3.Connection:
        path = self.path
        if path is None or not path.is_file():
            raise LedgerError(f"there is no ledger at {path}; give the path of a run's ledger.sqlite")
        if path.stat().st_size == 0:
            raise LedgerError(f"{path} is empty; restore it from a backup")
        connection = _connect(_uri(path, "ro"))
        try:
            connection.execute("SELECT COUNT(*) FROM sqlite_master")
        except sqlite3.OperationalError as error:
            if not _journal(path).exists() or "locked" in str(error):
                raise
            # A writer was killed in the middle of a transaction, which has to be taken back before anything is read.
            connection.close()
            return _recovered(path)
        return connection

    def _check_format(self) -> None:
        version, kind = self.scalar("PRAGMA user_version"), self.scalar("PRAGMA application_id")
        if self.is_empty and version == kind == 0:
            return
        if self.is_empty and kind == APPLICATION_ID:
            raise LedgerError(f"the ledger {self.path} holds no rows any more; restore it from a backup")
        if kind != APPLICATION_ID:
            raise LedgerError(f"{self.path} is a database, but no ledger; give another path")
        if version != VERSION:
            age = "newer" if version > VERSION else "older"
            raise LedgerError(
                f"the ledger {self.path} is of version {version}, {age} than this library's {VERSION}; use the library"
                " that wrote it, or give another path"
            )


def canonical(body: Mapping[str, Any]) -> str:
    """A body's one text: JSON, keys sorted, no spaces."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def link(before: bytes, sequence: int, kind: str, run: int, number: int, body: str) -> bytes:
    """SHA-256 over length-prefixed fields, so that no two rows share an encoding."""
    numbers = (value.to_bytes(8, "big", signed=True) for value in (sequence, run, number))
    fields = (before, kind.encode(), body.encode(), *numbers)
    return hashlib.sha256(b"".join(len(field).to_bytes(8, "big") + field for field in fields)).digest()


def _journal(path: Path) -> Path:
    """Where SQLite keeps what a transaction overwrites, until it is committed."""
    return path.with_name(f"{path.name}-journal")


def _uri(path: Path, mode: str) -> str:
    return path.absolute().as_uri() + f"?mode={mode}"


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=uri != ":memory:", timeout=BUSY_SECONDS, isolation_level=None)


def _recovered(path: Path) -> sqlite3.Connection:
    """A crashed writer's file as it was before its last transaction, in memory; the file itself is left alone."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        try:
            shutil.copyfile(path, copy)
            shutil.copyfile(_journal(path), _journal(copy))
        except OSError as error:
            raise LedgerError(
                f"the ledger {path} cannot be read ({error.strerror}); check the folder and its rights"
            ) from error
        source, memory = _connect(_uri(copy, "rw")), sqlite3.connect(":memory:", isolation_level=None)
        source.backup(memory)
        source.close()
    return memory
