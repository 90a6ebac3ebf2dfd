"""What the experiments share: trials that are kept as they finish, so that a stopped experiment goes on where it was.

    python -m examples.mechanisms              # the standard set: three seeds, and one with the real protocol
    python -m examples.mechanisms --small      # minutes become seconds; the figures mean nothing

A trial is a setting and a seed. Its result is written to `OUTPUT/NAME.json` when it ends, with a digest of the code
that made it: the script and what it takes from `examples`, without comments and docstrings. Trials that are there
already are not run again, unless that code has changed since. A change of the library does not count, nor can one be
seen in a notebook: delete the file to have everything run anew. `python -m docs.make.experiments` turns these files
into `docs/experiments.md`.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SEEDS", "Options", "Trial", "code_of", "conduct", "options", "show"]

SEEDS = (1, 2, 3)
RESULTS = Path("docs/results/experiments")


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    small: bool
    full: bool
    output: Path


@dataclass(frozen=True)
class Trial:
    """One run: `run()` returns figures as JSON values. The setting's words are shown and name it in the results."""

    setting: str
    seed: int
    run: Callable[[], Mapping[str, Any]]


def options(description: str, arguments: list[str] | None = None) -> Options:
    """Read the command line that every experiment has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    parser.add_argument("--full", action="store_true", help="also what takes hours")
    parser.add_argument("--output", type=Path, default=None, help=f"where results go [default: {RESULTS}]")
    asked = parser.parse_args(arguments)
    output = asked.output or (Path("veilsum-runs/experiments") if asked.small else RESULTS)
    return Options(asked.small, asked.full, output)


def conduct(name: str, trials: Iterable[Trial], asked: Options) -> list[dict[str, Any]]:
    """Run what is not yet there, keeping each result as it comes.

    Args:
        name: Of the experiment: the file's.
        trials: In the order of the table.
        asked: The command line.

    Returns:
        Every trial's result: `setting`, `seed`, `code`, `cpu_s`, and its figures.
    """
    asked.output.mkdir(parents=True, exist_ok=True)
    code = code_of(name)
    path = asked.output / f"{name}.json"
    kept: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    stale = [done for done in kept if done.get("code") != code]
    if stale:
        print(f"{len(stale)} results of {path} were made by other code; they are made again", file=sys.stderr)
        kept = [done for done in kept if done.get("code") == code]
    trials = list(trials)
    for number, trial in enumerate(trials, start=1):
        if any((done["setting"], done["seed"]) == (trial.setting, trial.seed) for done in kept):
            continue
        print(
            f"{number} of {len(trials)}: {trial.setting}, seed {trial.seed} ...", file=sys.stderr, flush=True
        )
        start = time.process_time()
        figures = dict(trial.run())
        spent = round(time.process_time() - start, 1)
        kept.append({"setting": trial.setting, "seed": trial.seed, "code": code, "cpu_s": spent, **figures})
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(kept, indent=1, allow_nan=False) + "\n")
        os.replace(beside, path)
    return kept


def code_of(name: str) -> str:
    """A digest of what an experiment does: its script's code and that of the modules of `examples` it imports.

    Not in it: comments, docstrings, layout, this harness, and the library.

    Args:
        name: Of the experiment, which its script has, too.

    Returns:
        16 hexadecimal digits; always the same for a name that is no script here.
    """
    todo, found = [name], dict[str, Any]()
    while todo:
        module = todo.pop()
        path = Path(__file__).with_name(f"{module}.py")
        if module in found or module == "experiment" or not path.exists():
            continue
        tree = ast.parse(path.read_text())
        found[module] = _spelled(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "examples":
                todo += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("examples."):
                todo.append(str(node.module).removeprefix("examples."))
            elif isinstance(node, ast.Import):
                todo += [
                    a.name.removeprefix("examples.") for a in node.names if a.name.startswith("examples.")
                ]
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]


def _spelled(node: Any) -> Any:
    """Syntax without its places and docstrings; what newer Pythons say of every node by default is left out."""
    if isinstance(node, ast.AST):
        fields = [(name, _spelled(value)) for name, value in ast.iter_fields(node)]
        return type(node).__name__, *((name, value) for name, value in fields if value not in (None, []))
    if isinstance(node, list):
        return [_spelled(item) for item in node if not _says(item)]
    return node


def _says(node: Any) -> bool:
    """Whether a statement is a string alone: a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def show(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print each setting's figures, numbers as mean and, of several seeds, standard deviation; returns the results."""
    for setting in dict.fromkeys(result["setting"] for result in results):
        rows = [result for result in results if result["setting"] == setting]
        names = [name for name in rows[0] if name not in ("setting", "seed", "code", "cpu_s")]
        print(
            setting + ": " + ", ".join(f"{name} {_shown([row.get(name) for row in rows])}" for name in names)
        )
    spent = sum(result["cpu_s"] for result in results)
    print(f"{len(results)} trials, {spent / 60:.1f} CPU minutes")
    return results


def _shown(values: list[Any]) -> str:
    if not all(isinstance(value, int | float) for value in values):
        return str(values[0])
    mean = f"{statistics.fmean(values):.4g}"
    return mean if len(set(values)) == 1 else f"{mean} +- {statistics.stdev(values):.2g}"
