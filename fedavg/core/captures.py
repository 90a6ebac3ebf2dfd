"""What a function may capture: rule 8 of the judgement.

A function that runs at a client must not write where the server could read, and one that runs at the server must not
hold what a client gave. In a simulation both share one memory, so a captured list is a way out of the masks, and a
captured array may be somebody's data. Allowed are constants, modules, types, frozen dataclasses, and functions of
which the same holds; everything else comes in as an argument, where its type and its label are checked.

What this cannot see: what a library does behind a call, a constant that somebody made of a client's value before the
program was written, and code that is out to hide (aliases of modules, patched classes, the state of global random
generators). It is there for mistakes. Where clients are other machines, these share no memory with the server anyway.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from fedavg.core.errors import PrivacyTypeError

__all__ = ["LIBRARIES", "check_captures"]

_PLAIN = {
    type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis), types.GenericAlias, type(np.mean),
}  # fmt: skip
_CONSTANTS = (np.generic, np.dtype, PurePath)
_WRITES = {"STORE_GLOBAL", "DELETE_GLOBAL"}
_REACHING = {
    "globals", "vars", "eval", "exec", "__import__", "setattr", "delattr", "__dict__", "__setattr__", "__globals__",
    "__closure__", "__builtins__", "__self__",
}  # fmt: skip
_REACHING_MODULES = {"__main__", "builtins", "ctypes", "gc", "importlib", "inspect", "sys"}
LIBRARIES = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(__file__).parents[2] / package) + os.sep for package in ("fedavg", "dp", "secagg")}
)
"""Where code is that is no program of the user's: file names begin with one of these."""


def check_captures(function: Callable[..., Any], opaque: tuple[type, ...]) -> None:
    """Refuse a function that captures what could hold or carry a client's value.

    Args:
        function: Any callable.
        opaque: Types that were checked when they were made.

    Raises:
        PrivacyTypeError: names the capture.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    _Check(name, opaque).value(name, function)


@dataclasses.dataclass
class _Check:
    name: str
    opaque: tuple[type, ...]
    seen: set[int] = dataclasses.field(default_factory=set)

    def value(self, path: str, value: Any) -> None:
        known = type(value) in _PLAIN or isinstance(value, (*_CONSTANTS, *self.opaque))
        if known or id(value) in self.seen:
            return
        self.seen.add(id(value))
        match value:
            case types.FunctionType():
                self.function(value)
            case types.BuiltinFunctionType() if isinstance(value.__self__, types.ModuleType):
                pass
            case types.BuiltinFunctionType():
                self.value(path, value.__self__)
            case np.ufunc() if any({*kinds} - {*"O->"} for kinds in value.types):
                pass  # One made of a Python function, which could be any, takes objects alone.
            case enum.Enum():
                self.each(path, {"value": value.value})
            case types.ModuleType() if value.__name__.split(".")[0] not in _REACHING_MODULES:
                pass  # Its attributes are checked where they are used, unless it is a library.
            case type():
                self.each(path, dict(_attributes(value)))
            case staticmethod() | classmethod():
                self.value(path, value.__func__)
            case property():
                self.each(path, {"get": value.fget, "set": value.fset})
            case functools.partial():
                self.value(path, value.func)
                self.each(path, {**dict(enumerate(value.args)), **value.keywords})
            case types.MethodType():
                self.value(path, value.__func__)
                self.value(f"{path}.__self__", value.__self__)
            case tuple() | frozenset():
                self.each(path, dict(enumerate(value)))
                self.value(path, type(value))
            case _ if _is_frozen(value):
                self.each(path, {f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
                self.value(path, type(value))
            case _:
                self.refuse(path, value)

    def each(self, path: str, items: Mapping[Any, Any]) -> None:
        for key, item in items.items():
            self.value(f"{path}.{key}", item)

    def function(self, function: types.FunctionType) -> None:
        if function.__code__.co_filename.startswith(LIBRARIES):
            return
        self.each(f"{function.__name__}'s default", dict(enumerate(function.__defaults__ or ())))
        self.each(f"{function.__name__}'s default", function.__kwdefaults__ or {})
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        held = {name: cell.cell_contents for name, cell in cells if _filled(cell)}
        self.each(function.__name__, held)
        for code in _codes(function.__code__):
            self.behaviour(code, function.__code__)
            names = {**function.__globals__, **sys.modules}
            named = {**held, **{name: names[name] for name in _loaded(code) if name in names}}
            self.each(function.__name__, named)
            for name, value in named.items():
                if isinstance(value, types.ModuleType) and not _is_library(value):
                    used = {n: vars(value)[n] for n in code.co_names if n in vars(value)}
                    self.each(f"{function.__name__}.{name}", used)

    def behaviour(self, code: types.CodeType, outermost: types.CodeType) -> None:
        """Refuse code that writes to what outlives it, or reaches what cannot be followed."""
        for name in _written(code, outermost):
            raise PrivacyTypeError(
                f"{self.name} writes to {name!r}, which outlives it: that is a way round the aggregation; return the"
                " value instead, and sum it"
            )
        for name in _REACHING.intersection(code.co_names):
            raise PrivacyTypeError(
                f"{self.name} uses {name}, which reaches what no check can follow; write out what is meant"
            )

    def refuse(self, path: str, value: Any) -> None:
        what = path.split(".", 1)[-1]
        if type(value).__name__ == "Value" and hasattr(value, "node"):
            fix = "pass it as an argument of federated_map, zipped with the rest"
        else:
            fix = (
                "pass it as an argument (federated_value(..., SERVER) and federated_broadcast for what is public; what"
                " clients hold is an argument at CLIENTS)"
            )
        raise PrivacyTypeError(
            f"{self.name} captures {what}, of type {type(value).__name__}, which may hold or carry what clients hold;"
            f" {fix}"
        )


def _is_frozen(value: Any) -> bool:
    settings = getattr(value, "__dataclass_params__", None)
    return settings is not None and bool(settings.frozen)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _written(code: types.CodeType, outermost: types.CodeType) -> Iterator[str]:
    """Names outside the function that it assigns, or whose attributes it assigns."""
    steps = list(dis.get_instructions(code))
    for position, step in enumerate(steps):
        if step.opname in _WRITES or (step.opname == "STORE_DEREF" and step.argval in outermost.co_freevars):
            yield step.argval
        if step.opname in ("STORE_ATTR", "DELETE_ATTR"):
            before = (s for s in reversed(steps[:position]) if s.opname not in ("LOAD_ATTR", "LOAD_METHOD"))
            root = next(before, step)
            # Whatever an object is called here, it may be one from outside; only a method's own is sure to be its own.
            own = code.co_argcount > 0 and root.argval == "self" == code.co_varnames[0]
            if not own:
                yield f"{root.argval}.{step.argval}"


def _loaded(code: types.CodeType) -> Iterator[str]:
    """Global names that the code reads, and modules that it imports."""
    reads = ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME")
    return (step.argval for step in dis.get_instructions(code) if step.opname in reads)


def _attributes(kind: type) -> Iterator[tuple[str, Any]]:
    """What a class of the user's holds: its functions, and data that is not Python's own."""
    for base in kind.__mro__:
        if not _is_library(sys.modules.get(base.__module__)):
            for name, value in vars(base).items():
                special = name.startswith("__") and name.endswith("__")
                function = isinstance(value, types.FunctionType)
                generated = special and function and value.__code__.co_filename == "<string>"  # by dataclass
                if not generated and (function or not special):
                    yield name, value


def _is_library(module: types.ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    return (
        module is not None and module.__name__ != "__main__" and (file is None or file.startswith(LIBRARIES))
    )


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
