"""How often each client has contributed: the counter behind the cap, kept beside the ledger it belongs to.

The server's statement counts a client's own participations, so the cap must hold over everything charged to one
ledger: over restarts, other folders, several runs and several processes at once. In a deployment each client counts for
itself; where one process plays them all, this file is their memory. It tells who was drawn, so it is the operator's
alone.

Beside a ledger `L.sqlite` lie `L.participations.sqlite` and `L.participations.key`. A client stands in the file under a
pseudonym, HMAC-SHA256(key, id), so that neither a copy of the file without the key nor one with the ledger tells who
took part; the key is 32 bytes from the operating system, readable by its owner alone. Only clients that took part have
a row, and a claim costs what its cohort is large.

Invariants: counts are raised before anybody is invited, and never lowered; checking the cap and counting are one
transaction; a ledger that has charged rounds is not continued without its counts, with another ledger's, with another
key, or with a copy of them that lacks a settled round: the file holds how often each run counted, which is never less
than it settled. A copy that lacks only rounds that gave no sum cannot be told from one that was not yet written.

Not here: the draw (`dp.cohorts`), the charge (`dp.ledger`).
"""

from __future__ import annotations

import hmac
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from dp import checks
from dp.cohorts import Draw
from dp.errors import LedgerError, ParameterError
from dp.ledger import Ledger

__all__ = ["ParticipationCounts"]

_BUSY_SECONDS = 20.0
_APPLICATION_ID = 0x56454C50
"""`VELP`."""
_KEY_BYTES = 32
_SCHEMA = (
    "CREATE TABLE belongs (ledger BLOB NOT NULL, key_check BLOB NOT NULL)",
    "CREATE TABLE participation (client BLOB PRIMARY KEY, count INTEGER NOT NULL CHECK (typeof(count) = 'integer'))"
    " WITHOUT ROWID",
    "CREATE TABLE claim (run INTEGER PRIMARY KEY, rounds INTEGER NOT NULL)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
)


class ParticipationCounts:
    """How often each client contributed to the rounds of a ledger, by whatever run.

    Args:
        ledger: The ledger; in memory, its counts are in memory, too.

    Raises:
        LedgerError: the ledger has charged rounds, and file or key are missing, damaged or another ledger's; or they
            cannot be written.

    >>> from dp import Ledger, SharedBudget
    >>> counts = ParticipationCounts(Ledger.share(None, budget=SharedBudget(delta=1e-6, server_epsilon=9.0)))
    >>> draw = Draw(np.arange(4), np.array([True, False, True, False]))
    >>> [counts.claim(draw, ["ann", "cid"], cap=2).contributes.tolist() for _ in range(3)][-1]
    [False, False, False, False]
    >>> counts.count("ann"), counts.count("bob")
    (2, 0)
    """

    def __init__(self, ledger: Ledger) -> None:
        path = ledger.path
        self.path = None if path is None else path.with_name(f"{path.stem}.participations.sqlite")
        key_path = None if path is None else path.with_name(f"{path.stem}.participations.key")
        for needed in (self.path, key_path):
            if ledger.begun and needed is not None and not needed.exists():
                raise LedgerError(
                    f"rounds were charged, but who took part in them is not at {needed}; restore it from a backup"
                )
        self._key = os.urandom(_KEY_BYTES) if key_path is None else _key(key_path)
        self._ledger = ledger
        with self._explained():
            self._connection = sqlite3.connect(
                ":memory:" if self.path is None else self.path, timeout=_BUSY_SECONDS, isolation_level=None
            )
            self._connection.execute("PRAGMA synchronous = FULL")
            self._check_kind()
            with self._writing():
                belongs = self._belongs(ledger)
        if belongs[0] != ledger.identity:
            raise LedgerError(
                f"{self.path} counts for another ledger; restore the one beside {path} from a backup"
            )
        if not hmac.compare_digest(belongs[1], self._pseudonym(b"check")):
            raise LedgerError(f"{key_path} is not the key of {self.path}; restore it from a backup")

    def count(self, client_id: Any) -> int:
        """How often the client `client_id` was drawn to contribute."""
        query = "SELECT count FROM participation WHERE client = ?"
        with self._explained():
            found = self._connection.execute(query, (self._pseudonym(_id_bytes(client_id)),)).fetchone()
        return 0 if found is None else int(found[0])

    def claim(self, draw: Draw, client_ids: Sequence[Any], *, cap: int | None) -> Draw:
        """Count a cohort's contributors, before anybody is invited; those at their cap become padding.

        Args:
            draw: Who is invited, and who was drawn to contribute.
            client_ids: Ids of those who were, in the order of `draw.invited`: strings, bytes or whole numbers.
            cap: Most rounds that a client may contribute to, over everything on the ledger; None for no cap.

        Returns:
            The same cohort, with as many contributors or fewer.

        Raises:
            ParameterError: there are not as many ids as contributors, two are alike, or one is of another kind.
            LedgerError: the counts cannot be read or written, or are older than the ledger; nothing was counted.
        """
        clients = [self._pseudonym(_id_bytes(client_id)) for client_id in client_ids]
        positions = np.flatnonzero(draw.contributes)
        if len(clients) != len(positions) or len(set(clients)) != len(clients):
            raise ParameterError(
                f"{len(set(clients))} different ids were given for {len(positions)} contributors; give each one's own."
            )
        most = None if cap is None else checks.integer("cap", cap, 1)
        contributes = draw.contributes.copy()
        raised = (
            "INSERT INTO participation VALUES (?, 1) ON CONFLICT (client) DO UPDATE SET count = count + 1"
        )
        with self._explained(), self._writing():
            self._count_claim()
            if most is not None:
                spent = [self._stored(client) >= most for client in clients]
                contributes[positions] = np.logical_not(spent)
                clients = [client for client, over in zip(clients, spent, strict=True) if not over]
            self._connection.executemany(raised, [(client,) for client in clients])
        return Draw(draw.invited, contributes)

    def _count_claim(self) -> None:
        """Note that the run counts once more; refuse if rounds were settled that are not counted here."""
        run, settled = self._ledger.run or 0, self._ledger.charged - self._ledger.aborted
        found = self._connection.execute("SELECT rounds FROM claim WHERE run = ?", (run,)).fetchone()
        counted = 0 if found is None else int(found[0])
        if counted < settled:
            raise LedgerError(
                f"{self.path} holds who took part in {counted} rounds, and {settled} were settled: it is an older copy;"
                " restore the newest one"
            )
        self._connection.execute("INSERT OR REPLACE INTO claim VALUES (?, ?)", (run, counted + 1))

    def _stored(self, client: bytes) -> int:
        found = self._connection.execute(
            "SELECT count FROM participation WHERE client = ?", (client,)
        ).fetchone()
        return 0 if found is None else int(found[0])

    def _pseudonym(self, client: bytes) -> bytes:
        return hmac.digest(self._key, client, "sha256")

    def _check_kind(self) -> None:
        tables = self._connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        kind = self._connection.execute("PRAGMA application_id").fetchone()[0]
        if tables and kind != _APPLICATION_ID:
            raise LedgerError(f"{self.path} is a database, but no counts; restore the counts from a backup")
        found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise LedgerError(f"{self.path} is damaged ({found.splitlines()[-1]}); restore it from a backup")

    def _belongs(self, ledger: Ledger) -> tuple[bytes, bytes]:
        """Whose counts these are: the ledger's identity, and what only its key gives."""
        if not self._connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
            if ledger.begun:
                raise LedgerError(f"rounds were charged, but {self.path} is empty; restore it from a backup")
            for statement in _SCHEMA:
                self._connection.execute(statement)
            mine = (ledger.identity, self._pseudonym(b"check"))
            self._connection.execute("INSERT INTO belongs VALUES (?, ?)", mine)
        stored = self._connection.execute("SELECT ledger, key_check FROM belongs").fetchone()
        if stored is None:
            raise LedgerError(f"{self.path} counts for nobody; restore it from a backup")
        return stored[0], stored[1]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: everything inside is kept, or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(
                f"the participation counts at {self.path} cannot be used ({error}); check the file and its rights"
            ) from error


def _key(path: Path) -> bytes:
    """The key in a file, made if there is none: whole or not at all, and once, however many processes ask."""
    try:
        if not path.exists():
            beside = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(os.urandom(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(beside, path)
            except FileExistsError:  # Another process was first: its key is the one.
                pass
            finally:
                beside.unlink()
            _keep_names(path.parent)
        key = path.read_bytes()
    except OSError as error:
        raise LedgerError(
            f"the key of the participation counts at {path} cannot be used ({error.strerror}); check the folder and its"
            " rights"
        ) from error
    if len(key) != _KEY_BYTES:
        raise LedgerError(
            f"{path} holds {len(key)} bytes, and a key has {_KEY_BYTES}; restore it from a backup"
        )
    return key


def _keep_names(folder: Path) -> None:
    """Make a new name in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _id_bytes(client_id: Any) -> bytes:
    """A client's id as bytes; ids of different kinds never share them."""
    if isinstance(client_id, str):
        return b"text:" + client_id.encode()
    if isinstance(client_id, bytes):
        return b"bytes:" + client_id
    if type(client_id) is int or (isinstance(client_id, Integral) and not isinstance(client_id, bool)):
        return b"number:" + str(int(client_id)).encode()
    raise ParameterError(
        f"A client's id is of type {type(client_id).__name__}; use strings, bytes or whole numbers."
    )
