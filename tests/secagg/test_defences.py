"""Each defence of `tests/secagg/defences.toml` is removed in a copy of the tree, and its test must fail."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEFENCES = tomllib.loads(Path(__file__).with_name("defences.toml").read_text())["defence"]
IDS = [f"{defence['attack']}: {defence['what']}" for defence in DEFENCES]


@pytest.mark.parametrize("defence", DEFENCES, ids=IDS)
def test_the_table_is_up_to_date(defence):
    """What is removed stands in its file exactly once, and the test that must see it exists."""
    for edit in defence["edit"]:
        assert (ROOT / "secagg" / edit["file"]).read_text().count(edit["old"]) == 1
        assert edit["old"] != edit["new"]
    file, name = defence["test"].split("::")
    assert f"def {name}(" in (ROOT / "tests" / "secagg" / file).read_text()


def test_no_defence_is_listed_twice():
    assert len(set(IDS)) == len(IDS)


def run(tree, *tests):
    """The exit status of pytest on tests of a tree, and what it said: 0 passed, 1 failed, else they did not run."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider"]
    files = [f"tests/secagg/{test}" for test in tests]
    done = subprocess.run([*command, *files], cwd=tree, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what the tests of `secagg` need, in which all of them pass as long as nothing is removed."""
    copy = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("secagg", "tests/secagg", "tests/vectors"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    status, output = run(copy, *sorted({defence["test"] for defence in DEFENCES}))
    assert status == 0, output
    return copy


@pytest.mark.drill
@pytest.mark.parametrize("defence", DEFENCES, ids=IDS)
def test_its_test_fails_without_it(tree, defence):
    kept = {edit["file"]: (tree / "secagg" / edit["file"]).read_text() for edit in defence["edit"]}
    try:
        for edit in defence["edit"]:
            path = tree / "secagg" / edit["file"]
            path.write_text(path.read_text().replace(edit["old"], edit["new"]))
        status, output = run(tree, defence["test"])
    finally:
        for file, text in kept.items():
            (tree / "secagg" / file).write_text(text)
    assert status == 1, output
