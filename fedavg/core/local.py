"""Local computations: plain functions on arrays, with declared or inferred types, that run in one place.

Types are inferred by running the function once on zeros of its argument's type, before any data exists. At run time
the result must have exactly that form: at a client anything else counts as a failure, which contributes zeros.

Not here: what a function may capture (`captures`).
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, SupportsIndex, overload

import numpy as np

from fedavg.core.captures import check_captures
from fedavg.core.errors import TypeMismatch
from fedavg.core.types import (
    FederatedType,
    FunctionType,
    SequenceType,
    StructType,
    TensorType,
    Type,
    WithinType,
    struct_of,
    to_type,
    type_of,
    unbounded,
    zeros,
)
from fedavg.errors import StepError

__all__ = ["LocalComputation", "checker", "fits", "local_computation"]


@dataclass(frozen=True, eq=False)
class LocalComputation:
    """A function with types for its parameters (None: whatever it is given) and its result (None: inferred).

    Attributes:
        function: The plain function.
        parameters: Types of its parameters, or None.
        returns: Type of its result, or None.
    """

    function: Callable[..., Any]
    parameters: tuple[Type, ...] | None
    returns: Type | None

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Refuse captures that could hold or carry a client's value, as they are now.

        Raises:
            PrivacyTypeError: names the capture.
        """
        check_captures(self.function)

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        # A decorated function cannot travel under its name, which is this computation's now; so this one does.
        module, name = getattr(self.function, "__module__", ""), getattr(self.function, "__name__", "")
        if module != "__main__" and getattr(sys.modules.get(module), name, None) is self:
            return _named, (module, name)
        return super().__reduce_ex__(protocol)

    def __call__(self, *arguments: Any) -> Any:
        """Run it here and now, as the plain function it is."""
        return self.function(*arguments)

    def __str__(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def type_signature(self) -> FunctionType:
        """Its type, where its parameters were declared.

        Raises:
            TypeMismatch: they were not declared.
        """
        if self.parameters is None:
            raise TypeMismatch(f"{self} has no types of its own; declare them: local_computation(float32)")
        return FunctionType(_joined(self.parameters), self.result_type(_joined(self.parameters)))

    def result_type(self, argument: Type | None) -> Type:
        """The type of the result on an argument of some type, bounds included where declared.

        Raises:
            TypeMismatch: the argument is not what was declared, or the function fails on zeros of it.
        """
        declared = None if self.parameters is None else _joined(self.parameters)
        if self.parameters is not None and (
            (argument is None) != (declared is None)
            or (argument and declared and not fits(argument, declared))
        ):
            raise TypeMismatch(f"{self} takes {declared}, and is given {argument}")
        if self.returns is not None:
            return self.returns
        arguments = [] if argument is None else [zeros(unbounded(argument))]
        try:
            result = self.on(argument)(*arguments)
        except (Exception, SystemExit) as error:
            # The user's function may raise anything.
            raise TypeMismatch(
                f"the type of {self} cannot be inferred: on zeros of {argument} it raised {type(error).__name__}:"
                f" {error}; declare it with returns="
            ) from error
        return type_of(result)

    def on(self, argument: Type | None) -> Callable[..., Any]:
        """The function on an argument of a type, unpacked where it takes the elements of a struct one by one."""
        function = self.function
        if not self._unpacks(argument):
            return function
        return lambda given: function(*(given.values() if isinstance(given, Mapping) else given))

    def _unpacks(self, kind: Type | None) -> bool:
        kind = kind.member if isinstance(kind, WithinType) else kind
        if not isinstance(kind, StructType) or len(kind.elements) < 2:
            return False
        return _positional(self.function) == len(kind.elements)


@overload
def local_computation(function: Callable[..., Any], /) -> LocalComputation: ...
@overload
def local_computation(
    *types: Any, returns: Any = None
) -> Callable[[Callable[..., Any]], LocalComputation]: ...
def local_computation(*types: Any, returns: Any = None) -> Any:
    """Make a local computation of a plain function.

    Args:
        types: The types of its parameters; none at all leaves them to the use.
        returns: The type of its result, as `to_type` takes it; inferred on zeros when None. A bound in it
            (`within(float32, l2=1.0)`) is what an aggregation will clip to, not a claim that is believed.

    Returns:
        The computation; without a function yet, a decorator that makes it.

    Raises:
        PrivacyTypeError: it captures what could hold or carry a client's value.
        TypeMismatch: `returns` is a federated type or a function.

    >>> @local_computation(np.float32, np.float32)
    ... def over(reading, threshold):
    ...     return np.float32(reading > threshold)
    >>> str(over.type_signature), over(71.0, 70.0)
    ('(<float32,float32> -> float32)', np.float32(1.0))
    """
    if len(types) == 1 and callable(types[0]) and not isinstance(types[0], type | np.dtype):
        return LocalComputation(types[0], None, None)
    result = None if returns is None else to_type(returns)
    if isinstance(result, FederatedType | FunctionType):
        raise TypeMismatch(
            f"a local computation cannot return {result}; it runs in one place, on plain values"
        )
    parameters = tuple(map(to_type, types)) if types else None
    return lambda function: LocalComputation(function, parameters, result)


def fits(given: Type, wanted: Type) -> bool:
    """Whether values of one type may stand where another is wanted: bounds aside, `?` takes any length."""
    match unbounded(given), unbounded(wanted):
        case TensorType(a, shape), TensorType(b, pattern):
            return (
                a == b
                and len(shape) == len(pattern)
                and all(m in (None, n) for n, m in zip(shape, pattern, strict=True))
            )
        case StructType(mine), StructType(theirs):
            return len(mine) == len(theirs) and all(
                (name is None or other is None or name == other) and fits(kind, want)
                for (name, kind), (other, want) in zip(mine, theirs, strict=True)
            )
        case SequenceType(element), SequenceType(wanted_element):
            return fits(element, wanted_element)
        case FederatedType(), FederatedType():
            return (
                given.placement == wanted.placement  # type: ignore[union-attr]
                and (given.all_equal or not wanted.all_equal)  # type: ignore[union-attr]
                and fits(given.member, wanted.member)  # type: ignore[union-attr]
            )
    return False


def checker(kind: Type) -> Callable[[Any], Any]:
    """A function that gives a value the form of a type, or raises StepError: what enters and leaves each function."""
    match unbounded(kind):
        case TensorType("str"):
            return _text
        case TensorType(dtype, shape):
            return _tensor(np.dtype(dtype), shape, str(kind))
        case SequenceType(element):
            inner = checker(element)
            return lambda value: [inner(item) for item in value]
        case StructType() as struct:
            return _struct(struct)
    raise TypeMismatch(f"there are no values of type {kind}")


def _tensor(dtype: np.dtype[Any], shape: tuple[int | None, ...], kind: str) -> Callable[[Any], Any]:
    fixed = None not in shape

    def check(value: Any) -> Any:
        if type(value) is np.ndarray and value.dtype is dtype and value.shape == shape:
            return value
        array = np.asarray(value)
        right = (
            array.shape == shape
            if fixed
            else (
                array.ndim == len(shape)
                and all(m in (None, n) for n, m in zip(array.shape, shape, strict=True))
            )
        )
        if not right:
            raise StepError(f"a value has shape {array.shape}, not that of {kind}")
        if array.dtype is dtype:
            return array
        # An equal dtype may carry metadata, which all copies of the array share.
        if (
            array.dtype != dtype
            and not np.can_cast(array.dtype, dtype, "same_kind")
            and not _exact(array, dtype)
        ):
            raise StepError(f"a value has dtype {array.dtype}, not that of {kind}")
        return array.astype(dtype)

    return check


def _exact(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> bool:
    """Python's own numbers come as int64 and bool, which no one chose."""
    return (
        array.ndim == 0
        and array.dtype.kind in "biu"
        and dtype.kind in "fui"
        and bool(array.astype(dtype) == array)
    )


def _struct(kind: StructType) -> Callable[[Any], Any]:
    names = [name for name, _ in kind.elements]
    checks = [checker(item) for _, item in kind.elements]

    def check(value: Any) -> Any:
        if isinstance(value, Mapping):
            if set(value) != set(names):
                raise StepError(f"a value has elements {sorted(map(str, value))}, not those of {kind}")
            items = [value[name] for name in names]
        elif isinstance(value, list | tuple) and len(value) == len(checks):
            items = list(value)
        else:
            raise StepError(f"a value is a {type(value).__name__}, not of type {kind}")
        return struct_of(kind, [one(item) for one, item in zip(checks, items, strict=True)])

    return check


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise StepError(f"a value is a {type(value).__name__}, not text")
    return str.__str__(value)  # Not one of a class of its own, which could carry more.


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _joined(parameters: tuple[Type, ...]) -> Type | None:
    if not parameters:
        return None
    return parameters[0] if len(parameters) == 1 else StructType(tuple((None, kind) for kind in parameters))


def _positional(function: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(
        p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters
    )
