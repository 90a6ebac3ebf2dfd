"""Values of a type as vectors and back, copied, and named by a digest.

Not here: whether a value is of a type (`local.checker`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from math import isfinite, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.core.types import StructType, TensorType, Type, WithinType, size, struct_of
from fedavg.errors import StepError

__all__ = ["Vector", "clipped", "copied", "digest", "finite", "flat", "flatten", "unflatten"]

Vector = NDArray[np.float64]
_FLOAT = np.dtype(np.float64)


def flatten(value: Any, kind: Type) -> Vector:
    """A value's numbers in one vector.

    Raises:
        StepError: they are not finite.
    """
    arrays = list(_arrays(value, kind))
    vector = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return finite(vector)  # type: ignore[no-any-return]


def unflatten(vector: Vector, kind: Type) -> Any:
    """The inverse of `flatten`, in the types' own dtypes."""
    if isinstance(kind, StructType):
        items, offset = [], 0
        for _, item in kind.elements:
            items.append(unflatten(vector[offset : offset + size(item)], item))
            offset += size(item)
        return struct_of(kind, items)
    if isinstance(kind, TensorType):
        shape = tuple(length or 0 for length in kind.shape)
        return vector.astype(kind.dtype).reshape(shape)[()] if prod(shape) else np.zeros(shape, kind.dtype)
    raise StepError(f"a vector has no form of type {kind}")


def _arrays(value: Any, kind: Type) -> Iterator[Vector]:
    if isinstance(kind, WithinType):
        kind = kind.member
    if isinstance(kind, StructType):
        items = value.values() if isinstance(value, Mapping) else value
        for item, (_, member) in zip(items, kind.elements, strict=True):
            yield from _arrays(item, member)
    else:
        yield flat(value)


def clipped(vector: Vector, bound: float) -> Vector:
    """The vector, no longer than the bound."""
    norm = sqrt(float(vector @ vector))
    return vector * (bound / norm) if norm > bound else vector


def flat(value: Any) -> Vector:
    """The numbers of one array."""
    if type(value) is np.ndarray and value.ndim == 1 and value.dtype is _FLOAT:
        return value
    return np.asarray(value, np.float64).reshape(-1)


def finite(vector: Any) -> Any:
    """The vector itself.

    Raises:
        StepError: it holds NaN or infinity.
    """
    # A square that overflows is no infinity of the client's, so then each number is looked at.
    if not isfinite(vector.dot(vector)) and not np.isfinite(vector).all():
        raise StepError("a value holds NaN or infinity")
    return vector


def digest(value: Any) -> bytes:
    """32 bytes that name a nest of values."""
    state = hashlib.sha256()
    if isinstance(value, Mapping):
        for name, item in value.items():
            state.update(digest(name) + digest(item))
    elif isinstance(value, list | tuple):
        state.update(b"".join(map(digest, value)))
    elif isinstance(value, str):
        state.update(b"text" + value.encode())
    else:
        array = np.asarray(value)
        state.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return state.digest()


def copied(value: Any) -> Any:
    """A value that shares no memory with another."""
    if type(value) is np.ndarray:
        return value.copy()
    if isinstance(value, Mapping):
        return {name: copied(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(copied, value))
    return value.copy() if isinstance(value, np.ndarray) else value
