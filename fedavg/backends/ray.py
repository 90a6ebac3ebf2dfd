"""Clients on the machines of a Ray cluster: each worker is an actor, each stage one call, sums are added as a tree.

The process of the run is the protocol's server. Workers' partial sums of masked vectors stay in Ray's object store, are
added up by workers, `fan_in` at a time, and only the last few come here: traffic and memory of this process do not grow
with clients times length. A merged sum that is lost with its node is made good from the parts that are left.

Ray is loaded with this module only. Its connections are in clear unless the cluster was set up with TLS.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import RayError, RayTaskError

from fedavg.backends.crew import Crew, Progress, WorkerLost
from fedavg.backends.rounds import Parts, Remote, Sums
from fedavg.backends.site import Reply, Site, serve
from fedavg.errors import BackendError, ParameterError
from fedavg.interrupts import ignored

__all__ = ["Ray"]

_GRACE_SECONDS = 10.0


class Ray(Remote):
    """Play the clients on a Ray cluster; the same sums as in one process, bit for bit.

    Args:
        address: The cluster's address ("host:6379", "auto"). None takes the cluster this process is
            connected to, or else starts one on this machine, which ends with this object.
        workers: How many; as many as the cluster has room for when None.
        num_cpus: Processors of each worker.
        num_gpus: GPUs of each worker, also fractions; the step's attribute `num_gpus`, or none, when None.
        timeout: Seconds that a worker may take for one stage before it is given up; None waits for ever.
        start_timeout: Seconds that a worker may take to start.
        fan_in: How many partial sums are added in one place.
        progress: Called with `StageFigures` after each call of a worker.
        client_log: A folder, on each worker's own machine, for the clients' causes of failure.

    Raises:
        ParameterError: settings out of range.
        BackendError: the cluster cannot be reached.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        num_cpus: float = 1,
        num_gpus: float | None = None,
        timeout: float | None = None,
        start_timeout: float = 120.0,
        fan_in: int = 8,
        progress: Progress | None = None,
        client_log: str | Path | None = None,
    ) -> None:
        if (workers is not None and workers < 1) or num_cpus <= 0 or fan_in < 2:
            raise ParameterError(
                f"workers is {workers}, num_cpus {num_cpus}, fan_in {fan_in}; give at least one worker, a positive"
                " number of processors, and 2 or more sums to add in one place"
            )
        started = _connect(address)
        hirer = _Cluster(workers, num_cpus, num_gpus, timeout, start_timeout, client_log)
        crew = Crew(hirer, progress)
        super().__init__(crew, partial(_sum_up, fan_in))
        self._end = weakref.finalize(self, _end, crew, started)

    def close(self) -> None:
        """End the workers, and the cluster if this object started it."""
        self._end()


def _connect(address: str | None) -> bool:
    """Connect to a cluster unless this process is; whether one was started for it."""
    if ray.is_initialized():
        return False
    if address is not None:
        _require_listener(address)
    # A cluster of our own tells nobody that it runs.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
    except (ConnectionError, RayError) as error:
        raise BackendError(
            f"no Ray cluster answers at {address}: {error}; start one with `ray start --head`, or leave the address out"
        ) from error
    return True


def _require_listener(address: str) -> None:
    """Refuse an address where nobody listens; Ray itself tries it for many minutes, deaf to Ctrl-C."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host or not port.isdigit():
        return  # "auto", or one of the forms that Ray takes apart itself.
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_GRACE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise BackendError(
            f"no Ray cluster answers at {address}: {error}; start one with `ray start --head`, or leave the address out"
        ) from error


def _end(crew: Crew, started: bool) -> None:
    crew.stop()
    if started:
        ray.shutdown()


class _Actor:
    """What runs on a worker."""

    def __init__(self, log: str | None) -> None:
        ignored()
        folder = None if log is None else Path(log)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            folder = folder / f"worker-{os.getpid()}.jsonl"
        self._site = Site(folder)

    def where(self) -> str:
        """Where this is."""
        return f"{ray.util.get_node_ip_address()} node {ray.get_runtime_context().get_node_id()[:8]} pid {os.getpid()}"

    def call(self, method: str, *arguments: Any) -> Reply:
        """Carry out one call."""
        if method == "hold":
            # What the object store hands out is read-only, and a step may write into its data as anywhere else; what
            # was pickled by protocol 4 always can be written into.
            arguments = ray.cloudpickle.loads(ray.cloudpickle.dumps(arguments, protocol=4))
        return serve(partial(getattr(self._site, method), *arguments))

    def call_apart(self, method: str, *arguments: Any) -> tuple[Reply, Any]:
        """Carry out one call whose value stays here, in the object store, until somebody asks for it."""
        reply = self.call(method, *arguments)
        return reply._replace(value=None), reply.value

    def merge(self, *arguments: Any) -> bytes:
        """Add partial sums of several workers."""
        return self._site.merge(*arguments)


class _Cluster:
    def __init__(
        self,
        workers: int | None,
        num_cpus: float,
        num_gpus: float | None,
        timeout: float | None,
        start_timeout: float,
        client_log: str | Path | None,
    ) -> None:
        self._workers, self._num_cpus, self._num_gpus = workers, num_cpus, num_gpus
        self._timeout, self._start_timeout = timeout, start_timeout
        self._log = None if client_log is None else str(client_log)

    def shards(self, gpus: float, there: int) -> int:
        """See `Hirer`."""
        return self._workers if self._workers is not None else max(1, there + self._room(self._gpus(gpus)))

    def hire(self, count: int, gpus: float, there: int) -> Sequence[_Worker]:
        """See `Hirer`."""
        gpus = self._gpus(gpus)
        kind = ray.remote(_Actor).options(
            num_cpus=self._num_cpus, num_gpus=gpus, scheduling_strategy="SPREAD", max_restarts=0
        )
        begun = [
            kind.remote(self._log) for _ in range(self._places(min(count, self._most(gpus) - there), gpus))
        ]
        names = {actor.where.remote(): actor for actor in begun}
        if names:
            ray.wait(list(names), num_returns=len(names), timeout=self._start_timeout)
        workers = []
        for name, actor in names.items():
            try:
                workers.append(_Worker(actor, ray.get(name, timeout=0), self._timeout))
            except RayError:
                ray.kill(actor)
        return workers

    def share(self, value: Any) -> Any:
        """See `Hirer`: once into the object store, from where each machine takes it."""
        return ray.put(value)

    def _gpus(self, wanted: float) -> float:
        return wanted if self._num_gpus is None else self._num_gpus

    def _places(self, count: int, gpus: float) -> int:
        """How many of so many workers find room now; what others just left takes a moment to be free."""
        end = time.monotonic() + _GRACE_SECONDS
        while self._room(gpus) < count and time.monotonic() < end:
            time.sleep(0.2)
        return max(0, min(count, self._room(gpus)))

    def _room(self, gpus: float) -> int:
        """How many more workers the cluster has room for."""
        return self._fitting(ray.available_resources(), gpus)

    def _most(self, gpus: float) -> int:
        """How many workers it would have room for if it were empty."""
        return self._fitting(ray.cluster_resources(), gpus)

    def _fitting(self, free: Mapping[str, float], gpus: float) -> int:
        room = free.get("CPU", 0) / self._num_cpus
        return int(min(room, free.get("GPU", 0) / gpus) if gpus else room)


class _Worker:
    def __init__(self, actor: Any, name: str, timeout: float | None) -> None:
        self.actor, self.name = actor, name
        self.timeout, self._method = timeout, ""
        self._reply: Any = None
        self._value: Any = None

    def send(self, method: str, *arguments: Any) -> None:
        """See `Worker`. The value of "mask" stays in the object store: what is received is a reference to it."""
        self._method = method
        try:
            if method == "mask":
                apart = self.actor.call_apart.options(num_returns=2)
                self._reply, self._value = apart.remote(method, *arguments)
            else:
                self._reply, self._value = self.actor.call.remote(method, *arguments), None
        except RayError as error:
            raise WorkerLost(f"it could not be reached ({type(error).__name__})") from error
        except TypeError as error:
            raise BackendError(
                f"functions or data cannot be sent to another machine: {error.__cause__ or error}; load the data in"
                " ClientData's function, there, and make locks, files and connections within the step"
            ) from error

    def receive(self) -> Reply:
        """See `Worker`."""
        try:
            reply = ray.get(self._reply, timeout=self.timeout)
        except RayTaskError as error:
            # Nothing of a client's is in the words before its data is there, nor in a module's name that is missing.
            told = self._method == "employ" or isinstance(error.cause, ModuleNotFoundError)
            words = f" ({error.cause})" if told else ""
            raise WorkerLost(f"it met a {type(error.cause).__name__}{words}") from error
        except RayError as error:
            raise WorkerLost(type(error).__name__) from error
        if not isinstance(reply, Reply):
            return Reply()
        return reply if self._value is None else reply._replace(value=self._value)

    def stop(self) -> None:
        """See `Worker`."""
        if ray.is_initialized():
            with contextlib.suppress(RayError):
                ray.kill(self.actor)


@dataclass(frozen=True)
class _Node:
    """A partial sum in the object store, who made it, and what it was made from."""

    worker: _Worker
    part: Any
    parts: tuple[_Node, ...] = ()

    @property
    def workers(self) -> Iterator[_Worker]:
        """Whose clients it is of."""
        for node in self.parts:
            yield from node.workers
        if not self.parts:
            yield self.worker


def _sum_up(fan_in: int, crew: Crew, parts: Parts, opening: tuple[Any, bytes]) -> Sums:
    """Add partial sums as a tree, and fetch what is left at its top."""
    nodes = [_Node(cast("_Worker", worker), part) for worker, part in parts]
    while len(nodes) > fan_in:
        groups = [tuple(nodes[i : i + fan_in]) for i in range(0, len(nodes), fan_in)]
        nodes = [_merged(group, opening) for group in groups]
    for node in nodes:
        yield from _taken(crew, node)


def _merged(group: tuple[_Node, ...], opening: tuple[Any, bytes]) -> _Node:
    if len(group) == 1:
        return group[0]
    worker = group[0].worker
    return _Node(worker, worker.actor.merge.remote(*opening, *(node.part for node in group)), group)


def _taken(crew: Crew, node: _Node) -> Sums:
    """Fetch a sum; where it is lost, fetch what it was made from; a worker's own sum that is lost takes it along."""
    try:
        part = ray.get(node.part, timeout=node.worker.timeout)
    except RayError as error:
        if not node.parts:
            crew.lose(node.worker, f"its masked sum was lost ({type(error).__name__})")
        for child in node.parts:
            yield from _taken(crew, child)
    else:
        yield node.workers, part
