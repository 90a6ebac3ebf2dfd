"""Types of federated values, printed in TensorFlow Federated's notation.

    float32  float32[784,10]  str          tensors (`?` is a length that is not fixed)
    <a=float32,b=int32>  <float32,int32>   structs
    float32*                               sequences
    (float32 -> int32)  ( -> float32)      functions
    {float32}@CLIENTS                      one value per client: *raw*
    float32@CLIENTS                        the same value at every client: *public*
    float32@SERVER                         one value at the server: *noised* or *public*
    float32[10] within L2 1.0              a bound that every aggregation enforces by a clip of its own

Types are immutable values: equal when they print alike. A bound is part of a type and of nothing else.

Not here: which programs may move what where (`judgement`), values and tracing (`computation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedavg.core.errors import TypeMismatch

__all__ = [
    "CLIENTS",
    "SERVER",
    "FederatedType",
    "FunctionType",
    "Placement",
    "SequenceType",
    "StructType",
    "TensorType",
    "Type",
    "WithinType",
    "at_clients",
    "at_server",
    "is_bound",
    "is_fixed",
    "leaves",
    "parts",
    "size",
    "to_type",
    "type_of",
    "unbounded",
    "within",
    "zeros",
]

_LEAST_BOUND, _MOST_BOUND = 1e-150, 1e150
Placement = Literal["CLIENTS", "SERVER"]
"""Where a federated value is."""

CLIENTS: Placement = "CLIENTS"
"""One value at each client, or one that all clients have."""

SERVER: Placement = "SERVER"
"""At the server, and public."""


@dataclass(frozen=True)
class TensorType:
    """An array: dtype by its numpy name (`str` for text), and a shape in which None is a length not fixed."""

    dtype: str
    shape: tuple[int | None, ...] = ()

    def __str__(self) -> str:
        return self.dtype + (
            f"[{','.join('?' if n is None else str(n) for n in self.shape)}]" * bool(self.shape)
        )


@dataclass(frozen=True)
class StructType:
    """Named or unnamed elements in their order."""

    elements: tuple[tuple[str | None, Type], ...]

    def __post_init__(self) -> None:
        for name, _ in self.elements:
            if (
                name is not None and type(name) is not str
            ):  # Values carry the names: they are text and no more.
                raise TypeMismatch(f"the name {name!r} of an element is no plain text; give it as str")

    def __str__(self) -> str:
        return (
            f"<{','.join(str(kind) if name is None else f'{name}={kind}' for name, kind in self.elements)}>"
        )


@dataclass(frozen=True)
class SequenceType:
    """Any number of elements of one type.

    Attributes:
        element: Type of each element.
    """

    element: Type

    def __str__(self) -> str:
        return f"{self.element}*"


@dataclass(frozen=True)
class FunctionType:
    """A function, of nothing where `parameter` is None.

    Attributes:
        parameter: What it takes, or None.
        result: What it gives.
    """

    parameter: Type | None
    result: Type

    def __str__(self) -> str:
        return f"({'' if self.parameter is None else self.parameter} -> {self.result})"


@dataclass(frozen=True)
class WithinType:
    """A tensor or struct with the bound on its joint L2 norm that whoever sums it enforces.

    Attributes:
        member: What is bounded.
        l2: The bound, in the value's own unit.
    """

    member: TensorType | StructType
    l2: float

    def __str__(self) -> str:
        return f"{self.member} within L2 {self.l2}"


@dataclass(frozen=True)
class FederatedType:
    """A value at the clients (one each, or everywhere the same) or at the server.

    Attributes:
        member: Type of one value.
        placement: CLIENTS or SERVER.
        all_equal: Whether it is public and everywhere the same.
    """

    member: Type
    placement: Placement
    all_equal: bool

    def __str__(self) -> str:
        return f"{self.member}@{self.placement}" if self.all_equal else f"{{{self.member}}}@{self.placement}"


Type = TensorType | StructType | SequenceType | FunctionType | WithinType | FederatedType
"""Any type of the federated core."""


def at_clients(member: Any, *, all_equal: bool = False) -> FederatedType:
    """One value of the type at each client; `all_equal` where it is public and the same for all.

    Args:
        member: A type, as `to_type` takes it.
        all_equal: Whether the value is public and the same for all.

    >>> str(at_clients(np.float32)), str(at_clients(np.float32, all_equal=True))
    ('{float32}@CLIENTS', 'float32@CLIENTS')
    """
    return FederatedType(_placeable(to_type(member)), CLIENTS, all_equal)


def at_server(member: Any) -> FederatedType:
    """A value of the type at the server.

    Args:
        member: A type, as `to_type` takes it.

    >>> str(at_server({"w": (np.float32, (784, 10)), "b": (np.float32, (10,))}))
    '<w=float32[784,10],b=float32[10]>@SERVER'
    """
    return FederatedType(_placeable(to_type(member)), SERVER, True)


def within(member: Any, *, l2: float) -> WithinType:
    """The type with a bound on its L2 norm, joint over all its elements.

    Args:
        member: A tensor or struct type, in any form that `to_type` takes.
        l2: The bound, above 0, in the value's own unit.

    Raises:
        TypeMismatch: the bound is no positive number, or there is nothing to take a norm of.

    >>> str(within((np.float32, (10,)), l2=1.0))
    'float32[10] within L2 1.0'
    """
    kind = unbounded(to_type(member))
    if not isinstance(kind, TensorType | StructType) or not is_fixed(kind):
        raise TypeMismatch(
            f"{kind} has no L2 norm to bound; bound a tensor or struct of fixed shapes and numbers"
        )
    if not is_bound(l2):
        raise TypeMismatch(
            f"the bound is {l2}; give a positive number, the largest L2 norm that counts, from {_LEAST_BOUND} to"
            f" {_MOST_BOUND} (squares of others are no floats); change the unit"
        )
    return WithinType(kind, float(l2))


def is_bound(l2: float) -> bool:
    """Whether a bound is one: positive, and with a square that a float holds."""
    return _LEAST_BOUND <= l2 <= _MOST_BOUND


def parts(kind: Type, path: str = "") -> Iterator[tuple[str, Type]]:
    """The bounded parts of a type, and every tensor and sequence that is in none of them, with paths to show."""
    match kind:
        case WithinType(l2=bound) if is_bound(bound):
            yield path, kind
        case StructType():
            for position, (name, item) in enumerate(kind.elements):
                yield from parts(item, f"{path}/{name if name is not None else position}".lstrip("/"))
        case _:
            yield from leaves(kind, path)


def to_type(given: Any) -> Type:
    """Read a type: a type, a dtype, (dtype, shape), `str`, a mapping (named struct) or a list (unnamed struct).

    Args:
        given: Any of these, nested at will; None in a shape is a size that varies.

    Returns:
        The type.

    >>> str(to_type({"x": (np.float32, (None, 784)), "y": [np.int32, float]}))
    '<x=float32[?,784],y=<int32,float64>>'
    """
    if isinstance(given, Type):
        return given
    if isinstance(given, Mapping):
        return StructType(tuple((name, to_type(kind)) for name, kind in given.items()))
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], tuple | int):
        shape = given[1] if isinstance(given[1], tuple) else (given[1],)
        return TensorType(_dtype(given[0]), tuple(None if n is None else int(n) for n in shape))
    if isinstance(given, list | tuple):
        return StructType(tuple((None, to_type(kind)) for kind in given))
    return TensorType(_dtype(given))


def type_of(value: Any) -> Type:
    """The type of `value`: a nest of arrays, numbers and text.

    >>> str(type_of({"w": np.zeros((2, 3), np.float32), "n": 1, "name": "a"}))
    '<w=float32[2,3],n=int64,name=str>'
    """
    if isinstance(value, Mapping):
        return StructType(tuple((str(name), type_of(item)) for name, item in value.items()))
    if isinstance(value, list | tuple):
        names = getattr(value, "_fields", (None,) * len(value))
        return StructType(tuple(zip(names, map(type_of, value), strict=True)))
    if isinstance(value, str):
        return TensorType("str")
    array = np.asarray(value)
    return TensorType(_dtype(array.dtype), array.shape)


def unbounded(kind: Type) -> Type:
    """The type without its bounds."""
    match kind:
        case WithinType():
            return unbounded(kind.member)
        case StructType():
            return StructType(tuple((name, unbounded(item)) for name, item in kind.elements))
        case FederatedType():
            return FederatedType(unbounded(kind.member), kind.placement, kind.all_equal)
        case _:
            return kind


def leaves(kind: Type, path: str = "") -> Iterator[tuple[str, Type]]:
    """Every tensor and sequence with its path, in order."""
    match kind:
        case WithinType():
            yield from leaves(kind.member, path)
        case StructType():
            for position, (name, item) in enumerate(kind.elements):
                yield from leaves(item, f"{path}/{name if name is not None else position}".lstrip("/"))
        case _:
            yield path, kind


def is_fixed(kind: Type) -> bool:
    """Whether all values of the type are the same number of numbers: only such can be summed."""
    return all(
        isinstance(leaf, TensorType) and leaf.dtype != "str" and None not in leaf.shape
        for _, leaf in leaves(kind)
    )


def size(kind: Type) -> int:
    """How many numbers a value of a fixed type holds."""
    tensors = [leaf for _, leaf in leaves(kind) if isinstance(leaf, TensorType)]
    return sum(prod(length or 0 for length in leaf.shape) for leaf in tensors)


def zeros(kind: Type) -> Any:
    """A value of the type that holds zeros; lengths that are not fixed are 1."""
    match kind:
        case TensorType("str", ()):
            return ""
        case TensorType():
            return _zeros(kind)
        case StructType():
            return struct_of(kind, [zeros(item) for _, item in kind.elements])
        case SequenceType():
            return [zeros(kind.element)]
        case WithinType():
            return zeros(kind.member)
    raise TypeMismatch(f"there is no value of zeros of type {kind}")


def struct_of(kind: StructType, items: list[Any]) -> Any:
    """The value of a struct: a dict where its elements are named, else a tuple."""
    if kind.elements and kind.elements[0][0] is not None:
        return {name: item for (name, _), item in zip(kind.elements, items, strict=True)}
    return tuple(items)


def _zeros(kind: TensorType) -> NDArray[Any]:
    return np.zeros([1 if n is None else n for n in kind.shape], np.dtype(kind.dtype))[()]


def _dtype(given: Any) -> str:
    if given is str or (isinstance(given, np.dtype) and given.kind in "US") or given == "str":
        return "str"
    try:
        dtype = np.dtype(given)
    except TypeError as error:
        raise TypeMismatch(
            f"{given!r} is no type; give a dtype, (dtype, shape), a mapping or a list"
        ) from error
    if dtype.kind not in "biuf":
        raise TypeMismatch(f"{dtype} is no dtype of federated values; use numbers, bool or str")
    return str(dtype.name)


def _placeable(member: Type) -> Type:
    if isinstance(member, FederatedType | FunctionType):
        raise TypeMismatch(f"{member} cannot be placed; place tensors, structs or sequences")
    return member
