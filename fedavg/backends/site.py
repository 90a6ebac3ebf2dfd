"""A worker's end: it holds some of the clients and plays them; nothing of theirs leaves but what a client sends.

Invariants:

- keys, masks, noise and trained weights are made here and stay here; in a run with the operating system's entropy
  nobody else could make them again;
- masked inputs leave as one sum over the clients of this worker (`secagg.PartialSum`), never one by one;
- what goes wrong inside one client is noted here and nowhere else, and of what goes wrong in the worker kind and place.

Not here: how a worker is started and reached (`fedavg.backends.processes`, `fedavg.backends.ray`), the server's end
(`fedavg.backends.rounds`).
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import dp
import secagg
from fedavg.aggregation import AggregationPlan, UnmaskedPart
from fedavg.client_work import Population, Work
from fedavg.entropy import RunEntropy
from fedavg.errors import FedAvgError
from fedavg.own_dice import OwnDice

__all__ = ["Order", "Reply", "Site", "serve"]

Messages = Sequence[tuple[int, bytes]]
_RSS_PER_MB = 2**20 if sys.platform == "darwin" else 2**10
_client_logger = logging.getLogger("fedavg.client")
_worker_logger = logging.getLogger("fedavg.worker")


@dataclass(frozen=True)
class Order:
    """What every worker is told about a round: public, but for a simulation's seed."""

    plan: AggregationPlan
    number: int
    model_hash: bytes
    entropy: RunEntropy
    kind: type[Work]
    terms: tuple[Any, ...]


class Reply(NamedTuple):
    """What a worker answers to one call.

    Attributes:
        value: what the call gave.
        refusal: the words of an error of this library's own, or None.
        protocol: whether that error is one of the protocol: then it ends the round, not the run.
        failure: the name of any other error, whose words stay in the worker's own log, or None.
        seconds: how long it took.
        cpu_seconds: CPU time of it.
        peak_rss_mb: the most memory the worker has held so far, in 2^20 bytes.
    """

    value: Any = None
    refusal: str | None = None
    protocol: bool = False
    failure: str | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss_mb: float = 0.0


def serve(call: Callable[[], Any]) -> Reply:
    """Carry out one call of the server's end, whatever comes of it."""
    begun, cpu = time.perf_counter(), time.process_time()
    reply = Reply()
    try:
        with np.errstate(all="ignore"):  # What clients compute is theirs; what is not finite becomes zeros.
            reply = Reply(call())
    except (secagg.SecAggError, dp.DPError, FedAvgError) as error:
        reply = Reply(refusal=str(error), protocol=isinstance(error, secagg.SecAggError))
    except BaseException as error:  # noqa: BLE001
        # Kind and place alone: a client's value may stand in the words, and this log may be shown where the run is.
        _worker_logger.error("a worker met a %s at %s", type(error).__name__, _place(error))
        reply = Reply(failure=type(error).__name__)
    return reply._replace(
        seconds=time.perf_counter() - begun,
        cpu_seconds=time.process_time() - cpu,
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RSS_PER_MB,
    )


def _place(error: BaseException) -> str:
    """Where an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


class Site:
    """The clients of one worker.

    Args:
        log: A file of the worker's own for causes of failure, by client; Python's log "fedavg.client" when None.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._log = log
        self._kept: tuple[Any, ...]
        self._shards: dict[int, Population] = {}
        self._count = 1
        self._order: Order
        self._dice: OwnDice
        self._parameters: secagg.RoundParameters
        self._identities: dict[int, secagg.Identity] = {}
        self._clients: dict[int, secagg.Client] = {}
        self._work: dict[int, Work] = {}

    def employ(self, kept: tuple[Any, ...], count: int) -> None:
        """Begin a run whose population is cut into `count` shards: the client at position p is in shard p % count."""
        self._kept, self._count = kept, count
        self._shards = {}

    def hold(self, shard: int, clients: Population) -> None:
        """Take the clients of one shard."""
        self._shards[shard] = clients

    def open(self, order: Order, contributes: Mapping[int, bool]) -> dict[int, bytes]:
        """Begin a round.

        Args:
            order: The round.
            contributes: Position of each invited client of this worker, and whether its data is in the round.

        Returns:
            Against a malicious server, the identity key of each; else nothing.
        """
        self._order = order
        self._dice = order.plan.own_dice(order.number, order.entropy)
        self._clients = {}
        self._work = {
            shard: order.kind.of(self._kept, clients, order.terms, contributes=contributes, log=self._note)
            for shard, clients in self._shards.items()
        }
        if not order.plan.secure.masked:
            return {}
        if order.plan.secure.adversary == "malicious":
            self._identities = {client: secagg.Identity.generate() for client in contributes}
            return {client: identity.public for client, identity in self._identities.items()}
        self._begin(contributes, None)
        return {}

    def trust(self, publics: Mapping[int, bytes]) -> None:
        """Against a malicious server: begin the protocol, among clients with these identity keys."""
        self._begin(self._identities, secagg.IdentityRoster(publics))

    def _begin(self, clients: Iterable[int], roster: secagg.IdentityRoster | None) -> None:
        order = self._order
        root = order.entropy.protocol("round", order.number)
        self._parameters = order.plan.protocol(order.number, order.model_hash, roster)
        self._clients = {
            client: secagg.Client(
                self._parameters,
                client,
                entropy=secagg.system_entropy if root is None else root.derive(client),
                identity=None if roster is None else self._identities[client],
                identities=roster,
                rule=order.plan.rule(),
            )
            for client in clients
        }

    def answer(self, messages: Messages) -> list[tuple[int, bytes]]:
        """Hand the server's messages to the clients and return what they answer; who leaves the round is left out."""
        answers = []
        for client, message in messages:
            try:
                answer = self._clients[client].receive(message)
            except secagg.TooFewClients:
                continue
            if answer is not None:
                answers.append((client, answer))
        return answers

    def mask(self, roster: bytes, shared: bytes, messages: Messages) -> bytes:
        """Train, clip, noise and mask; return the sum of what the clients of this worker send, as `PartialSum` has it.

        Args:
            roster: The message that opened the share stage.
            shared: Who shared, as the server's `partial_opening` has it.
            messages: The server's message for each client.
        """
        partial = secagg.PartialSum(self._parameters, roster, shared)
        for client, message in messages:
            machine = self._clients[client]
            try:
                machine.receive(message)
            except secagg.TooFewClients:
                continue
            values = self._encoded(client, machine.conditional_secrets)
            partial.receive(client, machine.mask({"values": values}))
        return partial.encode()

    def merge(self, roster: bytes, shared: bytes, *parts: bytes) -> bytes:
        """Add partial sums of several workers."""
        partial = secagg.PartialSum(self._parameters, roster, shared)
        for part in parts:
            partial.add(part)
        return partial.encode()

    def add(self, clients: Sequence[int]) -> UnmaskedPart:
        """The same sum without masks."""
        order = self._order
        return order.plan.unmasked_part(self._values, clients, number=order.number, entropy=order.entropy)

    def _values(self, client: int) -> Mapping[str, NDArray[Any]]:
        return self._work[client % self._count](client)

    def _encoded(self, client: int, seeds: Sequence[bytes]) -> NDArray[Any]:
        order = self._order
        keystream = order.entropy.keystream("noise", order.number, client)
        self._dice.throw(client)
        return order.plan.encode(self._values(client), keystream, seeds)

    def _note(self, client_id: Any, cause: str) -> None:
        if self._log is not None:
            line = json.dumps({"client": str(client_id), "round": self._order.number, "cause": cause})
            try:
                with self._log.open("a") as log:
                    log.write(line + "\n")
                return
            except OSError as error:
                # One client's failure must not cost the worker's others, neither by its step nor by its log.
                cause = f"{cause} (and its log cannot be written: {error.strerror or error})"
        _client_logger.info("client %s: %s", client_id, cause)
