"""What a round of secure aggregation costs on this machine, measured by running one.

Behind `veilsum bench secagg`. Every message is real; the clients run in this process and the server in one
of its own (`fedavg.bench_server`). Invariants:

- CPU time is counted around the calls of a machine only: making inputs, moving bytes between the processes
  and checking the sum are outside;
- the reference is AES-256-CTR by OpenSSL over as many bytes as the masks have, in the same process, at the
  best of several chunk sizes;
- clients in one process share the order of the ring, which a real client computes alone: it is timed once
  and added to every client's time. Tables that a process builds once for all its rounds are not counted.

Not here: the command (`fedavg.cli`), and figures to compare with (`benchmarks/`).
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedavg.bench_server import VECTOR, ServerProcess, identities_of, keystream_seconds, round_of
from fedavg.errors import ParameterError
from secagg import Client, RoundParameters, TooFewClients
from secagg.binding import ring_seed
from secagg.graph import holder_table, ring_order
from secagg.identities import Identity, IdentityRoster
from secagg.messages import HEADER_BYTES, Codec
from secagg.phases import STAGES, Phase
from secagg.ring import word_dtype

__all__ = ["measure"]

_INPUT_BITS = 16
_SESSION_BYTES = 32


def measure(
    *,
    clients: int,
    length: int,
    graph: Literal["auto", "sparse", "complete"] = "auto",
    neighbours: int | None = None,
    threshold: int | None = None,
    modulus_bits: int | None = None,
    dropout: float = 0.0,
    corruption: float = 0.05,
    adversary: Literal["semi_honest", "malicious"] = "semi_honest",
    threads: int = 1,
) -> dict[str, Any]:
    """Run one round of 16-bit values and say what it cost.

    Args:
        clients: how many take part.
        length: values per client.
        graph: "auto", "sparse" or "complete".
        neighbours: k of the sparse graph; chosen where it is left out.
        threshold: t; chosen where it is left out.
        modulus_bits: bits of the sum; as many as the worst sum needs where it is left out.
        dropout: fraction of the clients that share their keys and then send no input.
        corruption: planned fraction that may collude with the server.
        adversary: "semi_honest" or "malicious".
        threads: threads on which the server expands masks.

    Returns:
        CPU seconds of the median client that stays and of the server, bytes of the client that moves most,
        both ratios to the keystream, growth of the server's memory, the largest error of the sum.

    Raises:
        ParameterError: a modulus too small for the worst sum, or a dropout outside [0, 1).
        RoundAborted: too few clients stayed for the neighbours and threshold that were given.
        secagg.ParameterError: settings that no round can have.
    """
    needed = _INPUT_BITS + (clients - 1).bit_length()
    bits = modulus_bits or needed
    if bits < needed or not 0 <= dropout < 1:
        raise ParameterError(
            f"{bits} modulus bits and dropout {dropout} were given; {clients} clients with 16-bit values need "
            f"at least {needed} bits, and a dropout of at least 0 and below 1"
        )
    choice: dict[str, Any] = {
        "clients": clients,
        "dropout": max(dropout, 0.05),
        "corruption": corruption,
        "graph": graph,
        "neighbours": neighbours,
        "threshold": threshold,
        "adversary": adversary,
    }
    run = _Run(round_of(choice, length, bits), identities_of(choice), dropout)
    with ServerProcess(choice, length, bits, threads) as server:
        run.drive(server)
        report = server.finish(keystream_bytes=run.server_mask_bytes())
    staying = [cost for client, cost in run.costs.items() if client not in run.gone]
    client_cpu = statistics.median(cost.cpu for cost in staying) + run.ring_seconds()
    keystream = keystream_seconds(run.client_mask_bytes())
    bytes_up = max(cost.up for cost in staying)
    error = report.total.astype(np.int64) - run.expected.astype(np.int64)
    return {
        "clients": clients,
        "length": length,
        "graph": run.parameters.graph,
        "neighbours": run.parameters.neighbours,
        "threshold": run.parameters.threshold,
        "adversary": adversary,
        "modulus_bits": bits,
        "survivors": len(staying),
        "client_cpu_s": client_cpu,
        "server_cpu_s": report.cpu,
        "client_bytes_up": bytes_up,
        "client_bytes_down": max(cost.down for cost in staying),
        "expansion": bytes_up / (length * _INPUT_BITS / 8),
        "keystream_cpu_s": keystream,
        "client_ratio": client_cpu / keystream,
        "server_keystream_cpu_s": report.keystream,
        "server_ratio": report.cpu / report.keystream,
        "peak_rss_mb": report.peak_mb,
        "max_abs_error": int(np.abs(error).max()),
    }


@dataclass
class _Cost:
    """CPU seconds and bytes of one client."""

    cpu: float = 0.0
    up: int = 0
    down: int = 0


class _Run:
    """One round between a server elsewhere and all its clients here."""

    def __init__(self, parameters: RoundParameters, identities: dict[int, Identity], dropout: float) -> None:
        self.parameters = parameters
        self._identities = identities
        self.costs = {client: _Cost() for client in range(parameters.clients)}
        self.gone = _dropping_out(parameters.clients, dropout)
        self.expected = np.zeros(parameters.vectors[0].length, np.uint64)
        self._roster_hash = b""

    def drive(self, server: ServerProcess) -> None:
        """Carry every message of the round."""
        trusted = IdentityRoster.of(self._identities) or None
        machines = {
            client: Client(self.parameters, client, identity=self._identities.get(client), identities=trusted)
            for client in self.costs
        }
        for stage in STAGES[self.parameters.adversary]:
            if stage is Phase.MASKED_INPUT:
                for client in self.gone:
                    del machines[client]
            for client in [client for client in machines if server.expects(client)]:
                message = server.message_for(client)
                if stage is Phase.SHARE and not self._roster_hash:
                    self._roster_hash = self._hash_of(message)
                try:
                    answer = self._answer(machines[client], message)
                except TooFewClients:
                    continue  # its neighbours are gone, so it is too; the server decides about the round
                server.receive(client, answer)
            server.advance()

    def _answer(self, machine: Client, message: bytes) -> bytes:
        """Let a client take a message, and mask where it waits for its input; count time and bytes."""
        cost = self.costs[machine.client_id]
        begin = time.process_time()
        answer = machine.receive(message)
        cost.cpu += time.process_time() - begin
        if answer is None:
            values = _values(machine.client_id, self.parameters.vectors[0].length)
            self.expected += values
            begin = time.process_time()
            answer = machine.mask({VECTOR: values})
            cost.cpu += time.process_time() - begin
        cost.down += len(message)
        cost.up += len(answer)
        return answer

    def _hash_of(self, roster: bytes) -> bytes:
        session = roster[HEADER_BYTES - _SESSION_BYTES : HEADER_BYTES]
        return Codec(self.parameters, session).decode_roster(roster).hash

    def _mask_bytes(self) -> int:
        vector = self.parameters.vectors[0]
        return vector.padded_length * word_dtype(vector.modulus_bits).itemsize

    def client_mask_bytes(self) -> int:
        """Keystream of one client: its own mask and one per neighbour."""
        return self._mask_bytes() * (self.parameters.neighbours + 1)

    def server_mask_bytes(self) -> int:
        """Keystream of the server: a mask per survivor, and one per dropped client's surviving neighbour."""
        clients, neighbours = self.parameters.clients, self.parameters.neighbours
        table = holder_table(clients, neighbours=neighbours, seed=ring_seed(self._roster_hash))
        dropped = np.zeros(clients, np.bool_)
        dropped[sorted(self.gone)] = True
        pairs = int(np.count_nonzero(~dropped[table[dropped]]))
        return self._mask_bytes() * (clients - len(self.gone) + pairs)

    def ring_seconds(self) -> float:
        """CPU seconds that each client alone would need for the order of the ring."""
        if self.parameters.neighbours >= self.parameters.clients - 1:
            return 0.0
        ring_order.cache_clear()
        begin = time.process_time()
        ring_order(self.parameters.clients, ring_seed(self._roster_hash))
        return time.process_time() - begin


def _dropping_out(clients: int, dropout: float) -> set[int]:
    """A fixed choice of the clients that go silent after they shared."""
    order = np.random.default_rng(0).permutation(clients)
    return set(order[: int(dropout * clients + 1e-9)].tolist())


def _values(client: int, length: int) -> npt.NDArray[Any]:
    """The input of one client: 16-bit values, and the largest one in its first place."""
    values = np.random.default_rng(client).integers(0, 1 << _INPUT_BITS, length, dtype=np.uint16)
    values[0] = (1 << _INPUT_BITS) - 1
    return values
