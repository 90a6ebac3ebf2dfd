"""Reading arrays out of package archives without installing, importing or running anything in them.

Some public data sets are Python pickles, and a pickle is a program. The one reader here is an unpickler whose only
callable names are inert records that stand in for those of numpy (`ndarray`, `dtype` and what rebuilds them) and for
those of pandas' data frames: every other name a pickle asks for raises `UnsafeArchive`, and neither numpy nor pandas
is ever called with a pickle's arguments.

Invariants:

- the only objects that come out are tuples, lists, dicts, text, bytes, numbers and read-only numpy arrays of plain
  numbers; an array of objects comes out as a list, a data frame as a dict of columns;
- the bytes of an array are not copied (an archive of 220 MB costs 220 MB).

Not here: fetching and hashes (`fedavg.datasets.fetch`), and finding a file in an archive (`fedavg.datasets.members`).
Nor is memory limited: five bytes of a pickle can ask for 32 GB, so only files whose hash has been checked come here.
"""

from __future__ import annotations

import pickle
import zlib
from gzip import GzipFile
from math import prod
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedavg.datasets.errors import UnsafeArchive

__all__ = ["read_arrays", "read_npy"]

_PLAIN = frozenset({b"b1", b"u1", b"u2", b"u4", b"u8", b"i1", b"i2", b"i4", b"i8", b"f4", b"f8"})
_OBJECTS = b"O8"
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
    RecursionError,
)


def read_npy(stream: IO[bytes]) -> Any:
    """Read an `.npy` file of objects, whose body is a pickle, as `read_arrays` reads pickles.

    Raises:
        UnsafeArchive: it is no such file, or asks for more than arrays.
    """
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise UnsafeArchive("the archive holds an .npy file of another version than 1.0")
        np.lib.format.read_array_header_1_0(stream)
    except (ValueError, SyntaxError, TypeError) as error:
        raise UnsafeArchive("the archive does not hold the .npy file it should") from error
    return read_arrays(stream)


def read_arrays(stream: IO[bytes] | GzipFile) -> Any:
    """Read a nest of tuples, lists and dicts of numpy arrays from a pickle, executing nothing.

    Guarantee: no code outside this module is called by what the pickle says, whatever its bytes are.

    Args:
        stream: The pickle's bytes, written by Python 2 (its text comes back as bytes) or by Python 3, protocol 3 to 5.

    Returns:
        The nest; its arrays are read-only.

    Raises:
        UnsafeArchive: the pickle names anything but arrays and data frames of plain numbers, or is malformed.

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
        if self.code not in _PLAIN and self.code != _OBJECTS:
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

    value: NDArray[Any] | list[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, described, fortran, data = state
        if not isinstance(described, _DType):
            raise UnsafeArchive("the archive describes an array's type by something that is no dtype")
        if described.code == _OBJECTS:
            self._set_objects(shape, data)
            return
        dtype, data = described.resolve(), _bytes(data)
        if prod(shape) * dtype.itemsize != len(data):
            raise UnsafeArchive(f"an array of shape {shape} does not fit its {len(data)} bytes")
        self.value = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")

    def _set_objects(self, shape: tuple[int, ...], data: Any) -> None:
        if not isinstance(data, list) or len(shape) > 1 or prod(shape) != len(data):
            raise UnsafeArchive(f"the archive holds objects that do not fill an array of shape {shape}")
        self.value = data


class _Named:
    """Stands in for a class that a pickle only names on the way to something else."""


class _Labels:
    """Stands in for pandas' index: keeps the labels of columns; those of rows are not needed."""

    def __init__(self, _: object, described: dict[str, Any]) -> None:
        data = described.get("data")
        self.labels = data.value if isinstance(data, _Array) else None


class _Blocks:
    """Stands in for pandas' block manager: arrays of columns, and which columns they are."""

    columns: dict[Any, NDArray[Any]] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        described = state[3]["0.14.1"]
        labels = described["axes"][0].labels
        columns: dict[Any, NDArray[Any]] = {}
        for block in described["blocks"]:
            places = range(len(labels))[block["mgr_locs"]]
            columns |= {labels[place]: row for place, row in zip(places, block["values"].value, strict=True)}
        if columns.keys() != {*labels}:
            raise UnsafeArchive("the archive holds a data frame without some of its columns")
        self.columns = columns


class _Frame:
    """Stands in for `pandas.DataFrame`."""

    columns: dict[Any, NDArray[Any]] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.columns = state["_data"].columns


def _reconstructor(stand_in: type[_Frame] | type[_Blocks], *_: object) -> _Frame | _Blocks:
    if stand_in not in (_Frame, _Blocks):
        raise UnsafeArchive("the archive rebuilds something that is no data frame")
    return stand_in()


def _encode(text: str, codec: str) -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    if codec != "latin1":
        raise UnsafeArchive(f"the archive holds bytes in {codec!r}; Python writes latin1")
    return text.encode("latin1")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _frombuffer(data: bytes, described: object, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, described, _bytes(order) == b"F", data))
    return array


class _ArraysOnly(pickle.Unpickler):
    """Knows what an array's or a frame's pickle needs; every other name, extension or persistent id is refused."""

    _KNOWN = {  # noqa: RUF012  A constant table.
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _DType,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.numeric", "_frombuffer"): _frombuffer,
        ("_codecs", "encode"): _encode,
        ("copy_reg", "_reconstructor"): _reconstructor,
        ("__builtin__", "object"): _Named,
        ("__builtin__", "slice"): slice,
        ("pandas.core.frame", "DataFrame"): _Frame,
        ("pandas.core.internals.managers", "BlockManager"): _Blocks,
        ("pandas.core.indexes.base", "_new_Index"): _Labels,
        ("pandas.core.indexes.base", "Index"): _Named,
        ("pandas.core.indexes.range", "RangeIndex"): _Named,
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
        return nest.value if isinstance(nest.value, np.ndarray) else _unwrap(nest.value)
    if isinstance(nest, _Frame) and nest.columns is not None:
        return _unwrap(nest.columns)
    if isinstance(nest, tuple | list):
        return type(nest)(_unwrap(part) for part in nest)
    if isinstance(nest, dict):
        return {key: _unwrap(part) for key, part in nest.items()}
    if nest is None or isinstance(nest, bytes | str | int | float | np.ndarray):
        return nest
    raise UnsafeArchive(f"the archive holds a {type(nest).__name__}; only numpy arrays are read")
