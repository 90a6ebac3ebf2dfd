"""What a function's code reads and writes, from its bytecode: the sources need not be at hand.

Straight lines only: a name that is given another object in a branch is followed to the last one. Not here: what of it
is allowed (`captures`).
"""

from __future__ import annotations

import contextlib
import dis
import inspect
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["attributes", "codes", "dotted", "imported", "loaded", "written"]

_WRITES = {"STORE_GLOBAL", "DELETE_GLOBAL"}
_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME"}
_LOCALS = {"LOAD_DEREF", "LOAD_CLASSDEREF"}  # And LOAD_FAST of every kind.
_NOTHING = object()
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"}


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function and of everything defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def _steps(code: types.CodeType) -> list[dis.Instruction]:
    return [step for step in dis.get_instructions(code) if step.opname not in ("EXTENDED_ARG", "NOP")]


def attributes(code: types.CodeType) -> set[str]:
    """Names of all attributes that the code reads."""
    return {step.argval for step in _steps(code) if step.opname in _ATTRIBUTES}


def written(code: types.CodeType, outermost: types.CodeType, *, method: bool) -> Iterator[str]:
    """Names outside the function that it assigns, and attributes that are not surely of its own making."""
    steps = _steps(code)
    # Whatever an object is called here, it may be one from outside; only a method's own is sure to be its own.
    again = (s for s in steps if s.opname.startswith(("STORE_FAST", "STORE_DEREF")) and "self" in _names(s))
    own = method and code.co_varnames[:1] == ("self",) and not any(again)
    for position, step in enumerate(steps):
        outer = step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in outermost.co_freevars
        if step.opname in _WRITES or outer:
            yield step.argval
        if step.opname in ("STORE_ATTR", "DELETE_ATTR"):
            root = _names(_owner(steps, position))[-1]
            if not own or root != "self":
                yield f"{root}.{step.argval}".lstrip(".")


def _owner(steps: list[dis.Instruction], position: int) -> dis.Instruction:
    """The step that put an object on the stack before its attribute is written."""
    if steps[position - 1].opname != "SWAP":
        return steps[position - 1]
    for before in range(position - 1, 0, -1):  # self.count += 1
        if steps[before].opname == "COPY" and steps[before + 1].argval == steps[position].argval:
            return steps[before - 1]
    return steps[position - 1]


def _names(step: dis.Instruction) -> tuple[str, ...]:
    """The variables of a step; some Python versions make one step of two."""
    if "FAST" not in step.opname and step.opname not in _GLOBALS | _LOCALS | {"STORE_DEREF"}:
        return ("",)
    return step.argval if isinstance(step.argval, tuple) else (step.argval,)


def loaded(code: types.CodeType, names: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Global names that the code reads, and modules that it imports, each with what it is now."""
    for step in _steps(code):
        if step.opname in _GLOBALS and step.argval in names:
            yield step.argval, names[step.argval]
    for module, _ in imported(code, names):
        if module in sys.modules:
            yield module, sys.modules[module]


def imported(code: types.CodeType, names: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Full names of the modules that the code imports, and what it takes from each."""
    steps = _steps(code)
    for level, taken, step in zip(steps, steps[1:], steps[2:], strict=False):
        if step.opname == "IMPORT_NAME":
            package = (names.get("__package__") or "").split(".")
            above = package[: len(package) + 1 - level.argval] if level.argval else []
            yield ".".join(filter(None, (*above, step.argval))), taken.argval or ()


def dotted(code: types.CodeType, named: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Every step along the dotted names that code reads (`np.random.seed`): as far as it goes, of what, and to what."""
    local: dict[str, tuple[str, Any]] = {}
    place, found, imported = "", _NOTHING, _NOTHING
    last: Any = None
    for step in _steps(code):
        name = step.argval
        if step.opname.startswith("LOAD_FAST") and isinstance(name, tuple):
            name = name[-1]
        if step.opname in _GLOBALS:
            place, found = name, named.get(name, _NOTHING)
        elif step.opname in _LOCALS or step.opname.startswith("LOAD_FAST"):
            place, found = local.get(name, (name, named.get(name, _NOTHING)))
        elif step.opname == "IMPORT_NAME":
            place = name if last else name.split(".")[0]
            found = imported = sys.modules.get(place, _NOTHING)
        elif step.opname in _ATTRIBUTES or step.opname == "IMPORT_FROM":
            owner = imported if step.opname == "IMPORT_FROM" and found is _NOTHING else found
            place, found = f"{place}.{name}", _attribute(owner, name)
            if found is not _NOTHING:
                yield place, owner, found
        elif step.opname in ("STORE_FAST", "STORE_DEREF") and found is not _NOTHING:
            local[name], found = (place, found), _NOTHING
        elif step.opname not in ("PUSH_NULL", "SWAP", "POP_TOP", "COPY"):
            found = _NOTHING
        last = name if step.opname == "LOAD_CONST" else None


def _attribute(owner: Any, name: str) -> Any:
    if owner is _NOTHING:
        return _NOTHING
    if isinstance(owner, types.ModuleType):  # Some load what is in them when it is first named.
        with contextlib.suppress(ImportError):
            return getattr(owner, name, _NOTHING)
        return _NOTHING
    return inspect.getattr_static(owner, name, _NOTHING)
