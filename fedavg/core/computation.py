"""Federated computations: programs that are traced once, judged as they are traced, and immutable from then on.

Inside a traced function federated values are symbols: they have a type, a label, and elements, but no contents. They
can be given to the intrinsics and returned, nothing else: what would look into one (arithmetic, `if`, `for`, `float`)
is an error that says what to write instead.

Not here: the rules (`judgement`), the vocabulary (`intrinsics`), running (`context`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, overload

import numpy as np

from fedavg.client_data import ClientData
from fedavg.core import judgement
from fedavg.core.errors import ExecutionError, PrivacyTypeError, TypeMismatch
from fedavg.core.graph import Node, here, listing, upstream
from fedavg.core.local import LocalComputation, fits
from fedavg.core.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    FunctionType,
    StructType,
    Type,
    WithinType,
    to_type,
    type_of,
)

__all__ = [
    "FederatedComputation",
    "takes_clients",
    "Value",
    "current_context",
    "federated_computation",
    "insecure_trace",
    "values_in",
]

_OPERATORS = (
    "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow matmul rmatmul neg pos abs"
    " invert and rand or ror xor rxor lt le gt ge eq ne round"
)
_insecure_traces: ContextVar[bool] = ContextVar("insecure trace", default=False)
_active: ContextVar[Any] = ContextVar("context", default=None)


class Value:
    """A federated value inside a computation: a symbol for an expression.

    Args:
        node: The expression that it stands for.
    """

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        object.__setattr__(self, "node", node)

    node: Node

    @property
    def type_signature(self) -> FederatedType:
        """Its type."""
        return self.node.type

    def __repr__(self) -> str:
        return f"<federated value of type {self.node.type}, {self.node.label}>"

    def __getattr__(self, name: str) -> Value:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._select(name)

    def __getitem__(self, key: str | int) -> Value:
        return self._select(key)

    def __iter__(self) -> Iterator[Value]:
        kind = self._struct()
        if kind is None:
            self._opaque("a loop over it")
        return (self._select(position) for position in range(len(kind.elements)))

    def _struct(self) -> StructType | None:
        member = self.node.type.member
        member = member.member if isinstance(member, WithinType) else member
        return member if isinstance(member, StructType) else None

    def _select(self, key: str | int) -> Value:
        kind = self._struct()
        elements = () if kind is None else kind.elements
        for position, (name, member) in enumerate(elements):
            if key in (position, name):
                return Value(
                    judgement.derive(
                        "select", member, self.node.type.placement, (self.node,), detail=position
                    )
                )
        raise TypeMismatch(
            f"{here()}: {self.node.type} has no element {key!r}; use federated_map to compute with it"
        )

    def _opaque(self, what: str) -> NoReturn:
        raise PrivacyTypeError(
            f"{here()}: {what} would look into {self.node.type} while the program is being written; the number of"
            " events and the form of everything sent must not depend on values: compute inside federated_map, loop over"
            " range(n)"
        )

    def __bool__(self) -> bool:
        self._opaque("a condition on it")

    def __len__(self) -> int:
        self._opaque("len() of it")

    def __float__(self) -> float:
        self._opaque("float() of it")

    def __int__(self) -> int:
        self._opaque("int() of it")

    __index__ = __int__

    def __array__(self, *_: Any, **__: Any) -> Any:
        self._opaque("a numpy function of it")

    def __setattr__(self, name: str, value: object) -> None:
        self._opaque(f"setting {name}")


def _operator(name: str) -> Callable[..., Any]:
    def refused(self: Value, *_: Any) -> Any:
        self._opaque(f"Python's own {name}")

    return refused


for _name in _OPERATORS.split():
    setattr(Value, f"__{_name}__", _operator(_name))


@dataclass(frozen=True, eq=False)
class FederatedComputation:
    """A traced program: its parameters, the graph of its result, and its type.

    Calling it runs it in the context that is active (`with context:`); a program that asks nothing of clients needs
    none. Called with federated values, inside another computation, it becomes part of that one's graph and draw.

    Attributes:
        function: What was traced.
        parameters: A node for each parameter.
        result: The node or nest of nodes that it returns.
        insecure: Whether sums without a bound were let pass.
    """

    function: Callable[..., Any]
    parameters: tuple[Node, ...]
    result: Any
    """A nest of nodes and of plain constants."""
    insecure: bool

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.function, "__name__", "computation")

    @property
    def type_signature(self) -> FunctionType:
        """What it takes and returns, in TFF's notation."""
        kinds = [(node.detail, node.type) for node in self.parameters]
        parameter: Type | None = None
        if kinds:
            parameter = kinds[0][1] if len(kinds) == 1 else StructType(tuple(kinds))
        return FunctionType(parameter, _type_of_result(self.result))

    @property
    def results(self) -> tuple[Node, ...]:
        """The federated values in the result."""
        return tuple(values_in(self.result))

    @property
    def asks_clients(self) -> bool:
        """Whether anything in it is done at the clients."""
        return any(node.op in ("sum", "mean") for node in upstream(*self.results))

    def __str__(self) -> str:
        return f"{self.name}: {self.type_signature}\n{listing(*self.results)}"

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run it, or inline it where an argument is a federated value."""
        given = self._bind(arguments, named)
        if any(isinstance(argument, Value) for argument in given):
            return self._inline(given)
        context = _active.get()
        if context is None:
            from fedavg.core.context import Context

            if self.asks_clients:
                raise ExecutionError(
                    f"{self.name} asks clients, and no context is active; run it inside `with context:`, where context"
                    " is a fedavg.core.Context(...)"
                )
            context = Context.public()
        return context.run(self, *given).value

    def privacy(self, context: Any = None) -> Any:
        """What a run costs, without running anything: both statements and the list of events.

        Args:
            context: The context to run in; the active one when None.

        Returns:
            A `fedavg.core.PrivacyReport`.

        Raises:
            ExecutionError: no context was given and none is active, or it cannot state a cost.
        """
        context = context or _active.get()
        if context is None:
            raise ExecutionError(
                "the cost depends on cohort and noise: give privacy() a context, or activate one"
            )
        return context.privacy(self)

    def _bind(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        names = [node.detail for node in self.parameters]
        given = {**dict(zip(names, arguments, strict=False)), **named}
        if (
            len(arguments) > len(names)
            or set(given) != set(names)
            or len(given) != len(arguments) + len(named)
        ):
            raise TypeMismatch(f"{self.name} takes {', '.join(names) or 'nothing'}: {self.type_signature}")
        return tuple(given[name] for name in names)

    def _inline(self, given: tuple[Any, ...]) -> Any:
        for node, argument in zip(self.parameters, given, strict=True):
            if not isinstance(argument, Value) or not fits(argument.node.type, node.type):
                found = argument.node.type if isinstance(argument, Value) else type(argument).__name__
                raise TypeMismatch(
                    f"{here()}: {self.name} takes {node.type} as {node.detail}, and is given {found}"
                )
        if self.insecure and not insecure_trace():
            judgement.refuse(f"{self.name} is insecure", "a program that calls it must be insecure=True, too")
        return self.function(*given)


@overload
def federated_computation(function: Callable[..., Any], /) -> FederatedComputation: ...
@overload
def federated_computation(
    *types: Any, insecure: bool = False
) -> Callable[[Callable[..., Any]], FederatedComputation]: ...
def federated_computation(*types: Any, insecure: bool = False) -> Any:
    """Trace a function into a federated computation, and judge it.

    Args:
        types: The types of its parameters: `at_clients(...)` or `at_server(...)`.
        insecure: Let sums without a bound pass, for debugging; such a program runs in an insecure context alone.

    Returns:
        The program; without `types` before the function, a decorator that makes it.

    Raises:
        PrivacyTypeError: it could move something from the clients to the server un-noised.
        TypeMismatch: types do not fit.

    >>> from fedavg.core import at_clients, federated_clip, federated_mean
    >>> federated_computation(lambda: "Hello, World!")()
    'Hello, World!'
    >>> @federated_computation(at_clients(np.float32))
    ... def get_average_temperature(sensor_readings):
    ...     return federated_mean(federated_clip(sensor_readings, l2=150.0))
    >>> str(get_average_temperature.type_signature)
    '({float32}@CLIENTS -> float32@SERVER)'
    """
    if len(types) == 1 and callable(types[0]) and not isinstance(types[0], type | np.dtype):
        return _trace(types[0], (), insecure)
    kinds = tuple(map(to_type, types))
    for kind in kinds:
        if not isinstance(kind, FederatedType):
            raise TypeMismatch(f"a parameter of type {kind} has no placement; use at_clients or at_server")
    return lambda function: _trace(function, kinds, insecure)


def current_context() -> ContextVar[Any]:
    """Where the active context is kept."""
    return _active


def insecure_trace() -> bool:
    """Whether the program being traced may be insecure."""
    return _insecure_traces.get()


def values_in(result: Any) -> Iterator[Node]:
    """The nodes in a result."""
    if isinstance(result, Node):
        yield result
    elif isinstance(result, Mapping):
        for item in result.values():
            yield from values_in(item)
    elif isinstance(result, list | tuple):
        for item in result:
            yield from values_in(item)


def _trace(function: Callable[..., Any], kinds: tuple[Any, ...], insecure: bool) -> FederatedComputation:
    names = list(inspect.signature(function).parameters)
    if len(names) != len(kinds):
        raise TypeMismatch(
            f"{getattr(function, '__name__', 'the function')} takes {len(names)} parameters, and {len(kinds)} types are"
            " given; give one type each"
        )
    parameters = tuple(
        judgement.source("parameter", kind, name) for name, kind in zip(names, kinds, strict=True)
    )
    token = _insecure_traces.set(insecure)
    try:
        result = _nodes(function(*map(Value, parameters)))
    finally:
        _insecure_traces.reset(token)
    computation = FederatedComputation(function, parameters, result, insecure)
    for node in upstream(*computation.results):
        if node.label == "raw" and node.type.placement == SERVER and not insecure:
            raise PrivacyTypeError(
                f"{computation.name} uses {node.where}, which has no bound; it is of an insecure program: bound"
                " what it sums with federated_clip"
            )
        if node.op == "parameter" and node not in parameters:
            raise PrivacyTypeError(
                f"{computation.name} uses {node.detail} of {node.where}, which belongs to another computation; take it"
                " as a parameter"
            )
    for node in computation.results:
        judgement.release(node, insecure=insecure)
    return computation


def _nodes(result: Any) -> Any:
    if isinstance(result, Value):
        return result.node
    if isinstance(result, Mapping):
        return {str(name): _nodes(item) for name, item in result.items()}
    if isinstance(result, list | tuple):
        return tuple(map(_nodes, result))
    if isinstance(result, ClientData | LocalComputation) or callable(result):
        raise TypeMismatch(
            f"{here()}: a computation cannot return a {type(result).__name__}; return federated values"
        )
    type_of(result)
    return result


def _type_of_result(result: Any) -> Type:
    if isinstance(result, Node):
        return result.type
    if isinstance(result, Mapping):
        return StructType(tuple((name, _type_of_result(item)) for name, item in result.items()))
    if isinstance(result, tuple):
        return StructType(tuple((None, _type_of_result(item)) for item in result))
    return type_of(result)


def takes_clients(kind: FederatedType) -> bool:
    """Whether an argument is one value for each client."""
    return kind.placement == CLIENTS and not kind.all_equal
