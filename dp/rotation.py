"""Random rotation: spreads any vector evenly over its coordinates, so that few bits hold each of them.

x -> H S x / sqrt(d): S flips signs at random, H is the Hadamard matrix. Norms are kept, and every coordinate of
the result is sub-Gaussian with variance |x|^2 / d whatever x was. The key is public: all clients of a sum use the
same one, and the server undoes the rotation. Privacy does not depend on it, only the sum's size does.

H is a Kronecker power of the 16 by 16 Hadamard matrix, applied as one small matrix product for every factor;
each product also moves its axis to the end, so after the last one all axes are back in place.

Source: Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), on flattening; Ailon, Chazelle 2009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dp import checks
from dp.errors import ParameterError
from dp.keystream import KEY_BYTES, Keystream

__all__ = ["Rotation"]

_FACTOR = 16
# Larger products OpenBLAS shares among threads, which on a busy machine wait for each other.
_ROWS = 1 << 10


@dataclass(frozen=True)
class Rotation:
    """A public random rotation of vectors of one length.

    Guarantee:
        `inverse(forward(x))` is x up to the rounding of floats; norms are kept; over the choice of the key, each
        coordinate of `forward(x)` is sub-Gaussian with variance proxy |x|^2 / `padded_length`.

    Args:
        length: Of the vectors, at least 1.
        key: 32 public bytes.

    >>> rotation = Rotation(3, bytes(32))
    >>> rotated = rotation.forward(np.array([1.0, 0.0, 0.0, 0.0]))
    >>> np.abs(rotated).tolist()
    [0.5, 0.5, 0.5, 0.5]
    >>> rotation.inverse(rotated).round(12) + 0.0
    array([1., 0., 0.])
    """

    length: int
    key: bytes

    def __post_init__(self) -> None:
        checks.integer("length", self.length, 1)
        if len(self.key) != KEY_BYTES:
            raise ParameterError(f"a rotation's key has {len(self.key)} bytes; it needs exactly {KEY_BYTES}")

    @property
    def padded_length(self) -> int:
        """The next power of two: number of coordinates after rotation."""
        return 1 << (self.length - 1).bit_length()

    def forward(self, padded: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rotate a vector.

        Args:
            padded: Shape (padded_length,), zeros from `length` on. Overwritten: a large vector has no spare copies.

        Returns:
            Shape (padded_length,).
        """
        padded[: self.length] *= self._signs
        return _hadamard(padded)

    def inverse(self, rotated: NDArray[np.float64]) -> NDArray[np.float64]:
        """Undo `forward`: shape (padded_length,) to (length,)."""
        vector: NDArray[np.float64] = _hadamard(rotated.copy())[: self.length] * self._signs
        return vector

    @cached_property
    def _signs(self) -> NDArray[np.float64]:
        """Random signs over sqrt(padded_length)."""
        bits = np.unpackbits(Keystream(self.key).words(-(-self.length // 8), np.uint8))[: self.length]
        return np.where(bits, -1.0, 1.0) / math.sqrt(self.padded_length)


def _hadamard(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply by the unnormalised Hadamard matrix; the length is a power of two. Overwrites its argument."""
    remaining, size = len(vector), len(vector)
    source, target = vector, np.empty_like(vector)
    while remaining > 1:
        order = min(_FACTOR, remaining)
        rows = min(_ROWS, size // order)
        columns = source.reshape(order, -1, rows).transpose(1, 2, 0)
        np.matmul(columns, _matrix(order), out=target.reshape(-1, rows, order))
        source, target = target, source
        remaining //= order
    return source


def _matrix(order: int) -> NDArray[np.float64]:
    """Sylvester's matrix of +-1."""
    matrix = np.ones((1, 1))
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix
