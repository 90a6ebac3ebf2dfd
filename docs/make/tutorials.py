"""Make the tutorials' notebooks from their pages: `python -m docs.make.tutorials`, and `--run` to renew the output.

A page (`docs/tutorials/NAME.md`) is the source. Its `python` and `sh` blocks are the notebook's cells, and the `text`
block after one is what the cell prints; `...` in it stands for whatever varies, and after `<!-- about -->` all figures
may. The tests run every notebook and compare.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
PAGES = sorted((DOCS / "tutorials").glob("*.md"))

_BLOCK = re.compile(r"```(python|sh)\n(.*?)```\n(?:\n(<!-- about -->\n)?```text\n(.*?)```\n)?", re.DOTALL)
_VARIES = re.compile(r"(\.\.\.|\d+\.\d+)")
_FIGURES = re.compile(r"(\.\.\.|-?\d[\d.,]*(?:e-?\d+)?)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TOLERANCE = 0.02  # Of figures with a decimal point: other processors add up in another order.
_TO_THE_TOP = "%cd -q ../..\n"  # Jupyter starts in the notebook's folder, the page in the top one.


@dataclass(frozen=True)
class Cell:
    """Code with what it prints, or prose where `language` is None."""

    language: str | None
    text: str
    printed: str = ""
    about: bool = False

    @property
    def source(self) -> str:
        """What the notebook holds."""
        return ("%%sh\n" if self.language == "sh" else "") + self.text.strip("\n")


def cells(page: str) -> Iterator[Cell]:
    """A page as prose and code, in order."""
    end = 0
    for block in _BLOCK.finditer(page):
        if prose := page[end : block.start()].strip():
            yield Cell(None, prose)
        yield Cell(block[1], block[2], block[4] or "", about=block[3] is not None)
        end = block.end()
    if prose := page[end:].strip():
        yield Cell(None, prose)


def notebook(page: str) -> str:
    """The notebook of a page, as JSON."""
    made = [_code(_TO_THE_TOP, "")]
    for cell in cells(re.sub(r"\A<!--.*?-->\n", "", page)):
        made.append(
            {"cell_type": "markdown", "metadata": {}, "source": _lines(cell.text)}
            if cell.language is None
            else _code(cell.source, cell.printed)
        )
    content = {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(made)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _code(source: str, printed: str) -> dict[str, Any]:
    outputs = [{"name": "stdout", "output_type": "stream", "text": _lines(printed)}] if printed else []
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": outputs,
        "source": _lines(source),
    }


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def agrees(printed: str, shown: str, *, about: bool = False) -> bool:
    """Whether a cell printed what its page shows, up to white space, `...` and the last figures.

    >>> agrees("accuracy 0.921, 12 s", "accuracy 0.920, ... s"), agrees("epsilon 4.1", "epsilon 4.0")
    (True, False)
    """
    if about:
        return re.fullmatch(_shape(shown), " ".join(printed.split())) is not None
    parts = _VARIES.split(" ".join(shown.split()))
    pattern = "".join(
        ".*?" if part == "..." else r"(\d+\.\d+)" if _VARIES.fullmatch(part) else re.escape(part)
        for part in parts
    )
    found = re.fullmatch(pattern, " ".join(printed.split()), re.DOTALL)
    figures = [part for part in parts if part != "..." and _VARIES.fullmatch(part)]
    return found is not None and all(
        math.isclose(float(one), float(other), rel_tol=_TOLERANCE)
        for one, other in zip(found.groups(), figures, strict=True)
    )


def _shape(shown: str) -> str:
    """A pattern for the words of an output, whatever its figures."""
    parts = _FIGURES.split(" ".join(shown.split()))
    return "".join(
        ".*?" if part == "..." else r"-?\d[\d.,]*(?:e-?\d+)?" if _FIGURES.fullmatch(part) else re.escape(part)
        for part in parts
    )


def printed(path: Path, folder: Path) -> list[str]:
    """Run a notebook in an empty folder that looks like the checkout; what each of the page's code cells prints.

    Args:
        path: The notebook.
        folder: An empty folder; files that the notebook makes are left in it.
    """
    import nbformat
    from nbclient import NotebookClient

    inside = folder / "docs" / "tutorials"
    inside.mkdir(parents=True)
    (folder / "examples").symlink_to(DOCS.parent / "examples")
    ran = nbformat.read(path, as_version=4)
    environment = {
        **os.environ,
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
        "IPYTHONDIR": str(folder / ".ipython"),  # Not its owner's.
    }
    client = NotebookClient(
        ran, timeout=300, startup_timeout=300, resources={"metadata": {"path": str(inside)}}
    )
    client.execute(env=environment)
    code = [cell for cell in ran.cells if cell.cell_type == "code"][1:]
    return [_stdout(cell.outputs) for cell in code]


def _stdout(outputs: list[Any]) -> str:
    """What went to stdout, without colours, which Jupyter forces."""
    text = "".join(one.text for one in outputs if one.output_type == "stream" and one.name == "stdout")
    return "".join(f"{line.rstrip()}\n" for line in _COLOURS.sub("", text).splitlines())


def renewed(page: str, outputs: list[str]) -> str:
    """The page with the output of cells that print something else now."""
    fresh = iter(outputs)

    def block(match: re.Match[str]) -> str:
        output = next(fresh)
        about, shown = match[3] or "", match[4] or ""
        text = shown if agrees(output, shown, about=bool(about)) else output.rstrip() + "\n"
        return f"```{match[1]}\n{match[2]}```\n" + (f"\n{about}```text\n{text}```\n" if text.strip() else "")

    return _BLOCK.sub(block, page)


def main(arguments: list[str]) -> None:
    """Write every notebook, or those of the pages named."""
    run = "--run" in arguments
    named = [name for name in arguments if name != "--run"]
    for path in [page for page in PAGES if not named or page.stem in named]:
        target = path.with_suffix(".ipynb")
        target.write_text(notebook(path.read_text()))
        if run:
            with tempfile.TemporaryDirectory() as folder:
                path.write_text(renewed(path.read_text(), printed(target, Path(folder))))
            target.write_text(notebook(path.read_text()))
        print(f"wrote {target}")


if __name__ == "__main__":
    main(sys.argv[1:])
