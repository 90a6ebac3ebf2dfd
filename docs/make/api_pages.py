"""Pages of the built site about the public modules, in mkdocstrings' terms; nothing is imported to make them."""

from __future__ import annotations

import ast

from docs.make.doctest_blocks import fenced
from docs.make.generated import table
from docs.make.public import first_home, names, tree


def api_page(module: str) -> str:
    """A page about a module for mkdocstrings: its own words, its names in a table, and each name in full."""
    rows, full = [], []
    for name in names(module):
        home = first_home(module, name.name)
        link = f"#{name.path}" if home == module else f"{home}.md#{name.path}"
        rows.append((f"[`{name.name}`]({link})", name.kind, cell(name.summary)))
        if home == module:
            heading = f"      heading: {name.name}\n      toc_label: {name.name}"
            full.append(f"::: {name.path}\n    options:\n{heading}\n      show_root_heading: true\n")
    text = fenced(ast.get_docstring(tree(module)) or "")
    parts = [f"# `{module}`", text, table(["name", "is a", "in a sentence"], rows), *full]
    return "\n\n".join(parts)


def cell(text: str) -> str:
    """Text that fits a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
