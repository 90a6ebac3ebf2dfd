"""The workers of a run, who of them holds which clients, and what becomes of it when one is lost.

Clients are cut into as many shards as there are workers: the client at position p is in shard p % shards, in every
round, so that its data travels once. A worker that is lost takes its clients out of the present round; before the next
one it is replaced, or its shards go to others.

Not here: how workers are started and reached (`fedavg.backends.processes`, `fedavg.backends.ray`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import secagg
from fedavg.backends.site import Reply
from fedavg.client_work import Population
from fedavg.errors import BackendError

__all__ = ["Crew", "Hirer", "StageFigures", "Worker", "WorkerLost"]

_operator_logger = logging.getLogger("fedavg.operator")


class WorkerLost(BackendError):
    """A worker died, cannot be reached, or took too long."""


@dataclass(frozen=True)
class StageFigures:
    """What one worker took for one call: operational figures, not noised, for whoever runs the workers.

    Attributes:
        round: Number of the round; 0 while the run is prepared.
        call: What was asked: "employ", "hold", "open", "trust", a stage of the protocol, or "add".
        worker: The worker's name: where it runs.
        clients: For how many clients.
        seconds: How long it took on the worker.
        cpu_seconds: CPU time of it.
        peak_rss_mb: The most memory the worker has held so far, in 2^20 bytes.
    """

    round: int
    call: str
    worker: str
    clients: int
    seconds: float
    cpu_seconds: float
    peak_rss_mb: float


Progress = Callable[[StageFigures], object]


class Worker(Protocol):
    """A `fedavg.backends.site.Site` somewhere else; one call at a time."""

    name: str

    def send(self, method: str, *arguments: Any) -> None:
        """Begin a call. Raises `WorkerLost`, or `BackendError` where an argument cannot travel."""
        ...

    def receive(self) -> Reply:
        """Wait for what it gives. Raises `WorkerLost`."""
        ...

    def stop(self) -> None:
        """End it, now; any number of times."""
        ...


class Hirer(Protocol):
    """Starts workers, and brings what many of them are told to where they are."""

    def shards(self, gpus: float, there: int) -> int:
        """Into how many shards the population is cut: how many workers are wanted, where some are there already."""
        ...

    def hire(self, count: int, gpus: float, there: int) -> Sequence[Worker]:
        """Start so many workers beside those that are there, or fewer where there is no room.

        Args:
            count: How many.
            gpus: How many GPUs the run's functions ask for on each worker.
            there: How many workers there are.
        """
        ...

    def share(self, value: Any) -> Any:
        """What to send in place of a value that every worker is told."""
        ...


class Crew:
    """Workers, and which shard each of them holds."""

    def __init__(self, hirer: Hirer, progress: Progress | None = None) -> None:
        self.hirer = hirer
        self._progress = progress
        self._workers: list[Worker] = []
        self._owners: dict[int, Worker] = {}
        self._count = 1
        self._cause = "none could be started"
        self._run: tuple[Any, ...] | None = None  # What is kept, then the population.

    def staff(self, kept: tuple[Any, ...], clients: Population, *, number: int = 0) -> None:
        """See to it that every shard of the population has a worker that holds it.

        Raises:
            BackendError: no worker could be started, or functions or data cannot travel.
        """
        if self._run is None or [*map(id, self._run)] != [id(item) for item in (*kept, clients)]:
            self._begin(kept, clients, number)
        if missing := self._count - len(self._workers):
            self._employ(self.hirer.hire(missing, _gpus(kept), len(self._workers)), number)
        self._require_anybody()
        orphans = [shard for shard in range(self._count) if shard not in self._owners]
        for shard in orphans:
            held = list(self._owners.values())
            self._owners[shard] = min(self._workers, key=held.count)
        for shard in orphans:
            if shard in self._owners:
                part = clients.part(range(shard, len(clients), self._count))
                self.call([(self._owners[shard], "hold", (shard, part), len(part))], number=number)
        self._require_anybody()

    def _require_anybody(self) -> None:
        if not self._workers:
            raise BackendError(f"no worker is left: {self._cause}; see the workers' own logs")

    def _begin(self, kept: tuple[Any, ...], clients: Population, number: int) -> None:
        """Take up another run, with the workers that are there if they suit it."""
        if self._run is not None and _gpus(self._run) != _gpus(kept):
            self.stop()
        self._run, self._owners = (*kept, clients), {}
        self._count = min(self.hirer.shards(_gpus(kept), len(self._workers)), len(clients))
        for worker in self._workers[self._count :]:
            worker.stop()
        staying, self._workers = self._workers[: self._count], []
        self._employ(staying, number)

    def _employ(self, workers: Sequence[Worker], number: int) -> None:
        if self._run is None:
            return
        self._workers.extend(workers)
        requests = [(worker, "employ", (self._run[:-1], self._count), 0) for worker in workers]
        self.call(requests, number=number)

    def by_worker(self, clients: Iterable[int]) -> dict[Worker, list[int]]:
        """Who plays which of these clients; those of a lost worker are nobody's."""
        found: dict[Worker, list[int]] = {worker: [] for worker in self._workers}
        for client in clients:
            owner = self._owners.get(client % self._count)
            if owner is not None:
                found[owner].append(client)
        return {worker: own for worker, own in found.items() if own}

    def call(
        self,
        requests: Iterable[tuple[Worker, str, tuple[Any, ...], int]],
        *,
        number: int,
        label: str | None = None,
    ) -> list[tuple[Worker, Any]]:
        """As `calls`, all at once."""
        return list(self.calls(requests, number=number, label=label))

    def calls(
        self,
        requests: Iterable[tuple[Worker, str, tuple[Any, ...], int]],
        *,
        number: int,
        label: str | None = None,
    ) -> Iterator[tuple[Worker, Any]]:
        """Call many workers at once and give what each returns, in order, as it is there; the lost are left out.

        Args:
            requests: Worker, method, arguments, for how many clients; the next is made while the last one works.
            number: Number of the round.
            label: What the figures call it; the method when None.

        Raises:
            BackendError: a worker refused, in words of this library's own; raised once all others have answered.
            secagg.SecAggError: a client of a worker did.
        """
        begun, refusals = [], []
        for worker, method, arguments, clients in requests:
            try:
                worker.send(method, *arguments)
            except WorkerLost as error:
                self.lose(worker, str(error))
                continue
            begun.append((worker, label or method, clients))
        for worker, name, clients in begun:
            try:
                reply = worker.receive()
            except WorkerLost as error:
                self.lose(worker, str(error))
                continue
            if reply.refusal is not None:
                kind = secagg.RemoteProtocolError if reply.protocol else BackendError
                refusals.append(kind(f"worker {worker.name} refused: {reply.refusal}"))
                continue
            if reply.failure is not None:
                self.lose(worker, f"it met a {reply.failure}, which its own log shows")
                continue
            self._tell(StageFigures(number, name, worker.name, clients, *reply[4:]))
            yield worker, reply.value
        for refusal in refusals:
            raise refusal

    def lose(self, worker: Worker, cause: str) -> None:
        """Give a worker up; its clients have dropped out of the present round."""
        if worker not in self._workers:
            return
        worker.stop()
        self._cause = cause
        self._workers.remove(worker)
        shards = [shard for shard, owner in self._owners.items() if owner is worker]
        for shard in shards:
            del self._owners[shard]
        _operator_logger.warning("worker %s was lost with %s shards: %s", worker.name, len(shards), cause)

    def stop(self) -> None:
        """End every worker."""
        for worker in self._workers:
            worker.stop()
        self._workers, self._owners, self._run = [], {}, None

    def _tell(self, figures: StageFigures) -> None:
        _operator_logger.info("%s", figures)
        if self._progress is not None:
            self._progress(figures)


def _gpus(kept: tuple[Any, ...]) -> float:
    return max(float(getattr(item, "num_gpus", 0)) for item in kept)
