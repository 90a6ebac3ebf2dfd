"""A node's side of the rounds: one answer to each stage of each round, over messages that may meet a new process.

Flower starts a ClientApp afresh for every message, so a round's machine (`secagg.Client`) cannot wait in memory for the
next stage. It is rebuilt instead: the round's 32 secret bytes and the messages so far stay in the node's own state,
which Flower keeps in the SuperNode's memory, and the same bytes give the same machine. Invariants:

- before a stage is answered, the stage of that round is claimed in the node's folder, durably and at most once over all
  processes, restarts and restored memories; a second request for it, whatever it asks, gets nothing;
- the masked input is claimed twice: as it begins, so that no round has two coins, and inside `secagg.Client.mask`; a
  contribution counts toward the cap from then on, and past the cap the node pads;
- against a server that it does not trust, a node counts the rounds that it carries, whatever became of them, and past
  those planned it pads: the promise is for no more, however many the server asks for;
- rebuilding masks zeros where an input was masked before, without a claim, and lets go of the result: the input, its
  rounding and its noise are never computed twice;
- whether the node's data is in the sum changes nothing that the server can see: padding trains, too, and throws the
  result away, and writes as many records; a step that fails sends zeros and its noise share, and says so to nobody but
  its own log;
- the state is emptied when the round ends, fails, or another one begins.

A restarted SuperNode has lost the round's secrets with its memory: it is a node that dropped out, and joins the next
round. Not here: Flower's messages (`fedavg.flower.mod`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dp
import secagg
from fedavg.errors import StepError
from fedavg.flower.errors import NodeRefusal
from fedavg.flower.keys import NodeIdentity
from fedavg.flower.settings import PrivateRounds, RoundPlan
from fedavg.flower.wire import Reply, Request, read_form
from fedavg.layout import Contribution
from secagg.phases import STAGES

__all__ = ["Node", "State", "Trainer"]

_logger = logging.getLogger("fedavg.flower.node")

State = MutableMapping[str, Any]
"""Where a round's secrets wait between two messages: in memory, on this node."""

Trainer = Callable[[RoundPlan], Contribution]
"""Runs the user's app on the message at hand and returns what it gave; called when the masked input is due."""


@dataclass(frozen=True)
class Node:
    """One node.

    Args:
        settings: this node's own copy of the app's settings.
        folder: where its records live; it must outlive the process, and stay out of backups.
        node: the protocol's id of this node.
        identity: malicious mode: who it is.
        state: what the last message left.
    """

    settings: PrivateRounds
    folder: Path
    node: int
    identity: NodeIdentity | None
    state: State

    def answer(self, request: Request, train: Trainer) -> Reply:
        """Answer one stage, once.

        Args:
            request: what the server asks.
            train: the user's app.

        Raises:
            NodeRefusal: the request does not fit what this node did so far.
            secagg.SecAggError: the protocol refuses; the round is over for this node.
        """
        stages = [stage.value for stage in STAGES[self.settings.secure.adversary]]
        if request.stage not in stages:
            raise NodeRefusal(f"there is no stage {request.stage} in {self.settings.secure.adversary} mode")
        position = stages.index(request.stage)
        self._require_next(request, position)
        claimed = self._carried if request.stage == "masked_input" else request.stage
        self._records(claimed).claim(task=self.settings.task, round=request.round)
        over = True
        try:
            messages = self._take_up(request, position)
            data = self._respond(request, messages, train)
            over = position == len(stages) - 1
        finally:
            if over:
                self.state.clear()
        return Reply(request.stage, request.round, self.node, data)

    def _require_next(self, request: Request, position: int) -> None:
        """Refuse what is not the next stage of the round under way; a late message of another round ends nothing."""
        at = (self.state.get("round"), self.state.get("at"))
        if position and at != (request.round, position):
            raise NodeRefusal(
                f"stage {request.stage} of round {request.round} is not what this node waits for: it restarted since,"
                " left that round, or was asked twice; it joins the next round"
            )

    def _take_up(self, request: Request, position: int) -> list[bytes]:
        """The messages of the round before this one; begins the round at its first stage."""
        state = self.state
        if position == 0:
            state.clear()
            state.update(round=request.round, model=request.model, form=request.form, seed=os.urandom(32))
        elif (state["model"], state["form"]) != (request.model, request.form):
            raise NodeRefusal(f"round {request.round} went on with another model than it began with")
        messages = [bytes(state[f"message {index}"]) for index in range(position)]
        state[f"message {position}"] = request.data
        state["at"] = position + 1
        return messages

    def _records(self, stage: str) -> secagg.Records:
        """The record of one kind of answer; every kind has a row for each round."""
        return secagg.Records(self.folder, data_set=stage)

    def _choices(self, kind: str, limit: int | None = None) -> secagg.Records:
        """The record of one side of the coin, which lacks the rounds of the other.

        A limit on its steps would refuse a round by how earlier coins fell, and a server that numbers two rounds far
        apart would see it; the rounds' own record, claimed before, has limited them.
        """
        return secagg.Records(self.folder, data_set=kind, max_participations=limit, max_step=None)

    def _respond(self, request: Request, messages: list[bytes], train: Trainer) -> bytes:
        plan = self.settings.plan(read_form(request.form), self.folder)
        masks = request.stage == "masked_input"
        client = self._client(plan, request, self._records("masked_input") if masks else None)
        for message in messages:
            if client.receive(message) is None:
                client.mask({"values": np.zeros(plan.aggregation.encoding.dimension, np.uint64)})
        answer = client.receive(request.data)
        if answer is None:
            answer = client.mask(self._inputs(plan, request, client.conditional_secrets, train))
        return answer

    def _client(self, plan: RoundPlan, request: Request, single_use: secagg.Records | None) -> secagg.Client:
        trusted = self.identity
        return secagg.Client(
            plan.parameters(request.round, request.model, None if trusted is None else trusted.roster),
            self.node,
            # Its key is the operating system's and serves one round: AES-256-CTR as a generator, replayed on purpose.
            entropy=secagg.SeededEntropy(bytes(self.state["seed"])),
            identity=None if trusted is None else trusted.identity,
            identities=None if trusted is None else trusted.roster,
            single_use=single_use,
            rule=plan.aggregation.rule(),
        )

    def _inputs(
        self, plan: RoundPlan, request: Request, seeds: tuple[bytes, ...], train: Trainer
    ) -> Mapping[str, NDArray[Any]]:
        """This node's vector: trained in every case, included where it was drawn, by its coin, and below its cap."""
        contribution: Contribution
        try:
            contribution = train(plan)
        except StepError as error:
            _logger.warning(
                "round %s: this node's own step failed and it sends zeros: %s", request.round, error
            )
            contribution = "failed"
        if not self._includes(request):
            contribution = "padding"
        values = plan.layout.values(contribution)
        return {"values": plan.aggregation.encode(values, dp.Keystream(), seeds)}

    def _coin(self) -> bool:
        """This node's own coin, from the operating system, exact to 2^-64."""
        return self.settings.coin == 1 or int.from_bytes(os.urandom(8), "big") < int(
            self.settings.coin * 2**64
        )

    def _includes(self, request: Request) -> bool:
        """Whether this node's data is in the round; counted durably. Records are read and written alike in any case."""
        settings, cap = self.settings, self.settings.privacy.max_participations
        contributions = f"contribution to {settings.task}"
        carried = self._records(self._carried).participations
        if settings.is_malicious and carried > settings.rounds:
            _logger.info(
                "round %s: the %s planned rounds are used up and this node pads",
                request.round,
                settings.rounds,
            )
            return False
        included = request.contributes and self._coin()
        count = self._records(contributions).participations
        if included and cap is not None and count >= cap:
            _logger.info(
                "round %s: this node has reached its cap of %s contributions and pads", request.round, cap
            )
            included = False
        counted = (
            self._choices(contributions, cap) if included else self._choices(f"padding of {settings.task}")
        )
        counted.claim(task=settings.task, round=request.round)
        return included

    @property
    def _carried(self) -> str:
        """The record of the rounds whose masked input began."""
        return f"carried for {self.settings.task}"
