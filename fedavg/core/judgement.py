"""Privacy as a type judgement: which expression may stand where, and what it may reveal.

The rules, each enforced where the expression is written and before any data exists:

1. At the clients a value is raw or public. A map that touches raw is raw; what a client computes for itself
   (`federated_eval`) is raw. A map over public values alone is computed once, where it is public, never on a client.
2. Only `federated_sum` and `federated_mean` lead from the clients to the server. Each needs a bound in the type of
   what it sums, and clips to it itself, on the client, whatever the function before claims.
3. Shape, dtype, who answers and how often do not depend on raw: only fixed shapes are summed, a function that fails
   contributes zeros, and so does a client that a filter leaves out.
4. What runs at the server takes noised and public values only.
5. All aggregations under one draw are one sampled event (`fedavg.core.plan`).
6. Nothing branches or loops on a federated value, so the number of events is the program's text; how often the program
   runs is the context's number of rounds, or a filter's.
7. Keys are coordinates: a sum over an open domain has no fixed coordinates and does not type-check. So no threshold
   of an output costs a delta; searches of open domains (`fedavg.analytics`) go over coordinates, too.
8. No function captures what could hold a client's value, or carry it out (`fedavg.core.captures`).

Guarantee: the result of a program that type-checks depends on a client's data only through its private aggregations,
each of L2 sensitivity at most the bound in its type, under zero-out adjacency. It holds for the expressions, and for
bounds, constants and a program that were chosen without looking at clients' data: `federated_clip(x, l2=max(data))` and
`federated_value(max(data), SERVER)` tell the largest value, and nothing here can see it. What a function's body does
behind the expressions (files, sockets, a library's settings) is the client's own software, as everywhere;
`fedavg.core.captures` has the list of what rule 8 does not see.
"""

from __future__ import annotations

from typing import NoReturn

from fedavg.core.errors import PrivacyTypeError, TypeMismatch
from fedavg.core.graph import Label, Node, Noise, Operation, here
from fedavg.core.local import LocalComputation
from fedavg.core.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    Placement,
    StructType,
    TensorType,
    Type,
    WithinType,
    is_fixed,
    leaves,
    parts,
    unbounded,
)

__all__ = ["aggregate", "derive", "refuse", "release", "source"]

_ORDER: tuple[Label, ...] = ("public", "noised", "raw")


def refuse(problem: str, fix: str) -> NoReturn:
    """Raise the error that names the expression and the fix."""
    raise PrivacyTypeError(f"{here()}: {problem}; {fix}")


def source(
    op: Operation, kind: FederatedType, detail: object, function: LocalComputation | None = None
) -> Node:
    """A value that depends on no other: rule 1."""
    label: Label = "public" if kind.all_equal else "raw"
    return Node(op, kind, label, here(), (), function, detail)


def derive(
    op: Operation,
    member: Type,
    placement: Placement,
    inputs: tuple[Node, ...],
    *,
    function: LocalComputation | None = None,
    detail: object = None,
) -> Node:
    """What is computed from other values, without leaving where they are, except by broadcast: rules 1, 2 and 4."""
    label = max((node.label for node in inputs), key=_ORDER.index)
    if placement == SERVER:
        stray = next((node for node in inputs if node.type.placement == CLIENTS), None)
        if stray is not None:
            refuse(
                f"{stray.type} cannot go to the server as it is",
                "sum it there with federated_sum or federated_mean, which add noise",
            )
        return Node(op, FederatedType(member, SERVER, True), label, here(), inputs, function, detail)
    if op in ("broadcast", "filter"):
        label = "public" if op == "broadcast" else "raw"
    return Node(
        op, FederatedType(member, CLIENTS, label == "public"), label, here(), inputs, function, detail
    )


def aggregate(
    op: Operation, value: Node, weight: Node | None, noise: Noise | None, *, insecure: bool
) -> Node:
    """The only way from the clients to the server: rules 2, 3 and 7."""
    inputs = (value,) if weight is None else (value, weight)
    for node in inputs:
        if node.type.placement != CLIENTS:
            refuse(f"{node.type} is at the server already", f"federated_{op} takes values at CLIENTS")
        _check_fixed(op, node.type.member)
    unbound = [
        path for node in inputs for path, part in parts(node.type.member) if not isinstance(part, WithinType)
    ]
    if unbound and not insecure:
        at = "" if unbound == [""] else f" at {', '.join(unbound)}"
        refuse(
            f"federated_{op} of {inputs[0].type if weight is None else weight.type} has no bound{at}, so that one"
            " client could change the result by any amount and no noise would hide it",
            "bound it on the client, before the sum: federated_clip(value, l2=...) or returns=within(..., l2=...)",
        )
    if weight is not None and not (
        isinstance(unbounded(weight.type.member), TensorType)
        and unbounded(weight.type.member) == TensorType(unbounded(weight.type.member).dtype)  # type: ignore[union-attr]
    ):
        raise TypeMismatch(f"{here()}: the weight is {weight.type}; give one number per client")
    if weight is not None and not unbound and not isinstance(value.type.member, WithinType):
        refuse(
            f"the weighted mean of {value.type} clips value and weight jointly, and the value has several bounds",
            "bound it as a whole: federated_clip(value, l2=...)",
        )
    result = FederatedType(_real(unbounded(value.type.member)), SERVER, True)
    return Node(op, result, "raw" if unbound else "noised", here(), inputs, None, noise or Noise())


def release(node: Node, *, insecure: bool) -> None:
    """What a computation may return: rule 2 once more."""
    if node.label == "raw" and not (insecure and node.type.placement == SERVER):
        raise PrivacyTypeError(
            f"{node.where}: the result holds {node.type}, what the clients hold, un-noised; return what federated_sum"
            " or federated_mean made of it, or leave it out"
        )


def _check_fixed(op: Operation, kind: Type) -> None:
    if is_fixed(kind):
        return
    path, leaf = next((path, leaf) for path, leaf in leaves(kind) if not is_fixed(leaf))
    if isinstance(leaf, TensorType) and leaf.dtype == "str":
        refuse(
            f"federated_{op} of text{path and ' at ' + path} ranges over an open domain: which keys occur would be told"
            " without noise",
            "count over fixed coordinates, or search the domain with fedavg.analytics.heavy_hitters",
        )
    refuse(
        f"federated_{op} of {leaf}{path and ' at ' + path} has a length that depends on what a client holds",
        "map it to a fixed shape first: every client sends the same form",
    )


def _real(kind: Type) -> Type:
    """Sums hold noise, so whole numbers become floats."""
    match kind:
        case TensorType(dtype, shape) if not dtype.startswith("float"):
            return TensorType("float64", shape)
        case StructType():
            return StructType(tuple((name, _real(item)) for name, item in kind.elements))
        case _:
            return kind
