"""Images as the public sets store them: idx files, and bytes that become numbers from 0 to 1.

An idx file is a header of big-endian 32-bit words, 0x0000 08 and the number of dimensions, then one word a
dimension; bytes follow, one a value.
"""

from __future__ import annotations

import gzip
import zlib
from math import prod

import numpy as np
from numpy.typing import NDArray

from fedavg.datasets.errors import UnsafeArchive

__all__ = ["read_idx", "to_unit"]

_BYTES = 0x0800


def read_idx(content: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read an idx file of bytes, gzipped or not.

    Args:
        content: The file.
        shape: What it must hold.

    Returns:
        The values, read-only.

    Raises:
        UnsafeArchive: it is no idx file of bytes, or of another shape.

    >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), (2,))
    array([7, 9], dtype=uint8)
    """
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise UnsafeArchive("the archive holds a damaged gzip file; delete it and fetch again") from error
    header = np.array([_BYTES + len(shape), *shape], ">u4").tobytes()
    if not content.startswith(header) or len(content) != len(header) + prod(shape):
        raise UnsafeArchive(f"the archive does not hold an idx file of {' x '.join(map(str, shape))} bytes")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def to_unit(*pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bytes as float32 in [0, 1], one part after the other, in one array of a row an image.

    >>> to_unit(np.array([[0, 255]], np.uint8), np.array([[51, 0]], np.uint8))
    array([[0. , 1. ],
           [0.2, 0. ]], dtype=float32)
    """
    images = np.empty((sum(map(len, pixels)), prod(pixels[0].shape[1:])), np.float32)
    start = 0
    for part in pixels:
        rows = part.reshape(len(part), -1)
        np.divide(rows, np.float32(255), out=images[start : start + len(part)], dtype=np.float32)
        start += len(part)
    return images
