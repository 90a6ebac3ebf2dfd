"""The server's end of a round whose clients are played by workers: it receives what a server receives, and no more.

Invariants:

- what reaches this process is public keys, sealed shares, masked sums over the clients of a worker, shares that unmask,
  and figures on time and memory; `record` is shown every byte of it but the figures;
- a worker speaks for its own clients only; whoever it does not speak for has dropped out;
- memory does not grow with clients times length.

Not here: the clients' end (`fedavg.backends.site`), replacing who was lost (`fedavg.backends.crew`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

import secagg
from fedavg.aggregation import DROPOUT_STAGES, AggregationPlan, Record, RoundSum
from fedavg.backends.crew import Crew, Worker
from fedavg.backends.site import Order
from fedavg.client_work import Population, Work
from fedavg.entropy import RunEntropy
from secagg.phases import STAGES, Phase

__all__ = ["Remote"]

Parts = Iterator[tuple[Worker, Any]]
Sums = Iterator[tuple[Iterable[Worker], bytes]]
"""Partial sums, each with the workers whose clients it is of."""
SumUp = Callable[[Crew, Parts, tuple[Any, bytes]], Sums]


def one_by_one(crew: Crew, parts: Parts, opening: tuple[Any, bytes]) -> Sums:
    """Every worker's partial sum as it comes."""
    del crew, opening
    return (((worker,), part) for worker, part in parts)


class Remote:
    """A backend whose clients are played by workers (see `fedavg.backends.backend.Backend`).

    Args:
        crew: The workers.
        sum_up: From the workers' partial sums to those that this process takes.
    """

    def __init__(self, crew: Crew, sum_up: SumUp = one_by_one) -> None:
        self._crew, self._sum_up = crew, sum_up

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the next round would start others."""
        self._crew.stop()

    def prepare(self, kept: tuple[Any, ...], clients: Population) -> None:
        """Start the workers and send each its clients, before anything is charged.

        Raises:
            BackendError: no worker could be started, or functions or data cannot travel.
        """
        try:
            self._crew.staff(kept, clients)
        except BaseException:
            self._crew.stop()  # They would keep the next attempt's room for as long as anybody keeps this error.
            raise

    def sum_round(
        self,
        plan: AggregationPlan,
        work: Work,
        *,
        clients: Sequence[int],
        number: int,
        model_hash: bytes,
        dropouts: Mapping[str, Collection[int]],
        entropy: RunEntropy,
        record: Record | None,
        memory: Mapping[str, NDArray[Any]],
    ) -> RoundSum:
        """See `Backend.sum_round`. Clients of a worker that is lost in mid-round have dropped out.

        Raises:
            secagg.TooFewClients: more dropped out than tolerated; nothing was released.
            BackendError: no worker could be started.
        """
        self._crew.staff(work.kept, work.clients, number=number)
        order = Order(plan, number, model_hash, entropy, type(work), work.terms)
        contributes = {client: work.contributes[client] for client in clients}
        playing = _Round(self._crew, order, contributes, dropouts, record, self._sum_up)
        total, survivors, revealed, bytes_up = playing.masked() if plan.secure.masked else playing.ideal()
        return plan.open(
            total,
            survivors,
            revealed=revealed,
            bytes_up=bytes_up,
            keystream=entropy.keystream("server noise", number),
            memory=memory,
        )


@dataclass(frozen=True)
class _Round:
    crew: Crew
    order: Order
    contributes: Mapping[int, bool]
    dropouts: Mapping[str, Collection[int]]
    record: Record | None
    sum_up: SumUp

    def masked(self) -> tuple[NDArray[Any], int, list[tuple[int, bytes]], int]:
        """The whole protocol: total, survivors, revealed seeds, most bytes one client sent."""
        plan, order = self.order.plan, self.order
        roster = self._open()
        root = order.entropy.protocol("round", order.number)
        parameters = plan.protocol(order.number, order.model_hash, roster)
        server = secagg.Server(
            parameters,
            entropy=secagg.system_entropy if root is None else root.derive("server"),
            identities=roster,
            rule=plan.rule(),
        )
        up = dict.fromkeys(self.contributes, 0)
        stages = STAGES[parameters.adversary]
        for turn, stage in enumerate(stages):
            gone = self._gone(stages[: turn + 1])
            there = [client for client in up if client not in gone and server.expects(client)]
            if stage is Phase.MASKED_INPUT:
                self._mask(server, there, up)
            else:
                self._exchange(server, stage, there, up)
            server.advance()
        totals, survivors, seeds = server.result
        revealed = [(part, seed) for parts in seeds.values() for part, seed in parts.items()]
        return totals["values"], len(survivors), revealed, max(up.values())

    def ideal(self) -> tuple[NDArray[Any], int, list[tuple[int, bytes]], int]:
        """The same without masks."""
        order = self.order
        self._open()
        gone = self._gone(DROPOUT_STAGES[:3])
        there = [client for client in self.contributes if client not in gone]
        parts = (part for _, part in self._calls("add", there, lambda own: (own,)))
        return (*order.plan.unmasked_sum(parts, number=order.number, entropy=order.entropy), 0)

    def _open(self) -> secagg.IdentityRoster | None:
        """Tell every worker of the round; against a malicious server, make the roster that clients trust."""
        shared = self.crew.hirer.share(self.order)
        publics: dict[int, bytes] = {}
        for _, own in self._calls(
            "open", self.contributes, lambda own: (shared, {c: self.contributes[c] for c in own})
        ):
            publics |= own
        for client, public in publics.items():
            self._show("identity", client, public)
        if not publics:
            return None
        self._calls_all("trust", publics, lambda _: (publics,))
        return secagg.IdentityRoster(publics)

    def _exchange(
        self, server: secagg.Server, stage: Phase, there: Iterable[int], up: dict[int, int]
    ) -> None:
        """One stage: every client's message out, every answer in."""
        owners = self.crew.by_worker(there)

        def messages(own: list[int]) -> tuple[list[tuple[int, bytes]]]:
            return ([(client, server.message_for(client)) for client in own],)

        replies = self._calls("answer", there, messages, label=stage.value)
        if stage is Phase.UNMASK:
            # Each is shown as it is there, and all before any is judged: one that was answered is what the round costs.
            held = []
            for worker, answers in replies:
                held.append((worker, answers))
                for client, answer in answers:
                    self._show(stage.value, client, answer)
            replies = iter(held)
        for worker, answers in replies:
            asked = set(owners[worker])
            for client, answer in answers:
                if client not in asked:
                    raise secagg.UnexpectedMessage(
                        f"worker {worker.name} speaks for client {client}, which it does not hold",
                        sender=client,
                    )
                up[client] += len(answer)
                if stage is not Phase.UNMASK:
                    self._show(stage.value, client, answer)
                server.receive(client, answer)

    def _mask(self, server: secagg.Server, there: Iterable[int], up: dict[int, int]) -> None:
        """The masked inputs, as sums over the clients of a worker or of several."""
        owners = self.crew.by_worker(there)
        roster, who = server.partial_opening
        opening = self.crew.hirer.share(roster), who
        calls = self._calls(
            "mask",
            there,
            lambda own: (*opening, [(client, server.message_for(client)) for client in own]),
            label=Phase.MASKED_INPUT.value,
        )
        for turn, (workers, part) in enumerate(self.sum_up(self.crew, calls, opening)):
            self._show(Phase.MASKED_INPUT.value, -1 - turn, part)
            own = [client for worker in workers for client in owners[worker]]
            for client, size in server.receive_partial(part, clients=own).items():
                up[client] += size

    def _gone(self, stages: Iterable[str]) -> set[int]:
        return {int(client) for stage in stages for client in self.dropouts.get(str(stage), ())}

    def _calls(
        self,
        method: str,
        clients: Iterable[int],
        arguments: Callable[[list[int]], tuple[Any, ...]],
        *,
        label: str | None = None,
    ) -> Parts:
        """Call every worker that plays some of the clients, with what it needs to know about those."""
        requests = (
            (worker, method, arguments(own), len(own)) for worker, own in self.crew.by_worker(clients).items()
        )
        return self.crew.calls(requests, number=self.order.number, label=label)

    def _calls_all(
        self, method: str, clients: Iterable[int], arguments: Callable[[list[int]], tuple[Any, ...]]
    ) -> None:
        for _ in self._calls(method, clients, arguments):
            pass

    def _show(self, stage: str, sender: int, message: bytes) -> None:
        if self.record is not None:
            self.record(stage, sender, message)
