"""LEAF json files (Caldas et al. 2018): `users`, `num_samples`, `user_data`, in one file or a folder of them.

Opening scans the files once and remembers where each user's part lies; the files themselves are mapped, not read, and
one user's part is decoded when that client is fetched.

Invariants: every user of `users` has one part and one number of samples; a part with another number of entries is
refused when it is fetched.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fedavg.client_data import ClientData
from fedavg.datasets.errors import MalformedFile

__all__ = ["read_leaf"]


class _File(msgspec.Struct):
    users: list[str]
    num_samples: list[int]
    user_data: dict[str, msgspec.Raw]


def read_leaf(path: str | Path) -> ClientData:
    """Open data in LEAF's format.

    Args:
        path: A json file, or a folder whose json files are read in the order of their names.

    Returns:
        A client for each user, in the files' order. Its data is a mapping of field ("x", "y") to its entries: an
        array where they are numbers of one shape (float32, int64), and otherwise, as for text, the list itself.

    Raises:
        MalformedFile: a file is not of that format, or two of them hold the same user.

    Source: Caldas et al. 2018, "LEAF: a benchmark for federated settings".

    >>> import tempfile
    >>> content = '{"users": ["ada"], "num_samples": [1], "user_data": {"ada": {"x": [[0.5]], "y": [7]}}}'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "all_data_0.json").write_text(content)
    ...     read_leaf(folder).for_client("ada")
    {'x': array([[0.5]], dtype=float32), 'y': array([7])}
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise MalformedFile(f"{path} holds no json file; give a file in LEAF's format, or a folder of them")
    users = _Users(files)
    return ClientData(list(users.parts), users)


class _Users:
    """Where each user's part lies, and how many samples it must hold."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self.parts: dict[str, tuple[msgspec.Raw, int]] = {}
        for file in files:
            found = _open(file)
            for user, samples in zip(found.users, found.num_samples, strict=True):
                if user in self.parts:
                    raise MalformedFile(f"{file} holds user '{user}' again; give files that share no user")
                self.parts[user] = found.user_data[user], samples

    def __reduce__(self) -> tuple[Any, ...]:
        return _Users, (self._files,)  # A mapped file stays in its process: open it there again.

    def __call__(self, user: str) -> dict[str, Any]:
        raw, samples = self.parts[user]
        try:
            fields = msgspec.json.decode(raw, type=dict[str, list[Any]])
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
            raise MalformedFile(f"the data of user '{user}' is not of LEAF's format: {error}") from error
        for field, values in fields.items():
            if len(values) != samples:
                raise MalformedFile(
                    f"user '{user}' has {len(values)} entries of '{field}' and num_samples says {samples}; the file is"
                    " damaged: write it again"
                )
        return {field: _column(values) for field, values in fields.items()}


def _open(file: Path) -> _File:
    try:
        with open(file, "rb") as opened:
            mapped = mmap.mmap(
                opened.fileno(), 0, access=mmap.ACCESS_READ
            )  # Held by the parts, and freed with them.
        found = msgspec.json.decode(mapped, type=_File)
    except (OSError, ValueError, msgspec.DecodeError, RecursionError) as error:
        raise MalformedFile(f"{file} is not a json file of LEAF's format: {error}") from error
    if len(found.num_samples) != len(found.users) or {*found.users} != found.user_data.keys():
        raise MalformedFile(
            f"{file} names {len(found.users)} users, {len(found.num_samples)} numbers of samples and the data of"
            f" {len(found.user_data)}; in LEAF's format they are the same users"
        )
    return found


def _column(values: list[Any]) -> Any:
    """Numbers of one shape as an array, anything else as it came."""
    try:
        array = np.array(values)
    except ValueError:
        return values
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    return array if array.dtype.kind in "bi" else values
