"""The program as a value: an immutable graph of placed expressions, each with its type, its label and its place.

A label says what an expression may reveal:

    raw      at the clients: depends on what one client holds
    public   at the clients or at the server: known to everybody without asking a client
    noised   at the server: a private aggregation's result, or computed from such

Not here: which label follows from which (`judgement`), and how a program is written (`computation`, `intrinsics`).
"""

from __future__ import annotations

import linecache
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedavg.core.captures import LIBRARIES
from fedavg.core.errors import TypeMismatch
from fedavg.core.types import FederatedType

if TYPE_CHECKING:
    from fedavg.core.local import LocalComputation

__all__ = ["Label", "Node", "Noise", "Operation", "caller", "here", "listing", "upstream"]

Label = Literal["raw", "public", "noised"]
Operation = Literal[
    "parameter", "value", "eval", "map", "broadcast", "zip", "select", "clip", "filter", "sum", "mean"
]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The mechanism of one aggregation: its own noise multiplier, or a share of what the context leaves.

    Args:
        multiplier: Deviation of the noise over this aggregation's own sensitivity; None takes what the context leaves.
        weight: Share of what the context leaves, relative to the other aggregations under the same draw.
    """

    multiplier: float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("multiplier", self.multiplier), ("weight", self.weight)):
            if value is not None and not 0 < value < inf:
                raise TypeMismatch(f"{name} is {value}; give a positive number")


@dataclass(frozen=True, eq=False)
class Node:
    """One expression: equal only to itself."""

    op: Operation
    type: FederatedType
    label: Label
    where: str
    inputs: tuple[Node, ...] = ()
    function: LocalComputation | None = None
    detail: Any = None
    """A parameter's name, a value, the selected element, a bound, or an aggregation's `Noise`."""


def upstream(*roots: Node) -> Iterator[Node]:
    """Every node the roots depend on, themselves included, inputs first."""
    seen: set[Node] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((before, False) for before in reversed(node.inputs))


def listing(*roots: Node) -> str:
    """The graph in words, one expression a line."""
    names: dict[Node, str] = {}
    lines = []
    for node in upstream(*roots):
        names[node] = node.detail if node.op == "parameter" else f"v{len(names)}"
        arguments = [str(node.function)] if node.function else []
        arguments += [names[before] for before in node.inputs]
        if node.op in ("value", "select", "clip"):
            arguments.append(repr(node.detail))
        call = node.op if node.op == "parameter" else f"federated_{node.op}({', '.join(arguments)})"
        lines.append(f"{names[node]}: {node.type} [{node.label}] = {call}")
    return "\n".join(lines)


def caller() -> types.FrameType:
    """The innermost call that is in the user's own code."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(LIBRARIES):
        frame = frame.f_back
    return frame


def here() -> str:
    """The user's line that is being traced: file, number and text."""
    frame = caller()
    name, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(name, line).strip()
    return f"{Path(name).name}, line {line}" + (f": `{text}`" if text else "")
