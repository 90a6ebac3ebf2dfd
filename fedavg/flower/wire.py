"""What travels between server and nodes beside the user's own records: one header and one array of bytes.

A request holds `veilsum` (a ConfigRecord: version, stage, round, model hash and form, node id, padding flag) and
`veilsum.data` (an ArrayRecord of one uint8 array: the protocol's message). A reply holds both too, and nothing else.

Invariants:

- everything is checked before use: names, types, version, lengths; what does not fit is a `WireError` of one line;
- the model's form is bounded before anything of its size is made.

Not here: what the bytes mean (`secagg`), who answers (`fedavg.flower.node`, `fedavg.flower.rounds`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedavg.errors import TreeError
from fedavg.flower.errors import WireError
from fedavg.flower.settings import VERSION
from fedavg.pytree import TreeSpec
from secagg.phases import STAGES

__all__ = [
    "DATA",
    "HEADER",
    "Reply",
    "Request",
    "arrays_of",
    "content_hash",
    "describe_form",
    "read_form",
    "read_reply",
    "read_request",
    "users_records",
    "write_reply",
    "write_request",
]

HEADER = "veilsum"
DATA = "veilsum.data"
_STAGES = tuple(stage.value for stage in STAGES["malicious"])
_MOST_LEAVES = 100_000
_MOST_VALUES = 2**31


@dataclass(frozen=True)
class Request:
    """One stage's message to one node.

    Attributes:
        stage: "advertise", "share", "masked_input", "consistency" or "unmask".
        round: the round's number.
        model: 32 bytes naming the model and configuration that the round is about.
        form: the form of that model, `describe_form`.
        node: the protocol's id of the node, where the server knows it; -1 where the node tells.
        contributes: whether a node that was drawn is to include its data; False for padding.
        data: the protocol's message.
    """

    stage: str
    round: int
    model: bytes
    form: str
    node: int
    contributes: bool
    data: bytes


@dataclass(frozen=True)
class Reply:
    """A node's answer: which node says it is, for which stage and round, and the protocol's message."""

    stage: str
    round: int
    node: int
    data: bytes


def write_request(request: Request, records: RecordDict | None = None) -> RecordDict:
    """The content of a message to a node; the user's own records ride along where they are due."""
    content = RecordDict() if records is None else RecordDict(dict(records))
    content[HEADER] = ConfigRecord(
        {
            "version": VERSION,
            "stage": request.stage,
            "round": request.round,
            "model": request.model,
            "form": request.form,
            "node": request.node,
            "contributes": request.contributes,
        }
    )
    content[DATA] = _array(request.data)
    return content


def write_reply(reply: Reply) -> RecordDict:
    """The content of a node's answer."""
    header = {"version": VERSION, "stage": reply.stage, "round": reply.round, "node": reply.node}
    return RecordDict({HEADER: ConfigRecord(header), DATA: _array(reply.data)})


def read_request(content: RecordDict) -> Request:
    """Check a request and take it apart.

    Raises:
        WireError: it is not one, or of another version.
    """
    header = _header(content)
    request = Request(
        stage=_field(header, "stage", str),
        round=_field(header, "round", int),
        model=_field(header, "model", bytes),
        form=_field(header, "form", str),
        node=_field(header, "node", int),
        contributes=_field(header, "contributes", bool),
        data=_bytes(content),
    )
    if request.stage not in _STAGES:
        raise WireError(f"there is no stage {request.stage[:40]!r}")
    if len(request.model) != 32 or request.round < 0:
        raise WireError("the header names no round or no model")
    return request


def read_reply(content: RecordDict) -> Reply:
    """Check a reply and take it apart.

    Raises:
        WireError: it is not one, holds anything else, or is of another version.
    """
    if odd := sorted(set(content) - {HEADER, DATA}):
        raise WireError(
            f"the reply holds {odd[0][:40]!r} beside the masked vector; nothing else may leave a node"
        )
    header = _header(content)
    return Reply(
        stage=_field(header, "stage", str),
        round=_field(header, "round", int),
        node=_field(header, "node", int),
        data=_bytes(content),
    )


def users_records(content: RecordDict) -> RecordDict:
    """The user's own records of a message: all but ours."""
    return RecordDict({key: record for key, record in content.items() if key not in (HEADER, DATA)})


def arrays_of(content: RecordDict) -> tuple[str, dict[str, NDArray[Any]]]:
    """The one ArrayRecord of a message: its key and its arrays.

    Raises:
        WireError: there is none, there are several, or an array is damaged.
    """
    found = {
        key: record for key, record in content.items() if isinstance(record, ArrayRecord) and key != DATA
    }
    if len(found) != 1:
        raise WireError(f"the message holds {len(found)} models; send exactly one ArrayRecord")
    key, record = next(iter(found.items()))
    return key, {name.replace("/", "|"): _numpy(array) for name, array in record.items()}


def content_hash(content: RecordDict) -> bytes:
    """32 bytes that name a model and the configuration sent with it.

    Every name, dtype, shape and value counts, in sorted order and each with its length, so that two nodes that were
    sent anything different disagree.
    """
    digest = hashlib.sha256(b"veilsum flower model 1")
    for key in sorted(users_records(content)):
        record = content[key]
        _feed(digest, type(record).__name__, key)
        for name in sorted(record):
            if isinstance(record, ArrayRecord):
                array = np.ascontiguousarray(_numpy(record[name]))
                _feed(digest, name, array.dtype.str, str(array.shape), array.tobytes())
            elif isinstance(record, ConfigRecord | MetricRecord):
                _feed(digest, name, type(record[name]).__name__, repr(record[name]))
    return digest.digest()


def describe_form(spec: TreeSpec) -> str:
    """The form of a model, to be sent before the model itself."""
    return json.dumps([[leaf.path, leaf.dtype.str, list(leaf.shape)] for leaf in spec.leaves])


def read_form(form: str) -> TreeSpec:
    """The inverse of `describe_form`, without making arrays of that size.

    Raises:
        WireError: it describes no model of floating-point arrays.
    """
    try:
        rows = json.loads(form)
        if not isinstance(rows, list) or not 0 < len(rows) <= _MOST_LEAVES:
            raise WireError("the header describes no model")
        tree = {str(path): _form_leaf(dtype, shape) for path, dtype, shape in rows}
        spec = TreeSpec.of(tree)
    except (ValueError, TypeError, TreeError) as error:
        raise WireError("the header describes no model of floating-point arrays") from error
    if len(tree) != len(rows) or spec.size > _MOST_VALUES:
        raise WireError(
            f"the header describes a model of {spec.size} values; at most {_MOST_VALUES} can be summed"
        )
    return spec


def _form_leaf(dtype: str, shape: list[int]) -> NDArray[Any]:
    """An array of the shape that takes no memory."""
    return np.broadcast_to(np.zeros((), np.dtype(str(dtype))), tuple(int(n) for n in shape))


def _array(data: bytes) -> ArrayRecord:
    return ArrayRecord({"bytes": Array(np.frombuffer(data, np.uint8))})


def _bytes(content: RecordDict) -> bytes:
    record = content.get(DATA)
    if not isinstance(record, ArrayRecord) or list(record) != ["bytes"]:
        raise WireError("the message holds no protocol data")
    array = _numpy(record["bytes"])
    if array.dtype != np.uint8 or array.ndim != 1:
        raise WireError(
            f"the protocol data has dtype {array.dtype} and {array.ndim} dimensions; it takes bytes"
        )
    return array.tobytes()


def _numpy(array: Array) -> NDArray[Any]:
    values: Any = None
    try:
        values = array.numpy()
    except Exception as error:  # Whatever numpy's reader raises: the header is the other side's, too.
        raise WireError("an array in the message is damaged or truncated") from error
    if not isinstance(values, np.ndarray):
        raise WireError("an array in the message is an archive of several")
    return values


def _header(content: RecordDict) -> ConfigRecord:
    header = content.get(HEADER)
    if not isinstance(header, ConfigRecord):
        raise WireError("the message holds no veilsum header: the other side runs without veilsum")
    version = header.get("version")
    if version != VERSION:
        raise WireError(
            f"the other side speaks version {version!r}, this one {VERSION}; run the same veilsum on both"
        )
    return header


def _field(header: ConfigRecord, name: str, kind: type) -> Any:
    value = header.get(name)
    if type(value) is not kind:
        raise WireError(f"the header's {name} is missing or no {kind.__name__}")
    return value


def _feed(digest: Any, *parts: str | bytes) -> None:
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
