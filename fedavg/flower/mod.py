"""The client half of the adapter: one mod makes a Flower ClientApp private.

    app = ClientApp(mods=[private_mod()])

It must be the first of the mods, and the app must have no `@app.lifespan()`: Flower runs that outside every mod, and
sends the server the words of what it raises. Invariants:

- what leaves a node is a protocol message in one array of bytes, or one line saying why there is none;
- the user's app is called in the masked-input stage only, and what it returns or raises stays on the node; evaluation
  and queries are refused, because their answers would be computed from data and travel in the clear;
- an exception's words never leave: Flower would send them to the server;
- a signal that ends the process, whose handler is Flower's, ends it: there is no way out for an answer any more.

Not here: what is answered (`fedavg.flower.node`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict

import dp
import secagg
from fedavg.errors import FedAvgError, ParameterError
from fedavg.flower.errors import NodeRefusal, NodeSetupError, WireError
from fedavg.flower.keys import SETTINGS, read_identity
from fedavg.flower.node import Node
from fedavg.flower.settings import PrivateRounds, RoundPlan
from fedavg.flower.wire import (
    HEADER,
    Request,
    arrays_of,
    content_hash,
    describe_form,
    read_request,
    users_records,
    write_reply,
)
from fedavg.interrupts import Pressed, told_apart
from fedavg.layout import Contribution
from fedavg.own_dice import OwnDice, kept
from fedavg.pytree import TreeSpec
from fedavg.step import run_step

__all__ = ["FOLDER", "private_mod"]

_logger = logging.getLogger("fedavg.flower.node")

FOLDER = "veilsum"
"""Key of the SuperNode's `--node-config` that names this node's folder."""
_REFUSED = 6  # Flower's error code for a mod whose precondition does not hold.
_SIX_THREE = 2**63 - 1

App = Callable[[Message, Context], Message]


def private_mod(
    rounds: PrivateRounds | None = None, *, folders: str | Path | None = None
) -> Callable[[Message, Context, App], Message]:
    """A mod after which a node answers private training rounds, and nothing else.

    Args:
        rounds: the settings where a node's folder holds no `rounds.json` of its own, as in simulations.
        folders: for simulations, where every node's folder is called `node-<partition-id>`, three digits. A SuperNode
            names its own with `--node-config 'veilsum="/path"'`, which counts first.

    Returns:
        The mod, for `ClientApp(mods=[...])`.

    Raises:
        ParameterError: `rounds` is something else, such as the path of a file.
    """
    if rounds is not None and not isinstance(rounds, PrivateRounds):
        raise ParameterError(
            f"rounds is {rounds!r}; give a PrivateRounds, such as PrivateRounds.read(path), or leave it out where each"
            f" node's folder holds its own {SETTINGS}"
        )

    def mod(message: Message, context: Context, app: App) -> Message:
        try:
            return _answer(rounds, folders, message, context, app)
        except secagg.RecordError as error:
            _logger.error("%s", error)
            reason = "its single-use record refused the round, or could not be written; the node's own log says which"
        except (FedAvgError, secagg.SecAggError, dp.DPError) as error:
            _logger.error("%s", error)
            reason = str(error)
        except Exception as error:
            _logger.exception("this node failed")
            reason = f"it failed ({type(error).__name__}); the node's own log says why"
        return Message(Error(_REFUSED, reason), reply_to=message)

    return mod


def _answer(
    rounds: PrivateRounds | None, folders: str | Path | None, message: Message, context: Context, app: App
) -> Message:
    if message.metadata.message_type.split(".")[0] != "train":
        raise NodeRefusal(
            f"a {message.metadata.message_type} message: this node answers private training rounds only"
        )
    _require_fresh(message)
    request = read_request(message.content)
    folder = _folder(folders, context.node_config)
    settings = _settings(rounds, folder)
    identity = read_identity(folder) if settings.is_malicious else None
    with _state(context) as state:
        node = Node(
            settings=settings,
            folder=folder,
            node=context.node_id & _SIX_THREE if identity is None else identity.node,
            identity=identity,
            state=state,
        )
        reply = node.answer(request, lambda plan: _train(plan, request, message, context, app))
    return Message(write_reply(reply), reply_to=message)


def _require_fresh(message: Message) -> None:
    """Say why where Flower would only drop the answer: what is sent after a message's time to live never arrives."""
    age, good_for = time.time() - message.metadata.created_at, message.metadata.ttl
    if age > good_for:
        raise NodeRefusal(
            f"the message is {age:.0f} seconds old by this node's clock and was good for {good_for:.0f}: the clocks of"
            " node and server differ, or this node was busy; set both by NTP"
        )


def _folder(folders: str | Path | None, node_config: Mapping[str, Any]) -> Path:
    """This node's own folder: named by its operator, or by a simulation."""
    named = node_config.get(FOLDER)
    if named:
        folder = Path(str(named))
        if not folder.is_dir():
            raise NodeSetupError(
                f"the node's folder {folder} does not exist; make it before the SuperNode starts"
            )
        return folder
    if folders is None or "partition-id" not in node_config:
        raise NodeSetupError(
            "this node has no folder for its records; start its SuperNode with --node-config 'veilsum=\"/path\"',"
            " or give private_mod(folders=) in a simulation"
        )
    folder = Path(folders) / f"node-{int(node_config['partition-id']):03d}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _settings(rounds: PrivateRounds | None, folder: Path) -> PrivateRounds:
    """What this node agrees to: its own file, which no server can change, before the app's."""
    own = folder / SETTINGS
    if own.exists():
        return PrivateRounds.read(own)
    if rounds is None:
        raise NodeSetupError(
            f"there is no {SETTINGS} in {folder}, and the app brings no settings; put one there"
        )
    return rounds


@contextmanager
def _state(context: Context) -> Iterator[dict[str, Any]]:
    """This node's state between messages; out of the app's sight, kept or emptied whatever happens."""
    record = context.state.pop(HEADER, None)
    state = dict(record) if isinstance(record, ConfigRecord) else {}
    try:
        yield state
    finally:
        context.state[HEADER] = ConfigRecord(state)


def _train(plan: RoundPlan, request: Request, message: Message, context: Context, app: App) -> Contribution:
    """Run the user's app on the model that the round is about."""
    records = users_records(message.content)
    _, arrays = arrays_of(records)
    spec = TreeSpec.of(arrays)
    if describe_form(spec) != request.form or content_hash(records) != request.model:
        raise NodeRefusal(f"round {request.round} brought another model than the one it is about")
    message.content = records

    def step(_: Any, __: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        with kept():
            # Flower's simulations play many nodes in one process: what one draws must not depend on another's data.
            OwnDice(os.urandom(32)).throw(0)
            try:
                reply = app(message, context)
            except Pressed:
                raise
            except KeyboardInterrupt as error:  # Flower's own handlers raise another.
                raise WireError("the app interrupted itself") from error
        if reply.has_error():
            raise WireError("the app answered with an error")
        return arrays_of(reply.content)[1], _metrics(reply.content)

    with told_apart():
        return run_step(step, plan.layout.spec, spec.flatten(arrays), None, metrics=plan.layout.metrics)


def _metrics(content: RecordDict) -> dict[str, Any]:
    """Everything the app measured; what is not declared stays here."""
    return {
        name: value
        for record in content.values()
        if isinstance(record, MetricRecord)
        for name, value in record.items()
    }
