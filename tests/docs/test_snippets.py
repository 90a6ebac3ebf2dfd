"""Every python block of the pages runs, page by page, in one namespace, in an empty folder.

A block that is not meant to run has `<!-- fragment -->` on the line before its fence. A page whose snippets another
test runs says so: `<!-- snippets: tests/... -->`. Blocks that a script writes are compared by that script's test.
"""

import os
import re
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = re.compile(r"<!-- snippets: (\S+) -->")
GENERATED = re.compile(r"<!-- generated: ([\w-]+) -->\n.*?<!-- end: \1 -->", re.DOTALL)
BLOCK = re.compile(r"(<!-- fragment -->\n)?```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def snippets(text):
    """The blocks of a page that are to run."""
    return [
        code
        for fragment, language, code in BLOCK.findall(GENERATED.sub("", text))
        if language == "python" and not fragment
    ]


PAGES = {page.relative_to(DOCS).as_posix(): page.read_text() for page in sorted(DOCS.rglob("*.md"))}
RUN = [name for name, text in PAGES.items() if snippets(text) and not ELSEWHERE.search(text)]


@pytest.mark.parametrize("name", RUN)
def test_the_snippets_of_a_page_run_in_their_order(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "snippets"}
    for snippet in snippets(PAGES[name]):
        exec(compile(snippet, f"docs/{name}", "exec"), names)


def test_pages_that_leave_their_snippets_to_another_test_name_one():
    named = {test for text in PAGES.values() for test in ELSEWHERE.findall(text)}
    assert [test for test in named if "PAGE" not in (ROOT / test).read_text()] == []


def test_blocks_are_told_apart():
    text = "```python\na\n```\n<!-- fragment -->\n```python\nb\n```\n```sh\nc\n```\n"
    text += "<!-- generated: x -->\n```python\nd\n```\n<!-- end: x -->\n"
    assert snippets(text) == ["a\n"]
