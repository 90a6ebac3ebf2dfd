"""The tutorials: their notebooks are their pages, and print what the pages show."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from docs.make.tutorials import PAGES, agrees, cells, notebook, printed

_KNOWN = {".ipython", "docs", "examples", "veilsum-runs"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_notebook_is_the_page(page):
    """After a change: `python -m docs.make.tutorials`."""
    made = page.with_suffix(".ipynb").read_text()
    assert made == notebook(page.read_text())
    nbformat.validate(nbformat.reads(made, as_version=4))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_notebook_prints_what_the_page_shows(page, tmp_path):
    """In a folder of its own; `python -m docs.make.tutorials --run` renews what the page shows."""
    shown = [cell for cell in cells(page.read_text()) if cell.language is not None]
    for cell, output in zip(shown, printed(page.with_suffix(".ipynb"), tmp_path), strict=True):
        assert agrees(output, cell.printed, about=cell.about), f"{cell.text}\nprints\n{output}"
    assert not [name for name in Path(tmp_path).iterdir() if name.name not in _KNOWN]


@pytest.mark.parametrize(
    ("output", "shown", "same"),
    [
        ("a b\n", "a  b", True),
        ("took 1.25 s", "took 1.24 s", True),
        ("epsilon 4.0", "epsilon 4.2", False),
        ("3 rounds", "4 rounds", False),
        ("hash 8f3a", "hash ...", True),
        ("", "something", False),
        ("something", "", False),
    ],
)
def test_outputs_agree_but_for_last_figures(output, shown, same):
    assert agrees(output, shown) is same


def test_where_figures_are_about_only_words_count():
    assert agrees("found 12 of 99 (p = 0.5)", "found 7 of 100 (p = 2.3e-05)", about=True)
    assert not agrees("lost 12 of 99", "found 12 of 99", about=True)
