"""The strict build refuses what it must: a link to nothing, an anchor that is not there, a page outside the navigation.

The site itself is built by `make docs`, which is part of `make check`.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

mkdocs = pytest.importorskip("mkdocs")
ROOT = Path(__file__).parents[2]
PAGES = {
    "index.md": "# Start\n\nSee [another](other.md#there).\n",
    "other.md": "# Another\n\n## There\n\n[back](index.md)\n",
}


def built(folder, pages):
    """Build a small site by the Makefile's own command, under the repository's own rules."""
    (command,) = re.findall(r"\$\(BIN\)/python (-m mkdocs build .*)", (ROOT / "Makefile").read_text())
    settings = (ROOT / ".mkdocs.yml").read_text()
    rules = re.search(r"^validation:\n(?: .*\n)+", settings, re.MULTILINE)[0]
    config = f"site_name: small\ndocs_dir: docs\n{rules}plugins: []\nnav: [index.md, other.md]\n"
    (folder / ".mkdocs.yml").write_text(config)
    for name, text in pages.items():
        (folder / "docs").mkdir(exist_ok=True)
        (folder / "docs" / name).write_text(text)
    return subprocess.run(
        [sys.executable, *shlex.split(command)], cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_sound_site_is_built(tmp_path):
    done = built(tmp_path, PAGES)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "other" / "index.html").exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("index.md", "[gone](gone.md)", "gone.md"),
        ("index.md", "[out](../gone.py)", "gone.py"),
        ("index.md", "[gone](other.md#gone)", "#gone"),
        ("third.md", "# A page that no menu shows", "third.md"),
    ],
)
def test_a_fault_fails_the_build(name, text, said, tmp_path):
    done = built(tmp_path, PAGES | {name: text})
    assert done.returncode != 0
    assert said in done.stderr


def test_the_site_fetches_nothing():
    """No font, script or style from another host is asked for by the settings."""
    text = (ROOT / ".mkdocs.yml").read_text()
    assert "font: false" in text
    assert "http" not in text


def test_a_link_out_of_the_docs_leads_to_a_page_that_shows_the_file():
    from docs.make import site_hooks

    place = "docs/tutorials/wrap-a-loop.md"
    page = "See [the loop](../../examples/wrap_numpy.py#L1) and ![a picture](../images/report.png).\n"
    page += "\n```sh\n[no](link.md)\n```\n"
    assert list(site_hooks.targets(place, page)) == ["examples/wrap_numpy.py", "docs/images/report.png"]
    assert site_hooks.relative("source/examples/wrap_numpy.py.md", "tutorials/wrap-a-loop.md") == (
        "../source/examples/wrap_numpy.py.md"
    )
    shown = site_hooks.listing("examples/wrap_numpy.py", "x = '~~~'\n")
    assert shown == "# `examples/wrap_numpy.py`\n\n~~~~python\nx = '~~~'\n\n~~~~\n"
    assert site_hooks.place_of("source/README.md") == "README.md"
    assert site_hooks.place_of("source/examples/wrap_numpy.py.md") == "examples/wrap_numpy.py"


def test_examples_in_docstrings_are_shown_as_code():
    from docs.make.doctest_blocks import fenced

    assert fenced("Adds.\n\n>>> 1 + 1\n2\n\nNo more.") == "Adds.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nNo more."
    assert fenced("Adds.\n>>> 1\n1") == "Adds.\n\n```pycon\n>>> 1\n1\n```"
    assert fenced("Adds.") == "Adds."


def test_a_name_that_does_not_say_enough_warns_the_strict_build(monkeypatch, caplog):
    from docs.make import site_hooks

    monkeypatch.setattr(site_hooks, "findings", lambda: iter(["dp.clip_l2 has no Returns"]))
    site_hooks.on_config(None)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.name.startswith("mkdocs.")  # What mkdocs counts.
    assert "dp.clip_l2 has no Returns" in record.getMessage()
