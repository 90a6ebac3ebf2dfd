"""Every example by name, with what it shows: `python -m examples`."""

from __future__ import annotations

import ast
from pathlib import Path

EXPERIMENTS = ("image", "text", "people", "agnostic", "matching", "poisoning", "mechanisms")
HELPERS = ("__init__", "__main__", "clients", "domains", "experiment", "journey", "text_model")


def summary(name: str) -> str:
    """The first line of an example's docstring; nothing is imported."""
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def main() -> None:
    """Print both lists."""
    others = sorted(path.stem for path in Path(__file__).parent.glob("*.py"))
    lists = {
        "Experiments (--small takes seconds; docs/experiments.md has the figures)": EXPERIMENTS,
        "Other examples": [name for name in others if name not in (*EXPERIMENTS, *HELPERS)],
    }
    for head, listed in lists.items():
        print(f"{head}:\n")
        for name in listed:
            print(f"  python -m examples.{name:28} {summary(name)}")
        print()


if __name__ == "__main__":
    main()
