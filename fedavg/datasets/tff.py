"""TensorFlow Federated's client data: its SQLite files of serialized examples, and its older HDF5 files.

Two layouts, as its EMNIST, Shakespeare and other sets were published:

- SQLite: a table `examples (split_name, client_id, serialized_example_proto)`, one row an example, and a table
  `client_metadata (client_id, split_name, num_examples)`; training and test part of a client share its id.
- HDF5: `examples/<client>/<field>`, one data set a field with an entry for each example; one file a split.

Both are opened anew for each client that is fetched, read only: nothing but the ids is kept, and a population can be
handed to other processes. The files are published compressed; decompress them first.

Not here: the messages inside SQLite's rows (`fedavg.datasets.tf_example`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedavg.client_data import ClientData
from fedavg.datasets.errors import MalformedFile, MissingLibrary
from fedavg.datasets.tf_example import stack_examples

if TYPE_CHECKING:
    import h5py

__all__ = ["EMNIST", "SHAKESPEARE", "read_tff_hdf5", "read_tff_sqlite"]

EMNIST: Mapping[str, tuple[int, ...]] = {"label": (), "pixels": (28, 28)}
"""The features of TensorFlow Federated's EMNIST: a label, and pixels from 0 (ink) to 1 (paper)."""

SHAKESPEARE: Mapping[str, tuple[int, ...]] = {"snippets": ()}
"""The one feature of TensorFlow Federated's Shakespeare: a speech, as bytes."""

_SPLITS = "SELECT DISTINCT split_name FROM client_metadata ORDER BY split_name"
_CLIENTS = "SELECT client_id FROM client_metadata WHERE split_name = ? ORDER BY client_id"
_EXAMPLES = (
    "SELECT serialized_example_proto FROM examples WHERE split_name = ? AND client_id = ? ORDER BY rowid"
)


def read_tff_sqlite(
    path: str | Path, *, shapes: Mapping[str, tuple[int, ...]], split: str = "train"
) -> ClientData:
    """Open client data in TensorFlow Federated's SQLite layout.

    Fetching a client is one look-up in the file's index on (split_name, client_id), which the published files have.

    Args:
        path: The file, decompressed.
        shapes: Every feature's shape in one example, by name: `EMNIST`, `SHAKESPEARE`, or your own.
        split: Which part: "train", "test", for some sets "heldout".

    Returns:
        A client for each id, sorted. Its data is a mapping of feature to array (float32 or int64) of shape
        (examples, *shape), in the order of `shapes`; a feature of bytes is a list.

    Raises:
        MalformedFile: the file is not of that layout, or does not hold the split. Examples are looked at when their
            client is fetched.
    """
    path = Path(path)
    splits = _texts(path, _rows(path, _SPLITS))
    if split not in splits:
        raise MalformedFile(f"{path} holds no part '{split}'; it holds {', '.join(splits) or 'nobody'}")
    client_ids = _texts(path, _rows(path, _CLIENTS, split))
    for one, other in pairwise(client_ids):
        if one == other:
            raise MalformedFile(
                f"{path} names client '{one}' twice in '{split}'; write it again, each client once"
            )
    return ClientData(client_ids, _SqliteClients(path, split, dict(shapes)))


def read_tff_hdf5(path: str | Path) -> ClientData:
    """Open client data in TensorFlow Federated's HDF5 layout; needs the extra `hdf5`.

    Args:
        path: The file, decompressed.

    Returns:
        A client for each id, sorted. Its data is a mapping of field, sorted, to array as it is stored; a field of
        text is a list of bytes.

    Raises:
        MissingLibrary: h5py is not installed.
        MalformedFile: the file is not of that layout, or holds nobody.
    """
    path = Path(path)
    with _open_hdf5(path) as file:
        client_ids = sorted(map(str, _group(file, path, "examples")))
    if not client_ids:
        raise MalformedFile(f"{path} holds nobody; its group 'examples' is empty")
    return ClientData(client_ids, _Hdf5Clients(path))


@dataclass(frozen=True)
class _SqliteClients:
    path: Path
    split: str
    shapes: Mapping[str, tuple[int, ...]]

    def __call__(self, client_id: str) -> dict[str, NDArray[Any] | list[bytes]]:
        examples = [row for (row,) in _rows(self.path, _EXAMPLES, self.split, client_id)]
        if not examples:
            raise MalformedFile(f"{self.path} holds no example of client '{client_id}' in '{self.split}'")
        for example in examples:
            if not isinstance(example, bytes):
                raise MalformedFile(
                    f"{self.path} holds a {type(example).__name__} where an example of client '{client_id}' should be;"
                    " the file is damaged: fetch it again"
                )
        return stack_examples(examples, self.shapes)


@dataclass(frozen=True)
class _Hdf5Clients:
    path: Path

    def __call__(self, client_id: str) -> dict[str, NDArray[Any] | list[bytes]]:
        with _open_hdf5(self.path) as file:
            client = _group(file, self.path, f"examples/{client_id}")
            fields = {name: _field(self.path, f"{client_id}/{name}", client[name]) for name in sorted(client)}
        if len({len(entries) for entries in fields.values()}) != 1:
            counts = ", ".join(f"{len(entries)} of '{name}'" for name, entries in fields.items())
            raise MalformedFile(
                f"client '{client_id}' in {self.path} has {counts or 'no field'}; each example has an entry in every"
                " field: the file is damaged"
            )
        return fields


def _rows(path: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    address = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            return connection.execute(query, values).fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise MalformedFile(
            f"{path} is not an SQLite file of TensorFlow Federated's layout: {error}; decompress it first if it is"
            " compressed"
        ) from error


def _texts(path: Path, rows: list[tuple[Any, ...]]) -> list[str]:
    """The names in rows of one column."""
    for (name,) in rows:
        if not isinstance(name, str):
            raise MalformedFile(
                f"{path} has {name!r} where a name should be; the file is damaged: fetch it again"
            )
    return [name for (name,) in rows]


@contextmanager
def _open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, for reading; damage that shows only while it is read is told like damage that shows at once."""
    try:
        import h5py
    except ImportError as error:
        raise MissingLibrary("HDF5 files need h5py; pip install 'veilsum[hdf5]'") from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except MalformedFile:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise MalformedFile(
            f"{path} is not an HDF5 file, or is damaged: {error}; decompress it first if it is compressed"
        ) from error


def _group(file: h5py.File, path: Path, name: str) -> h5py.Group:
    import h5py

    found = file.get(name)
    if not isinstance(found, h5py.Group):
        raise MalformedFile(
            f"{path} has no group '{name}'; TensorFlow Federated's layout is examples/client/field"
        )
    return found


def _field(path: Path, name: str, found: Any) -> NDArray[Any] | list[bytes]:
    import h5py

    if not isinstance(found, h5py.Dataset) or found.ndim == 0:
        raise MalformedFile(f"'{name}' in {path} is no list of entries; the layout is examples/client/field")
    if h5py.check_string_dtype(found.dtype) is not None and found.ndim == 1:
        return [bytes(text) for text in found[()]]
    if found.dtype.kind not in "biuf":
        raise MalformedFile(
            f"'{name}' in {path} holds entries of type {found.dtype} and shape {found.shape[1:]}; numbers and text"
            " are read, one text for each example"
        )
    return np.asarray(found[()])
