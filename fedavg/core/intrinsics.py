"""The vocabulary of federated computations: what may be done with values at the clients and at the server.

    federated_value, federated_eval      a constant; what a function of nothing gives, at the clients or at the server
    federated_map, federated_zip         a function on each value; several values as one
    federated_clip, federated_filter     a bound on the L2 norm; leaving clients out, who then contribute zeros
    federated_broadcast                  from the server to all clients
    federated_sum, federated_mean        from the clients to the server: private, or the program does not type-check

Not here: why a use is refused (`judgement`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedavg.core import judgement
from fedavg.core.computation import FederatedComputation, Value, insecure_trace
from fedavg.core.errors import TypeMismatch
from fedavg.core.graph import Noise, here
from fedavg.core.local import LocalComputation, checker
from fedavg.core.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    Placement,
    StructType,
    TensorType,
    type_of,
    within,
)
from fedavg.core.values import copied
from fedavg.errors import StepError

__all__ = [
    "federated_broadcast",
    "federated_clip",
    "federated_eval",
    "federated_filter",
    "federated_map",
    "federated_mean",
    "federated_sum",
    "federated_value",
    "federated_zip",
]

Function = LocalComputation | Callable[..., Any]
Operand = Value | tuple[Any, ...] | list[Any] | dict[str, Any]


def federated_value(value: Any, placement: Placement) -> Value:
    """A public constant, at the server or the same at every client. It stands in the program for all to read.

    Args:
        value: A nest of arrays, numbers and text; not a federated value.
        placement: `SERVER` or `CLIENTS`.

    Raises:
        TypeMismatch: it is a federated value already, or no nest of arrays, numbers and text.
    """
    if isinstance(value, Value):
        raise TypeMismatch(
            f"{here()}: {value.node.type} is a federated value already; federated_value takes constants"
        )
    kind = type_of(value)
    try:
        constant = copied(checker(kind)(value))
    except StepError as error:
        raise TypeMismatch(f"{here()}: {error}") from error
    return Value(judgement.source("value", FederatedType(kind, _placement(placement), True), constant))


def federated_eval(function: Function, placement: Placement) -> Value:
    """What a function of no arguments gives: at the clients each one's own, and raw; at the server public.

    Args:
        function: Of no arguments.
        placement: `SERVER` or `CLIENTS`.
    """
    local = _local(function)
    kind = FederatedType(local.result_type(None), _placement(placement), placement == SERVER)
    return Value(judgement.source("eval", kind, None, local))


def federated_map(function: Function, value: Operand) -> Value:
    """A function on each client's value, or on the server's.

    Args:
        function: A local computation, or a plain function, whose result type is inferred on zeros.
        value: A federated value, or a tuple or dict of them, which is zipped; a function of as many parameters as there
            are elements gets them one by one.
    """
    node, local = federated_zip(value).node if not isinstance(value, Value) else value.node, _local(function)
    member = local.result_type(node.type.member)
    return Value(judgement.derive("map", member, node.type.placement, (node,), function=local))


def federated_zip(value: Operand) -> Value:
    """A tuple or dict of values in one place, as one value of that place.

    Raises:
        TypeMismatch: nothing to zip, or values in different places.
    """
    if isinstance(value, Value):
        return value
    items = value.items() if isinstance(value, dict) else [(None, item) for item in value]
    nodes = [(name, federated_zip(item).node) for name, item in items]
    if not nodes:
        raise TypeMismatch(f"{here()}: there is nothing to zip; give at least one federated value")
    placements = {node.type.placement for _, node in nodes}
    if len(placements) > 1:
        at = {node.type.placement: node.type for _, node in nodes}
        judgement.refuse(
            f"{at[CLIENTS]} and {at[SERVER]} are in two places",
            "bring the server's to the clients with federated_broadcast, the clients' to the server with federated_sum",
        )
    member = StructType(tuple((name, node.type.member) for name, node in nodes))
    return Value(judgement.derive("zip", member, placements.pop(), tuple(node for _, node in nodes)))


def federated_clip(value: Operand, *, l2: float) -> Value:
    """The value with its joint L2 norm clipped to a bound, and the bound in its type.

    Args:
        value: Of a fixed shape, or several of them, clipped jointly.
        l2: The bound, above 0, in the value's own unit.

    Raises:
        TypeMismatch: a shape that is not fixed, a bound that is not positive, or a value that is not at the
            clients.
    """
    node = federated_zip(value).node
    try:
        bounded = within(node.type.member, l2=l2)
    except TypeMismatch as error:
        raise TypeMismatch(f"{here()}: {error}") from error
    return Value(judgement.derive("clip", bounded, node.type.placement, (node,), detail=bounded.l2))


def federated_filter(value: Operand, keep: Function) -> Value:
    """The value at the clients for which `keep` holds; the others contribute zeros to whatever is summed of it.

    They answer all the same, and divisors stay what they were, so nobody learns who or how many were left out. For a
    mean over those kept, weigh the others with 0.

    Raises:
        TypeMismatch: the value is at the server, or `keep` returns no truth value.
    """
    node, local = federated_zip(value).node, _local(keep)
    if node.type.placement != CLIENTS:
        raise TypeMismatch(f"{here()}: federated_filter chooses among clients; {node.type} is at the server")
    kind = local.result_type(node.type.member)
    if kind != TensorType("bool"):
        raise TypeMismatch(
            f"{here()}: {local} must return one truth value, True where the client is kept, and returns {kind}; make it"
            " bool(...)"
        )
    return Value(judgement.derive("filter", node.type.member, CLIENTS, (node,), function=local))


def federated_broadcast(value: Operand) -> Value:
    """The server's value at every client."""
    node = federated_zip(value).node
    if node.type.placement != SERVER:
        judgement.refuse(
            f"{node.type} is at the clients: a broadcast would show one client's value to all",
            "only the server's values are broadcast; bring it there with federated_sum or federated_mean first",
        )
    return Value(judgement.derive("broadcast", node.type.member, CLIENTS, (node,)))


def federated_sum(value: Operand, *, noise: Noise | None = None) -> Value:
    """The noised sum at the server of what the clients hold, each clipped to the bound in the type.

    Args:
        value: Of fixed shapes, with a bound in its type for every part.
        noise: This aggregation's mechanism; by default its equal share of the context's.
    """
    return Value(
        judgement.aggregate("sum", federated_zip(value).node, None, noise, insecure=insecure_trace())
    )


def federated_mean(value: Operand, weight: Value | None = None, *, noise: Noise | None = None) -> Value:
    """The noised mean at the server of what the clients hold.

    Without weights, the noised sum over the public expected number of contributors. With weights, the noised sum of
    weight times value over the noised sum of weights, both of one jointly clipped vector; the denominator never goes
    below four deviations of its noise.

    Args:
        value: Of fixed shapes, with a bound in its type.
        weight: One number per client, from 0 to the bound in its type; what is outside is clipped.
        noise: As for `federated_sum`.
    """
    weighing = None if weight is None else weight.node
    return Value(
        judgement.aggregate("mean", federated_zip(value).node, weighing, noise, insecure=insecure_trace())
    )


def _local(function: Function) -> LocalComputation:
    if isinstance(function, LocalComputation):
        return function
    if isinstance(function, FederatedComputation) or not callable(function):
        raise TypeMismatch(
            f"{here()}: {function!r} is no function on plain values; give a local_computation, and call federated"
            " computations directly"
        )
    return LocalComputation(function, None, None)


def _placement(placement: Placement) -> Placement:
    if placement not in (CLIENTS, SERVER):
        raise TypeMismatch(f"{here()}: the placement is {placement!r}; it is CLIENTS or SERVER")
    return placement
