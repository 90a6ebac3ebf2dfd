"""What a function may capture: rule 8 of the judgement.

A function that runs at a client must not write where the server, or the next client, could read, and one that runs at
the server must not hold what a client gave. In a simulation all of them share one memory, so a captured list is a way
out of the masks, and a captured array may be somebody's data. Allowed are constants, modules, types, enumerations,
frozen dataclasses, and functions of which the same holds; everything else comes in as an argument, where its type and
its label are checked.

What this cannot see: what a library does behind a call, with settings, caches and files, its own and the process's
(`torch.set_default_dtype`, `decimal.getcontext`, `warnings.warn`, `os.putenv`; the global generators of Python, numpy
and torch are each client's own, see `fedavg.own_dice`); a constant that somebody made of a client's value before or
while the program was written (`l2=max(data)`: the traced function's own captures are not looked at); memory that
`np.empty` finds; and code that is out to hide (names reached by `match`, a loop or `operator.methodcaller`, objects
handed to functions that write into whatever they get, patched classes). It is there for mistakes. Where clients are
other machines, these share no memory with the server anyway.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import functools
import importlib.util
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from fedavg.core.bytecode import attributes, codes, dotted, imported, loaded, written
from fedavg.core.errors import PrivacyTypeError

__all__ = ["LIBRARIES", "check_captures"]

_PLAIN = {type(None), bool, int, float, complex, str, bytes, range, type(Ellipsis)}
_CONTAINERS = (list, dict, set, bytearray, np.ndarray, MutableMapping)
_DISPATCHER: Any = type(np.mean)
_CALLABLES = (types.FunctionType, types.MethodType, functools.partial, staticmethod, classmethod)
_REACHING = {
    "globals", "vars", "eval", "exec", "getattr", "setattr", "delattr", "attrgetter", "f_back", "f_globals", "f_locals",
    "f_builtins", "gi_frame", "cr_frame", "ag_frame", "tb_frame", "tb_next", "__import__", "__builtins__",
}  # fmt: skip
_HARMLESS = {"__init__", "__new__", "__post_init__", "__call__", "__len__", "__name__", "__qualname__", "__class__",
             "__version__"}  # fmt: skip
_REACHING_MODULES = {
    "__main__", "_thread", "atexit", "builtins", "contextvars", "ctypes", "gc", "importlib", "inspect", "sys",
    "threading", "traceback", "weakref",
}  # fmt: skip
_DICE = {"random", "numpy.random", "numpy.random.mtrand"}
_SETTERS = (np.seterr, np.seterrcall, np.setbufsize, np.set_printoptions)
_GENERATED = {
    "__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__", "__lt__", "__le__", "__gt__", "__ge__",
    "__new__", "__getnewargs__", "__replace__",
}  # fmt: skip
LIBRARIES = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(__file__).parents[2] / package) + os.sep for package in ("fedavg", "dp", "secagg")}
)
"""Where code is that is no program of the user's: file names begin with one of these."""


def check_captures(function: Callable[..., Any]) -> None:
    """Refuse a function that captures what could hold or carry a client's value.

    Args:
        function: Any callable.

    Raises:
        PrivacyTypeError: names the capture.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    _Check(name).value(name, function)


@dataclasses.dataclass
class _Check:
    name: str
    seen: set[tuple[int, bool]] = dataclasses.field(default_factory=set)

    def value(self, path: str, value: Any, *, method: bool = False) -> None:
        if type(value) in _PLAIN or (id(value), method) in self.seen:
            return
        self.seen.add((id(value), method))
        match value:
            case np.generic() | np.dtype() | PurePath() if _is_constant(value):
                pass
            case types.FunctionType():
                self.function(path, value, method=method)
            case types.BuiltinFunctionType() if isinstance(value.__self__, types.ModuleType):
                pass
            case types.BuiltinFunctionType():
                self.value(path, value.__self__)
            case _ if isinstance(value, _DISPATCHER):
                self.value(path, value.__wrapped__)
            case np.ufunc() if any({*kinds} - {*"O->"} for kinds in value.types):
                pass  # One made of a Python function, which could be any, takes objects alone.
            case enum.Enum():
                self.each(path, vars(value))
                self.instance(path, value)
            case types.ModuleType() if value.__name__.split(".")[0] not in _REACHING_MODULES:
                pass  # Its attributes are checked where they are used, unless it is a library.
            case type():
                for name, item in _attributes(value):
                    self.value(f"{path}.{name}", item, method=True)
                self.instance(path, value)
            case staticmethod() | classmethod():
                self.value(path, value.__func__)
            case property():
                for item in (value.fget, value.fset, value.fdel):
                    self.value(path, item, method=True)
            case functools.partial():
                self.value(path, value.func)
                self.each(path, {**dict(enumerate(value.args)), **value.keywords})
                self.each(path, vars(value))
            case types.MethodType():
                self.value(path, value.__func__)
                self.value(f"{path}.__self__", value.__self__)
            case slice():
                self.each(path, {"start": value.start, "stop": value.stop, "step": value.step})
            case types.GenericAlias():
                self.each(path, dict(enumerate((value.__origin__, *value.__args__))))
            case tuple() | frozenset():
                self.each(path, {**dict(enumerate(value)), **getattr(value, "__dict__", {})})
                self.instance(path, value)
            case _ if _is_frozen(value):
                held = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
                self.each(path, {**held, **getattr(value, "__dict__", {})})
                self.instance(path, value)
            case _:
                self.refuse(path, value)

    def instance(self, path: str, value: Any) -> None:
        """Look at the class of an object from outside, whose methods must not write into it either."""
        for name, item in _attributes(type(value)):
            methods = (item.fget, item.fset, item.fdel) if isinstance(item, property) else (item,)
            for method in methods:
                if isinstance(method, types.FunctionType) and name not in ("__init__", "__new__"):
                    self.value(f"{path}.{name}", method)
        self.value(path, type(value))

    def each(self, path: str, items: Mapping[Any, Any]) -> None:
        for key, item in items.items():
            self.value(f"{path}.{key}", item)

    def function(self, path: str, function: types.FunctionType, *, method: bool) -> None:
        held = _held(function)
        if function in _SETTERS:
            raise PrivacyTypeError(
                f"{self.name} uses numpy's {function.__name__}, a setting that all share: what one client sets, the"
                " next would compute with; use `with np.errstate(...)` or `with np.printoptions(...)`"
            )
        if function.__code__.co_filename.startswith(LIBRARIES):
            # A library's decorator around what is a user's, however far in.
            inner = [(name, item) for name, item in _inside(function) if _reaches_users(item)]
            if inner:
                self.each(path, {k: v for k, v in held.items() if isinstance(v, _CONTAINERS)})
            for name, item in inner:
                self.value(f"{path}.{name}", item)
            return
        self.each(f"{function.__name__}'s default", dict(enumerate(function.__defaults__ or ())))
        self.each(f"{function.__name__}'s default", function.__kwdefaults__ or {})
        self.each(function.__name__, {**held, **vars(function)})
        for code in codes(function.__code__):
            self.behaviour(code, function.__code__, method=method)
            self.imports(code, function.__globals__)
            named = {**held, **dict(loaded(code, {**vars(builtins), **function.__globals__}))}
            self.each(function.__name__, named)
            for name, value in named.items():
                if isinstance(value, types.ModuleType) and not _is_library(value):
                    used = {n: vars(value)[n] for n in code.co_names if n in vars(value)}
                    self.each(f"{function.__name__}.{name}", used)
            for place, owner, value in dotted(code, named):
                self.reached(f"{function.__name__}.{place}", owner, value)

    def imports(self, code: types.CodeType, names: Mapping[str, Any]) -> None:
        """Refuse code that would load what is no library's: what is in it cannot be looked at before."""
        for module, taken in imported(code, names):
            found = sys.modules.get(module)
            if found is None and not _is_installed(module.split(".")[0]):
                missing = [module]
            else:
                ours = found is not None and not _is_library(found)
                missing = [f"{module}.{name}" for name in taken if ours and not hasattr(found, name)]
            for name in missing:
                raise PrivacyTypeError(
                    f"{self.name} imports {name}, which is not loaded, so that nobody can say what it holds; import it"
                    " where the program is written"
                )

    def behaviour(self, code: types.CodeType, outermost: types.CodeType, *, method: bool) -> None:
        """Refuse code that writes to what outlives it, or reaches what cannot be followed."""
        for name in written(code, outermost, method=method and code is outermost):
            raise PrivacyTypeError(
                f"{self.name} writes to {name!r}, which outlives it: that is a way round the aggregation; return the"
                " value instead, and sum it"
            )
        special = {name for name in attributes(code) if name.startswith("__") and name.endswith("__")}
        for name in sorted(_REACHING.intersection(code.co_names) | special - _HARMLESS):
            raise PrivacyTypeError(
                f"{self.name} uses {name}, which reaches what no check can follow; write out what is meant"
            )

    def reached(self, path: str, owner: Any, value: Any) -> None:
        """Look at what a dotted name leads to: all of it where it is the user's, of a library what keeps a state."""
        is_module = isinstance(owner, types.ModuleType)
        shared = is_module and owner.__name__ in _DICE and not isinstance(value, type | types.ModuleType)
        if shared and value is not np.random.default_rng:
            raise PrivacyTypeError(
                f"{self.name} uses {path.split('.', 1)[-1]}, a generator that all share: what one client draws would"
                " depend on the others; make one of its own, np.random.default_rng(seed)"
            )
        home = owner if is_module else sys.modules.get(getattr(owner, "__module__", None) or "")
        users = isinstance(owner, types.ModuleType | type) and not _is_library(home)
        setter = isinstance(value, types.FunctionType) and value in _SETTERS
        if users or setter or isinstance(value, (*_CONTAINERS, types.ModuleType)) or _is_users(value):
            self.value(path, value)

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


def _is_constant(value: Any) -> bool:
    """Whether a scalar, dtype or path is just that: of the library's own class, with nothing inside that can change."""
    if isinstance(value, np.dtype) and any(
        p is not None for p in (value.metadata, value.fields, value.subdtype)
    ):
        return False
    return _is_library(sys.modules.get(type(value).__module__)) and not isinstance(value, np.void)


def _is_frozen(value: Any) -> bool:
    settings = getattr(value, "__dataclass_params__", None)
    return settings is not None and bool(settings.frozen)


def _is_users(value: Any) -> bool:
    """Whether it is a function that is no library's, perhaps bound or wrapped."""
    while isinstance(value, _CALLABLES) and not isinstance(value, types.FunctionType):
        value = value.func if isinstance(value, functools.partial) else value.__func__
    return isinstance(value, types.FunctionType) and not value.__code__.co_filename.startswith(LIBRARIES)


def _reaches_users(value: Any, seen: set[int] | None = None) -> bool:
    """Whether a user's function, class or object is in what a library's function holds."""
    seen = set() if seen is None else seen
    if type(value) in _PLAIN or id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, types.FunctionType):
        users = _is_users(value)
    else:
        kind = value if isinstance(value, type) else type(value)
        users = not _is_library(sys.modules.get(kind.__module__))
    return users or any(_reaches_users(item, seen) for _, item in _inside(value))


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    """What a library's function, callable object or container holds, each with a name."""
    match value:
        case types.FunctionType():
            yield from enumerate(value.__defaults__ or ())
            for named in (value.__kwdefaults__ or {}, vars(value), _held(value)):
                yield from named.items()
        case types.MethodType():
            yield "__self__", value.__self__
            yield "__func__", value.__func__
        case Mapping():
            yield from enumerate(value)
            yield from value.items()
        case list() | tuple() | set() | frozenset():
            yield from enumerate(value)
        case functools.partial():
            yield "func", value.func
            yield from enumerate(value.args)
            yield from value.keywords.items()
        case _ if callable(value) and not isinstance(value, type):
            yield "__wrapped__", getattr(value, "__wrapped__", None)
            yield from getattr(value, "__dict__", {}).items()


def _held(function: types.FunctionType) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if _filled(cell)}


def _attributes(kind: type) -> Iterator[tuple[str, Any]]:
    """What a class of the user's holds: its functions, and data that is not Python's own."""
    for base in kind.__mro__:
        if not _is_library(sys.modules.get(base.__module__)):
            made = dataclasses.is_dataclass(base) or hasattr(base, "_fields")
            yield from _defaults(base)
            for name, value in vars(base).items():
                function = isinstance(value, types.FunctionType)
                if (
                    made
                    and name in _GENERATED
                    and function
                    and value.__code__.co_filename.startswith(("<", *LIBRARIES))
                ):
                    continue
                special = name.startswith("__") and name.endswith("__")
                enums = isinstance(kind, enum.EnumMeta) and name[0] == name[-1] == "_" and not special
                if enums or name in (*getattr(base, "_fields", ()), "_field_defaults"):
                    continue  # Python's own tables; looked at where they are named (`bytecode.dotted`).
                if not special or callable(value) or isinstance(value, staticmethod | classmethod):
                    yield name, value


def _defaults(kind: type) -> Iterator[tuple[str, Any]]:
    """What a data class or named tuple puts where no value is given, or makes it with."""
    yield from getattr(kind, "_field_defaults", {}).items()
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        for item in (field.default, field.default_factory):
            if item is not dataclasses.MISSING:
                yield field.name, staticmethod(item) if isinstance(item, types.FunctionType) else item


def _is_installed(package: str) -> bool:
    """Whether a package that need not be loaded is a library, or none at all."""
    if package in sys.modules:
        return _is_library(sys.modules[package])
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin in ("built-in", "frozen"):
        return True
    return all(
        place.startswith(LIBRARIES) for place in spec.submodule_search_locations or [spec.origin or ""]
    )


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
