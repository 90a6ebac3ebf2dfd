"""The server's side of one round: every stage over Flower's Grid, real machines on both ends.

Invariants:

- a stage ends when everybody expected has answered, or at its deadline; who is late has dropped out, and a message's
  time to live ends with its stage, so that a node that comes back later is not asked for a stage that is over;
- in malicious mode a node tells which roster entry it is and proves it by its signature; else its id is Flower's;
- a reply that is refused is one line in the operator's log, and a node that dropped out.

Not here: what a round costs, and what becomes of its sum (`fedavg.flower.strategy`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message, RecordDict

import secagg
from fedavg.aggregation import Record, RoundSum
from fedavg.flower.errors import WireError
from fedavg.flower.settings import RoundPlan
from fedavg.flower.wire import Request, read_reply, write_request
from secagg.phases import STAGES

__all__ = ["Deadlines", "Invitation", "RoundLog", "run_round"]

_logger = logging.getLogger("fedavg.flower.server")
_POLL_SECONDS = 0.3
_PULL_SECONDS = 0.03  # What one more reply to ask for adds to the time between two questions.
_MOST_PULLS = 32
_BEFORE_SHARES = 2  # Stages before there are shares that could show a fault.
_SIX_THREE = 2**63 - 1
_NOBODY = -1


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long to wait for nodes, in seconds: in a stage, in the one where they train, after a round without a sum.

    Flower takes a dead SuperNode for a living one, and does not let it in again, until two of its heartbeats (of 30
    seconds) are missing: a shorter pause meets the same dead nodes again.

    Attributes:
        stage: Seconds for a stage without training.
        masked_input: Seconds for the stage in which nodes train.
        pause: Seconds after a round without a sum.
    """

    stage: float = 120.0
    masked_input: float = 1200.0
    pause: float = 60.0

    def of(self, stage: str) -> float:
        """The deadline of one stage."""
        return self.masked_input if stage == "masked_input" else self.stage


@dataclass(frozen=True)
class Invitation:
    """Who is asked to a round, and what is sent along.

    Attributes:
        number: the round's number.
        model: 32 bytes naming the user's records.
        form: the model's form.
        records: the user's own records, for the stage in which nodes train.
        nodes: Flower's node id to whether it was drawn to contribute.
        message_type: of the user's own messages.
    """

    number: int
    model: bytes
    form: str
    records: RecordDict
    nodes: Mapping[int, bool]
    message_type: str


@dataclass
class RoundLog:
    """What the operator may see of a round: who was late or refused by stage, seconds, bytes; nothing of the data."""

    stages: list[dict[str, Any]] = field(default_factory=list)
    bytes_up: dict[int, int] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    charged: bool = False
    """Whether the round stays charged: a node was asked for what unmasks, and its answer may come late; or, where nodes
    do not trust the server, for a masked input, which each of them counts from then on."""


def run_round(
    grid: Any,
    plan: RoundPlan,
    invitation: Invitation,
    *,
    identities: secagg.IdentityRoster | None,
    deadlines: Deadlines,
    log: RoundLog,
    record: Record | None = None,
) -> RoundSum:
    """Run one round.

    Args:
        grid: Flower's Grid.
        plan: the round's plan.
        invitation: who is asked what.
        identities: malicious mode: the trusted roster.
        deadlines: how long to wait.
        log: filled in on the way, whether or not the round succeeds.
        record: called with (stage, client, bytes) for all that the server receives.

    Returns:
        The noised, decoded sum.

    Raises:
        secagg.SecAggError: no sum came of it; `log.charged` says whether anything can have been released.
    """
    rule = plan.aggregation.rule()
    parameters = plan.parameters(invitation.number, invitation.model, identities)
    server = secagg.Server(parameters, identities=identities, rule=rule)
    stages = _Stages(grid, server, invitation, deadlines, log, record, claims=identities is not None)
    try:
        for stage in STAGES[parameters.adversary]:
            stages.play(stage.value)
            server.advance()
    finally:
        if len(log.stages) > _BEFORE_SHARES:
            log.faults = [fault._asdict() for fault in server.faults]
    totals, survivors, revealed = server.result
    return plan.aggregation.open(
        totals["values"],
        len(survivors),
        revealed=[(part, seed) for parts in revealed.values() for part, seed in parts.items()],
        bytes_up=max(log.bytes_up.values(), default=0),
    )


class _Stages:
    """The round's stages, one after the other."""

    def __init__(
        self,
        grid: Any,
        server: secagg.Server,
        invitation: Invitation,
        deadlines: Deadlines,
        log: RoundLog,
        record: Record | None,
        *,
        claims: bool,
    ) -> None:
        self._grid, self._server, self._invitation = grid, server, invitation
        self._deadlines, self._log, self._record = deadlines, log, record
        self._ids: dict[int, int] = {} if claims else {node: node & _SIX_THREE for node in invitation.nodes}
        self._claims = claims

    def play(self, stage: str) -> None:
        """Send a stage's messages, and hand what comes back to the server machine."""
        begun, answered = time.monotonic(), 0
        messages = [self._message(stage, node) for node in self._expected(stage)]
        if messages and (stage == "unmask" or (self._claims and stage == "masked_input")):
            self._log.charged = True
        for node, reply in _exchange(self._grid, messages, self._deadlines.of(stage)):
            answered += self._take(stage, node, reply)
        self._log.stages.append(
            {
                "stage": stage,
                "asked": len(messages),
                "answered": answered,
                "seconds": round(time.monotonic() - begun, 3),
            }
        )

    def _expected(self, stage: str) -> list[int]:
        if stage == "advertise":
            return list(self._invitation.nodes)
        return [node for node, client in self._ids.items() if self._server.expects(client)]

    def _message(self, stage: str, node: int) -> Message:
        invitation, client = self._invitation, self._ids.get(node, -1)
        request = Request(
            stage=stage,
            round=invitation.number,
            model=invitation.model,
            form=invitation.form,
            node=client,
            contributes=invitation.nodes[node],
            data=self._server.message_for(client),
        )
        records = invitation.records if stage == "masked_input" else None
        return Message(
            write_request(request, records),
            dst_node_id=node,
            message_type=invitation.message_type,
            ttl=self._deadlines.of(stage),
            group_id=str(invitation.number),
        )

    def _take(self, stage: str, node: int, reply: Message) -> bool:
        """Whether a reply was acceptable; if not, the node has dropped out, and the operator's log says why."""
        try:
            if reply.has_error():
                raise WireError(reply.error.reason[:500])
            answer = read_reply(reply.content)
            if (answer.stage, answer.round) != (stage, self._invitation.number):
                raise WireError(f"it answered stage {answer.stage[:40]!r} of round {answer.round}")
            self._receive(stage, node, self._identified(node, answer.node), answer.data)
        except (WireError, secagg.RemoteProtocolError) as error:
            _logger.warning(
                "round %s, %s: node %s dropped out: %s",
                self._invitation.number,
                stage,
                node,
                _one_line(error),
            )
            return False
        self._log.bytes_up[node] = self._log.bytes_up.get(node, 0) + len(answer.data)
        return True

    def _receive(self, stage: str, node: int, client: int, data: bytes) -> None:
        """Hand a message to the server machine, and record it: as nobody's while its sender only says who it is."""
        known = node in self._ids
        try:
            self._server.receive(client, data)
            known = True
        finally:
            if self._record is not None:
                self._record(stage, client if known else _NOBODY, data)
        self._ids[node] = client

    def _identified(self, node: int, claimed: int) -> int:
        """Which client of the protocol a node is: what it says first, if its signature then agrees."""
        known = self._ids.get(node, claimed if self._claims else None)
        if known != claimed:
            raise WireError(f"it says it is client {claimed}, and is {known}")
        if node not in self._ids and claimed in self._ids.values():
            raise WireError(
                f"it says it is client {claimed} of the roster, which another node has proven to be"
            )
        return claimed


def _exchange(grid: Any, messages: Sequence[Message], seconds: float) -> Iterator[tuple[int, Message]]:
    """Push messages and yield who was asked with each reply, until all are there or time is up.

    Each reply is pulled by itself: Flower waits three minutes for one whose sender died while it sent it.
    """
    waiting = _push(grid, messages)
    pulls: dict[str, Future[Any]] = {}
    pool = ThreadPoolExecutor(max_workers=max(1, min(_MOST_PULLS, len(waiting))))
    deadline = time.monotonic() + seconds
    try:
        while waiting:
            for identifier in waiting.keys() - pulls.keys():
                pulls[identifier] = pool.submit(grid.pull_messages, [identifier])
            wait(pulls.values(), timeout=_POLL_SECONDS)
            for identifier in [key for key in waiting if pulls[key].done()]:
                for reply in _pulled(pulls.pop(identifier)):
                    yield waiting.pop(identifier), reply
            if time.monotonic() >= deadline:
                break
            if waiting:
                time.sleep(max(_POLL_SECONDS, _PULL_SECONDS * len(waiting)))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _push(grid: Any, messages: Sequence[Message]) -> dict[str, int]:
    """Push messages: the id of each that Flower took, and whom it is for."""
    try:
        pushed = list(grid.push_messages(messages)) if messages else []
    except Exception as error:  # noqa: BLE001  Whatever its HTTP library raises: a stage that nobody hears of.
        _logger.warning("a stage's messages could not be handed to Flower: %s", _one_line(error))
        pushed = []
    nodes = [message.metadata.dst_node_id for message in messages]
    return {identifier: node for identifier, node in zip(pushed, nodes, strict=False) if identifier}


def _pulled(pull: Future[Any]) -> list[Message]:
    """The reply, if it is there; an error of the transport is a reply that is not there yet."""
    try:
        return list(pull.result())[:1]
    except Exception as error:  # noqa: BLE001  Whatever its HTTP library raises: the stage's deadline decides.
        _logger.warning(
            "a reply could not be pulled from Flower, and is asked for again: %s", _one_line(error)
        )
        return []


def _one_line(error: Exception) -> str:
    """An error's words on one line, without what would steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(error))
