"""Blocks of a page that come from code: found between two markers, written anew, compared by a test.

A block named `x` stands between `<!-- generated: x -->` and `<!-- end: x -->`. Not here: what the blocks say
(`docs.make.protocol`, `docs.make.scale`, `docs.make.benchmarks`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1]

_BLOCK = re.compile(r"<!-- generated: ([\w-]+) -->\n(.*?)<!-- end: \1 -->", re.DOTALL)


def blocks_in(page: str) -> dict[str, str]:
    """The text of every marked block, by name."""
    return {match[1]: match[2] for match in _BLOCK.finditer(page)}


def filled(page: str, blocks: Mapping[str, str]) -> str:
    """The page with every marked block replaced.

    Raises:
        ValueError: the page marks other blocks than those given.
    """
    if set(blocks_in(page)) != set(blocks):
        raise ValueError(
            f"the page marks the blocks {sorted(blocks_in(page))} and {sorted(blocks)} were made"
        )
    return _BLOCK.sub(lambda match: _marked(match[1], blocks[match[1]]), page)


def write(path: Path, blocks: Mapping[str, str]) -> None:
    """Write the blocks into a page and say so."""
    path.write_text(filled(path.read_text(), blocks))
    print(f"wrote {path}")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table.

    >>> print(table(["a", "b"], [[1, 2]]), end="")
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [list(head), ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def _marked(name: str, text: str) -> str:
    return f"<!-- generated: {name} -->\n{text}<!-- end: {name} -->"
