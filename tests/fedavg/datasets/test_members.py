"""Files inside archives: the same files out of every kind, and nothing on disk."""

from __future__ import annotations

import gzip
import io
import pickle
import shutil
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest

from fedavg.datasets import members as module
from fedavg.datasets.archives import read_arrays
from fedavg.datasets.errors import RegistryUnavailable, UnsafeArchive
from fedavg.datasets.members import open_member, read_file, read_files

FILES = {"data/a.txt": b"first", "data/b.txt": b"second", "other/c.txt": b"third"}


def wheel(folder):
    path = folder / "some.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    return path


def tarball(folder):
    path = folder / "some.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("data/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def debian(folder):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    tree = folder / "tree"
    for name, content in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(
        "Package: some\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: some\n"
    )
    path = folder / "some.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(path)], check=True, capture_output=True)
    return path


@pytest.mark.parametrize("make", [wheel, tarball, debian])
def test_wanted_files_come_with_their_content(make, tmp_path):
    archive = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    found = {
        name.removeprefix("./"): content
        for name, content in read_files(archive, lambda name: "data/" in name)
    }
    assert found == {"data/a.txt": b"first", "data/b.txt": b"second"}
    prefix = "./" if make is debian else ""
    assert read_file(archive, f"{prefix}data/b.txt") == b"second"
    with pytest.raises(UnsafeArchive, match=r"does not hold data/d\.txt; delete it and fetch again"):
        read_file(archive, "data/d.txt")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("make", [wheel, tarball, debian])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_damaged_archives_are_refused(make, keep, tmp_path):
    archive = make(tmp_path)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UnsafeArchive, match="damaged or no"):
        list(read_files(archive, lambda name: True))


def test_without_dpkg_deb_the_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(RegistryUnavailable, match="this machine has no dpkg-deb; install dpkg"):
        read_file(tmp_path / "some.deb", "data/a.txt")


def test_members_are_read_in_place_and_missing_ones_are_named(tmp_path):
    archive = tmp_path / "some.whl"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("data/arrays.pkl.gz", gzip.compress(pickle.dumps(np.arange(3), protocol=4)))
    with open_member(archive, "data/arrays.pkl.gz") as member, gzip.open(member) as stream:
        np.testing.assert_array_equal(read_arrays(stream), np.arange(3))
    with (
        pytest.raises(UnsafeArchive, match=r"some\.whl is no archive that holds data/other"),
        open_member(archive, "data/other"),
    ):
        pass
    archive.write_bytes(b"not a zip")
    with pytest.raises(UnsafeArchive, match="fetch again"), open_member(archive, "data/other"):
        pass
