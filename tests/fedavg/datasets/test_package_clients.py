"""The package clients beside pip for wheels: each fetches, runs nothing of what it fetched, fails in one sentence."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from dataclasses import replace

import pytest

from fedavg.datasets import package_clients as module
from fedavg.datasets.errors import HashMismatch, RegistryUnavailable
from fedavg.datasets.fetch import fetch
from fedavg.datasets.package_clients import Package


def tarball(**files):
    """A .tar.gz of text files, `__` in a name standing for the dot."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content.encode()))
    return buffer.getvalue()


@pytest.fixture
def source_package(registry, tmp_path):
    """A source package whose build code leaves a mark."""
    mark = tmp_path / "mark"
    run = f"open({str(mark)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='some-data', version='1.0')\n"
    content = tarball(
        **{
            "some-data-1.0/PKG-INFO": "Metadata-Version: 2.1\nName: some-data\nVersion: 1.0\n",
            "some-data-1.0/setup__py": run,
        }
    )
    shelf = registry / "simple" / "some-data"
    shelf.mkdir()
    (shelf / "some-data-1.0.tar.gz").write_bytes(content)
    (shelf / "index.html").write_text(
        '<!DOCTYPE html><html><body><a href="some-data-1.0.tar.gz">some-data-1.0.tar.gz</a></body></html>'
    )
    package = Package(
        name="some-data",
        version="1.0",
        file="some-data-1.0.tar.gz",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        client="pip, source",
    )
    return package, mark


def test_a_source_package_is_fetched_and_none_of_its_code_runs(source_package, cache):
    package, mark = source_package
    path = fetch(package)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == package.sha256
    assert not mark.exists()
    assert [entry.name for entry in cache.iterdir()] == [package.file]


def test_another_source_package_is_refused_before_it_is_unpacked(source_package, cache):
    package, mark = source_package
    with pytest.raises(HashMismatch, match=r"whose sha256 is not the pinned 0{64}; it was thrown away"):
        fetch(replace(package, sha256="0" * 64))
    assert not mark.exists()
    assert list(cache.iterdir()) == []


@pytest.fixture
def npm_package(registry, monkeypatch, tmp_path):
    """A package on this machine's registry, as npm asks for it."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    content = tarball(**{"package/package__json": '{"name": "@some/data", "version": "1.0.0"}'})
    address = os.environ["PIP_INDEX_URL"].removesuffix("/simple")
    (registry / "@some").mkdir()
    (registry / "data.tgz").write_bytes(content)
    about = {"name": "@some/data", "version": "1.0.0", "dist": {"tarball": f"{address}/data.tgz"}}
    document = {"name": "@some/data", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": about}}
    (registry / "@some%2fdata").write_text(json.dumps(document))
    (registry / "@some" / "data").write_text(json.dumps(document))
    monkeypatch.setenv("npm_config_registry", address)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Package(
        name="@some/data",
        version="1.0.0",
        file="some-data-1.0.0.tgz",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        client="npm",
    )


def test_npm_fetches_the_tarball_as_it_is(npm_package, cache, tmp_path):
    seen = []
    path = fetch(npm_package, progress=lambda done, size: seen.append((done, size)))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == npm_package.sha256
    assert [entry.name for entry in cache.iterdir()] == [npm_package.file]
    assert seen[-1] == (npm_package.size, npm_package.size)
    assert not (tmp_path / "home").exists()  # Nothing is left in the user's own npm cache.


def test_what_npm_does_not_find_is_one_sentence(npm_package, cache, monkeypatch):
    with pytest.raises(
        RegistryUnavailable, match=r"@some/data@9\.9\.9 cannot be fetched: npm says 'ETARGET'"
    ):
        fetch(replace(npm_package, version="9.9.9"))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    with pytest.raises(
        RegistryUnavailable, match="no package registry answered; check the connection and npm's"
    ) as caught:
        fetch(npm_package)
    assert "127.0.0.1" not in str(caught.value)


DEB = Package(
    name="some-data",
    version="1.0-1",
    file="some-data_1.0-1_all.deb",
    sha256=hashlib.sha256(b"content").hexdigest(),
    size=7,
    client="apt",
)


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """An apt-get that does what the test says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def acts(script):
        (folder / "apt-get").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "apt-get").chmod(0o755)

    return acts


def test_apt_downloads_into_the_folder_it_runs_in(apt, cache):
    apt('[ "$1 $6" = "download " ] && [ "$5" = some-data=1.0-1 ] && printf content > some-data_1.0-1_all.deb')
    assert fetch(DEB).read_bytes() == b"content"
    assert [entry.name for entry in cache.iterdir()] == [DEB.file]


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (
            "echo 'E: Unable to locate package some-data' >&2; exit 100",
            "apt-get says 'Unable to locate package some-data'; run apt-get update, check",
        ),
        (
            "echo 'E: Failed to fetch http://127.0.0.1/some.deb  404  Not Found [IP: 127.0.0.1 80]' >&2; exit 100",
            "apt-get says 'Failed to fetch <address>  404  Not Found'",
        ),
        (
            "echo 'Err:1 Temporary failure resolving 127.0.0.1'; echo 'E: Failed to fetch x  Temporary failure"
            " resolving 127.0.0.1' >&2; exit 100",
            "no package registry answered",
        ),
    ],
)
def test_what_apt_does_not_find_is_one_sentence(apt, cache, script, sentence):
    apt(script)
    with pytest.raises(RegistryUnavailable, match=f"some-data=1.0-1 cannot be fetched: {sentence}") as caught:
        fetch(DEB)
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize(
    ("client", "sentence"),
    [
        ("npm", "this machine has no npm; install npm"),
        ("apt", "this machine has no apt-get; fetch it on a Debian"),
    ],
)
def test_a_missing_client_is_one_sentence(client, sentence, cache, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(RegistryUnavailable, match=sentence) as caught:
        fetch(replace(DEB, client=client))
    assert str(caught.value).endswith(f"or put some-data_1.0-1_all.deb into {cache}")
