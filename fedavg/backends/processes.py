"""Clients in several processes of this machine: started fresh ("spawn"), reached through pipes, nothing installed.

Step and clients' data are pickled once, when the run begins; a step must therefore be a function of a module, and a
script must start its run under `if __name__ == "__main__":`.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import weakref
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fedavg.backends.crew import Crew, Progress, WorkerLost
from fedavg.backends.rounds import Remote
from fedavg.backends.site import Reply, Site, serve
from fedavg.errors import BackendError, ParameterError
from fedavg.interrupts import ignored

__all__ = ["Processes"]

_START_SECONDS = 120.0


class Processes(Remote):
    """Play the clients in several processes of this machine; the same sums, bit for bit.

    Args:
        workers: How many; as many as there are processors to use when None.
        timeout: Seconds that a worker may take for one stage before it is given up; None waits for ever.
        progress: Called with `StageFigures` after each call of a worker.
        client_log: A folder for the clients' causes of failure, a file for each worker.

    Raises:
        ParameterError: no workers, or a folder that cannot be made.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        timeout: float | None = None,
        progress: Progress | None = None,
        client_log: str | Path | None = None,
    ) -> None:
        count = _processors() if workers is None else workers
        if count < 1:
            raise ParameterError(f"workers is {count}; give at least 1")
        if client_log is not None:
            try:
                Path(client_log).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ParameterError(
                    f"the folder of client_log {client_log} cannot be made: {error.strerror or error}; give another"
                ) from error
        crew = Crew(_Spawner(count, timeout, client_log), progress)
        super().__init__(crew)
        weakref.finalize(self, crew.stop)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Spawner:
    def __init__(self, count: int, timeout: float | None, client_log: str | Path | None) -> None:
        self._count, self._timeout, self._begun = count, timeout, 0
        self._log = None if client_log is None else Path(client_log)

    def shards(self, gpus: float, there: int) -> int:
        """See `Hirer`."""
        return self._count

    def hire(self, count: int, gpus: float, there: int) -> Sequence[_Process]:
        """See `Hirer`."""
        workers = []
        for _ in range(count):
            self._begun += 1
            log = None if self._log is None else self._log / f"worker-{self._begun}.jsonl"
            workers.append(_Process(f"process {self._begun}", log, self._timeout))
        return [worker for worker in workers if worker.ready()]

    def share(self, value: Any) -> Any:
        """See `Hirer`."""
        return value


class _Process:
    def __init__(self, name: str, log: Path | None, timeout: float | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, log), name=f"veilsum {name}", daemon=True)
        self._process.start()
        theirs.close()
        self.name = f"{name} (pid {self._process.pid})"
        self._timeout, self._waiting = timeout, False

    def ready(self) -> bool:
        """Wait until it has started."""
        try:
            return self._ours.poll(_START_SECONDS) and self._ours.recv() is None
        except (EOFError, OSError):
            self.stop()
            return False

    def send(self, method: str, *arguments: Any) -> None:
        """See `Worker`."""
        if self._waiting:
            self.receive()
        try:
            message = pickle.dumps((method, arguments), protocol=pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise BackendError(
                f"functions or data cannot be sent to another process ({error}); use functions and classes of a module"
                " instead of ones made inside a function or a notebook, or decorated in the script that runs; or"
                ' backend="ray"'
            ) from error
        try:
            self._ours.send_bytes(message)
        except OSError as error:
            raise WorkerLost(f"it could not be reached ({error})") from error
        self._waiting = True

    def receive(self) -> Reply:
        """See `Worker`."""
        try:
            if not self._ours.poll(self._timeout):
                raise WorkerLost(f"it took more than {self._timeout:g} seconds")
            reply = self._ours.recv()
        except (EOFError, OSError) as error:
            raise WorkerLost("it ended") from error
        self._waiting = False
        return reply if isinstance(reply, Reply) else Reply()

    def stop(self) -> None:
        """See `Worker`."""
        self._ours.close()
        self._process.kill()
        self._process.join()


def _work(connection: Connection, log: Path | None) -> None:
    """The process: calls come in, replies go out, until the other end closes."""
    ignored()
    site = Site(log)
    connection.send(None)
    while True:
        try:
            message = connection.recv_bytes()
            connection.send(serve(partial(_call, site, message)))
        except (EOFError, OSError):
            return


def _call(site: Site, message: bytes) -> Any:
    try:
        method, arguments = pickle.loads(message)  # noqa: S301  It comes through the pipe of the process that began this one.
    except (AttributeError, ImportError) as error:
        # Not in the error's own words: what is unpickled may raise it, with a client's value in them.
        raise BackendError(
            "a function or class of the run cannot be imported in another process; move it from the notebook, or from"
            ' what was typed in, to a module (a .py file) and import it; or backend="ray"'
        ) from error
    return getattr(site, method)(*arguments)
