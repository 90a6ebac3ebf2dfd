"""How often each client has contributed: the counter behind the cap, kept beside the ledger it belongs to.

The server's statement counts a client's own participations, so the cap must hold over everything charged to one
ledger: over restarts, other folders, and several processes at once. In a deployment each client counts for itself;
where one process plays them all, this file is their memory. It tells who was drawn, so it is the operator's alone.

Invariants: counts are raised before anybody is invited, and never lowered; drawing and counting are one transaction; a
ledger that has charged rounds is not continued without its counts.

Not here: the draw (`dp.cohorts`), the charge (`dp.ledger`).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp.cohorts import Draw
from dp.errors import LedgerError

__all__ = ["Participations"]

_BUSY_SECONDS = 20.0


class Participations:
    """Counts of one population, in a SQLite file; positions are those of the ids it was opened with.

    Args:
        path: The file, made if missing; None keeps the counts in memory.
        client_ids: The population in its order; their hash is pinned, so that counts never move to other clients.
        begun: Whether anything was charged before: then the file must already be there.

    Raises:
        LedgerError: the file is missing though rounds were charged, belongs to other clients, is damaged, or cannot be
            written.

    >>> counts = Participations(None, range(4), begun=False)
    >>> draw = Draw(np.arange(4), np.array([True, False, True, False]))
    >>> _ = counts.claim(lambda before: draw)
    >>> counts.counts().tolist()
    [1, 0, 1, 0]
    """

    def __init__(self, path: Path | None, client_ids: Sequence[Any], *, begun: bool) -> None:
        self.path = path
        if begun and (path is None or not path.exists()):
            raise LedgerError(
                f"rounds were charged, but who took part in them is not at {path}; restore that file from a backup"
            )
        digest = hashlib.sha256("\0".join(map(repr, client_ids)).encode()).digest()
        with self._explained():
            self._connection = sqlite3.connect(
                ":memory:" if path is None else path, timeout=_BUSY_SECONDS, isolation_level=None
            )
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS participation (clients BLOB PRIMARY KEY, counts BLOB NOT NULL)"
            )
            fresh = np.zeros(len(client_ids), np.int64).tobytes()
            self._connection.execute("BEGIN IMMEDIATE")
            stored = self._connection.execute("SELECT clients, counts FROM participation").fetchall()
            if not stored:
                self._connection.execute("INSERT INTO participation VALUES (?, ?)", (digest, fresh))
            self._connection.execute("COMMIT")
        if stored and (stored[0][0] != digest or len(stored[0][1]) != len(fresh)):
            raise LedgerError(
                f"{path} counts other clients, or the same in another order; give those it was begun with"
            )

    def counts(self) -> NDArray[np.int64]:
        """How often each client was drawn to contribute, shape (population,)."""
        with self._explained():
            (stored,) = self._connection.execute("SELECT counts FROM participation").fetchone()
        return np.frombuffer(stored, np.int64).copy()

    def claim(self, draw: Callable[[NDArray[np.int64]], Draw]) -> Draw:
        """Draw a cohort knowing the counts, and count its contributors, before anybody else can draw.

        Args:
            draw: Called with the counts so far.

        Returns:
            What `draw` returned, counted.
        """
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                counts = self.counts()
                drawn = draw(counts)
                counts[drawn.invited[drawn.contributes]] += 1
                self._connection.execute("UPDATE participation SET counts = ?", (counts.tobytes(),))
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        return drawn

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(
                f"the participation counts at {self.path} cannot be used ({error}); check the file and its rights"
            ) from error
