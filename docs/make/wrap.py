"""The code and the table of `docs/wrap.md`: the examples side by side, and what privacy costs in accuracy.

    python -m docs.make.wrap

Both come from where they are true: the code from `examples/`, the figures from `docs/results/wrap_accuracy.json`.
"""

from __future__ import annotations

import json

from docs.make.generated import DOCS, table, write

PAGE = DOCS / "wrap.md"
ECOSYSTEMS = ("numpy", "torch", "keras", "jax", "sklearn")


def code(name: str) -> str:
    """An example without its first and last lines, as a block."""
    text = (DOCS.parent / "examples" / f"{name}.py").read_text()
    body = text.split('"""', 2)[2].split("\n\nif __name__")[0].strip()
    return f"```python\n{body}\n```"


def added(name: str) -> int:
    """How many lines of an example are marked as Veilsum's."""
    lines = (DOCS.parent / "examples" / f"{name}.py").read_text().splitlines()[1:]
    return sum("# private" in line for line in lines)


def beside(ecosystem: str) -> str:
    """Both examples in a table of two columns."""
    without, within = f"plain_{ecosystem}", f"wrap_{ecosystem}"
    return (
        f"<table><tr><th>without (<code>examples/{without}.py</code>)</th>"
        f"<th>with: {added(within)} lines added (<code>examples/{within}.py</code>)</th></tr>\n<tr><td>\n\n"
        f"{code(without)}\n\n</td><td>\n\n{code(within)}\n\n</td></tr></table>\n"
    )


def accuracy() -> str:
    """The table of accuracies, with the command that made it."""
    kept = json.loads((DOCS / "results" / "wrap_accuracy.json").read_text())
    rows = [
        [
            row["loop"],
            f"{row['plain']:.4f}",
            f"{row['private']:.4f}",
            f"{row['figure']:.2f}",
            f"{row['readers_epsilon']:.2f}",
            f"{row['server_epsilon']:.1f}",
        ]
        for row in kept["raw"]
    ]
    head = ["loop", "plain", "private", "points lost", "epsilon, readers", "epsilon, server"]
    return f"{table(head, rows)}\n`{kept['command']}`, {kept['date']}.\n"


def blocks() -> dict[str, str]:
    """Every generated block of the page."""
    return {"accuracy": accuracy(), **{name: beside(name) for name in ECOSYSTEMS}}


if __name__ == "__main__":
    write(PAGE, blocks())
