"""Single use on disk: one input is summed in one round of one task, whatever crashes, restarts or forks.

Two sums that differ in who took part, over one input, give that input away (So et al. 2021 for what many
rounds leak; a retry is the shortest case). So a client claims its round durably before its masked input leaves.
Invariants:

- the key is (data set, task, round): no attempt and no nonce, so a restarted server gets nothing new;
- a round number not above the last one recorded for the data set and task is refused, whatever its order;
- a round number far above the last one is refused, so that no single round uses up a task's numbers;
- insert, participation counter and budget are one transaction (`BEGIN IMMEDIATE`, `synchronous=FULL`), which
  two processes cannot both pass; if it cannot be committed, the round is refused;
- a crash before the commit costs nothing; after it the round is spent, sent or not. A retry is a new round
  number with fresh noise and a fresh charge, and both are charged.

What this cannot see: a folder restored from a backup, or cloned with its machine. Then the same round passes
again; keep the folder out of backups of the data.

Not here: anything about noise (the cost of a round is a number given by the application).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from secagg.errors import ParameterError, RecordError

__all__ = ["Records"]

_FILE = "single-use.sqlite3"
_BUSY_SECONDS = 20.0
_MAX_STEP = 2**32
_TABLE = (
    "CREATE TABLE IF NOT EXISTS used ("
    " data_set TEXT NOT NULL, task TEXT NOT NULL, round INTEGER NOT NULL, cost REAL NOT NULL,"
    " PRIMARY KEY (data_set, task, round)) WITHOUT ROWID"
)


class Records:
    """The record of one data set's rounds, in a folder of the caller's; give it to `Client(single_use=...)`.

    Guarantee: on one file system that keeps what it acknowledged, `claim` returns at most once for each data
    set, task and round, over all processes and restarts.

    Args:
        folder: an existing folder that outlives the process.
        data_set: what an input is computed from; one name for one set of people's data.
        cost: what a round costs of the budget, in the application's unit.
        budget: most that all rounds of this data set may cost; None for no limit.
        max_participations: most rounds this data set may take part in; None for no limit.
        max_step: most that a round may be above the last one of its task; None where another record, claimed before,
            holds every one of these rounds and limits their steps.

    Raises:
        ParameterError: the folder does not exist, or a negative limit.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     records = Records(folder, data_set="mine", max_participations=2)
    ...     records.claim(task="demo", round=4)
    ...     records.participations
    1
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        data_set: str,
        cost: float = 0.0,
        budget: float | None = None,
        max_participations: int | None = None,
        max_step: int | None = _MAX_STEP,
    ) -> None:
        if not Path(folder).is_dir():
            raise ParameterError(f"there is no folder {folder}; make it before the first round")
        if not (cost >= 0 and (budget is None or budget >= 0) and (max_participations or 0) >= 0):
            raise ParameterError(
                f"cost {cost}, budget {budget}, {max_participations} rounds: none may be negative"
            )
        self._path = Path(folder) / _FILE
        self._data_set = data_set
        self._cost = float(cost)
        self._budget = budget
        self._max_participations = max_participations
        self._max_step = max_step

    @property
    def participations(self) -> int:
        """How many rounds of this data set are spent, over all tasks.

        Raises:
            RecordError: the record cannot be read.
        """
        with self._transaction() as connection:
            return self._spent(connection)[0]

    def claim(self, *, task: str, round: int) -> None:
        """Spend a round: durable when this returns, untouched when it raises.

        Args:
            task: name of the task.
            round: number of the round, above every earlier one of the task, by 2^32 at most (of a first round:
                below 2^32), so that whoever names the number cannot shut the task after one round. A task whose
                numbers were driven too far goes on under another name; budget and participations count all tasks.

        Raises:
            RecordError: the round is not above the last one, or too far; a limit is reached; or the disk refuses.
        """
        with self._transaction() as connection:
            (last,) = connection.execute(
                "SELECT MAX(round) FROM used WHERE data_set = ? AND task = ?", (self._data_set, task)
            ).fetchone()
            if last is not None and round <= last:
                raise RecordError(
                    f"round {round} of task {task!r} is not above round {last}, which this data set already "
                    "took part in; a retry needs a new round number and fresh noise"
                )
            if self._max_step is not None and round - (-1 if last is None else last) > self._max_step:
                raise RecordError(
                    f"round {round} of task {task!r} is more than {self._max_step} above "
                    f"{'the start' if last is None else f'round {last}'}; number rounds from 0 up, in small steps"
                )
            self._refuse_excess(connection)
            connection.execute(
                "INSERT INTO used VALUES (?, ?, ?, ?)", (self._data_set, task, round, self._cost)
            )

    def _refuse_excess(self, connection: sqlite3.Connection) -> None:
        count, cost = self._spent(connection)
        if self._max_participations is not None and count >= self._max_participations:
            raise RecordError(
                f"this data set took part in {count} rounds, and its limit is {self._max_participations}; it joins no"
                " other round"
            )
        if self._budget is not None and cost + self._cost > self._budget:
            raise RecordError(
                f"{cost} of the budget of {self._budget} is spent and a round costs {self._cost}; this data set"
                " joins no other round"
            )

    def _spent(self, connection: sqlite3.Connection) -> tuple[int, float]:
        count, cost = connection.execute(
            "SELECT COUNT(*), TOTAL(cost) FROM used WHERE data_set = ?", (self._data_set,)
        ).fetchone()
        return int(count), float(cost)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One immediate transaction on a connection of its own, so that nothing is shared with a fork."""
        try:
            with closing(
                sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            ) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    connection.execute(_TABLE)
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise RecordError(
                f"the single-use record {self._path} cannot be written: {error}; check the folder, its rights and space"
            ) from error
