"""The public surface: the modules that users import from, the names in their `__all__`, and where each is defined.

Read from the source without importing it. `docs.make.reference` writes the tables of names, `docs.make.site_hooks` the
full reference, `tests/docs/test_reference.py` checks what each docstring must say.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

MODULES = {
    "fedavg": "train, federations, processes, adapters",
    "fedavg.processes": "processes in the shape of TensorFlow Federated's",
    "fedavg.core": "typed federated computations",
    "fedavg.analytics": "questions about people's data, without a model",
    "fedavg.datasets": "real data to simulate with",
    "fedavg.flower": "rounds over a Flower deployment",
    "fedavg.backends": "where simulated clients are played",
    "fedavg.backends.processes": "clients in processes of this machine",
    "fedavg.backends.ray": "clients on a Ray cluster",
    "fedavg.auditing": "attacks on one's own run",
    "fedavg.report": "the page about a run",
    "dp": "mechanisms, cohorts, accounting, ledger",
    "dp.auditing": "lower bounds and estimates from attacks",
    "dp.tensorflow_privacy": "tensorflow-privacy's queries, both ways",
    "secagg": "sums of masked vectors",
    "secagg.testing": "a bench for attacks on the protocol",
}
"""Public modules in the order of the reference, each with what it is for."""


class Name(NamedTuple):
    """A public name.

    Attributes:
        module: the public module that exports it.
        name: as exported.
        home: the module that defines it.
        node: its definition.
        docstring: what stands in it, or below it for a constant; empty if nothing does.
    """

    module: str
    name: str
    home: str
    node: ast.stmt
    docstring: str

    @property
    def path(self) -> str:
        """Where it is defined, dotted."""
        return f"{self.home}.{self.name}"

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.docstring.split("\n\n")[0].replace("\n", " ").strip()

    @property
    def kind(self) -> str:
        """Class, exception, function or constant."""
        if isinstance(self.node, ast.ClassDef):
            is_error = any(word in self.name for word in ("Error", "Exceeded", "Refusal", "Warning"))
            return "exception" if is_error or self.home.endswith("errors") else "class"
        return "function" if isinstance(self.node, ast.FunctionDef | ast.AsyncFunctionDef) else "constant"


def names(module: str) -> list[Name]:
    """Everything that a module exports, in the order of its `__all__`."""
    return [find(module, name) for name in exported(module)]


def first_home(module: str, name: str) -> str:
    """The first public module that exports the same thing: there it is described."""
    path = find(module, name).path
    return next(other for other in MODULES if path in {n.path for n in names(other)})


@cache
def tree(module: str) -> ast.Module:
    """The parsed source of a module."""
    return ast.parse(source(module).read_text())


def source(module: str) -> Path:
    """The file of a module."""
    folder = ROOT.joinpath(*module.split("."))
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def exported(module: str) -> list[str]:
    """The names in a module's `__all__`."""
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise LookupError(f"{module} has no __all__")


@cache
def find(module: str, name: str, home: str = "") -> Name:
    """One exported name, followed through imports to its definition."""
    home = home or module
    body = tree(home).body
    for at, node in reversed(list(enumerate(body))):  # the last of several: overloads come first
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == name for a in node.names):
            return find(module, name, node.module or "")
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return Name(module, name, home, node, ast.get_docstring(node) or "")
        if name in assigned(node):
            return Name(module, name, home, node, text_of(body[at + 1]) if at + 1 < len(body) else "")
    raise LookupError(f"{home} neither defines nor imports {name}")


def assigned(node: ast.stmt) -> set[str]:
    """The names that a statement assigns."""
    goals = (
        node.targets
        if isinstance(node, ast.Assign)
        else [node.target]
        if isinstance(node, ast.AnnAssign)
        else []
    )
    return {goal.id for goal in goals if isinstance(goal, ast.Name)}


def text_of(node: ast.stmt) -> str:
    """The text of a bare string, which describes the constant above it; else nothing."""
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return ast.literal_eval(node.value)
    return ""
