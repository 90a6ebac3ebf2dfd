"""The release rehearsal's checks: what each accepts and refuses. The whole of it is `make release-rehearsal`."""

from __future__ import annotations

import runpy
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
rehearsal = SimpleNamespace(**runpy.run_path(str(ROOT / ".ci" / "rehearse_release.py")))

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="a release is rehearsed from a git checkout"
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return rehearsal.clone(tmp_path_factory.mktemp("clone") / "checkout")


@pytest.fixture(scope="module")
def artefacts(checkout, tmp_path_factory):
    return rehearsal.build(checkout, tmp_path_factory.mktemp("built"), "--no-isolation")


@pytest.fixture
def folder(artefacts, tmp_path):
    folder = tmp_path / "dist"
    folder.mkdir()
    for path in artefacts.values():
        shutil.copy(path, folder)
    return folder


def sdist_of(artefacts):
    return next(path for name, path in artefacts.items() if name.endswith(".tar.gz"))


def test_metadata_is_valid_and_the_same_in_both_files(artefacts):
    assert len(artefacts) == 2
    version = rehearsal.check_metadata(artefacts)
    assert all(name.startswith(f"veilsum-{version}") for name in artefacts)


def test_one_file_alone_is_no_release(artefacts):
    (wheel,) = [name for name in artefacts if name.endswith(".whl")]
    with pytest.raises(rehearsal.Failed, match="one wheel and one sdist"):
        rehearsal.check_metadata({wheel: artefacts[wheel]})


def test_the_sdist_holds_what_git_tracks_and_its_own_tests(artefacts, checkout):
    assert rehearsal.check_contents(sdist_of(artefacts), checkout) > 500
    with tarfile.open(sdist_of(artefacts)) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {
        "Makefile",
        ".ci/constraints.txt",
        "tests/test_release.py",
        "docs/tutorials/budget.ipynb",
    } <= names


def test_a_file_that_is_not_in_the_sdist_is_named(artefacts, checkout):
    stray = checkout / "stray.txt"
    stray.write_text("")
    rehearsal.run("git", "add", "stray.txt", cwd=checkout)
    with pytest.raises(rehearsal.Failed, match=r"differ in stray\.txt"):
        rehearsal.check_contents(sdist_of(artefacts), checkout)
    rehearsal.run("git", "rm", "--quiet", "--cached", "stray.txt", cwd=checkout)


def test_builds_that_differ_in_a_byte_are_refused(artefacts, folder):
    copies = {path.name: path for path in folder.iterdir()}
    rehearsal.require_equal(artefacts, copies)
    sdist_of(copies).write_bytes(sdist_of(copies).read_bytes() + b"\0")
    with pytest.raises(rehearsal.Failed, match="two builds of one commit differ"):
        rehearsal.require_equal(artefacts, copies)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
def test_what_was_signed_verifies_and_nothing_else_does(folder, tmp_path):
    rehearsal.sign(folder, tmp_path)
    assert not list(tmp_path.rglob("key"))
    sums = folder / rehearsal.SUMS
    rehearsal.verify(folder, sums)
    with next(folder.glob("*.whl")).open("ab") as wheel:
        wheel.write(b"\0")
    with pytest.raises(rehearsal.Failed, match="is not the file that was signed"):
        rehearsal.verify(folder, sums)
    sums.write_text("".join(f"{rehearsal.digest(path)}  {path.name}\n" for path in folder.glob("veilsum-*")))
    with pytest.raises(rehearsal.Failed, match="does not hold"):
        rehearsal.verify(folder, sums)
