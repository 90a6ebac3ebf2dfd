"""From named real vectors to one bounded integer vector, and from a sum of those back.

A client's vector consists of blocks (update, counts, metrics). Block j is clipped to its public bound c_j and
scaled by s_j, so that it takes the share w_j of the joint squared norm; then everything is rounded to integers at
random. With R_j = s_j c_j and D(R, d) the norm that rounding may make of it (`rounding`):

    plain:     D(R_j, d_j) = D sqrt(w_j), each block checked by itself,
    rotated:   R_j = R sqrt(w_j), D = D(R, d), the whole vector rotated (`rotation`), rounded and checked.

One noise deviation then fits all blocks. The longest block, or the rotated whole, has R = resolution * sqrt(d): at
the default resolution 100 the integer sensitivity D is larger than the scaled clip by exactly 1%.

Rules this file keeps:

1. Integer squared norms are compared with `limits` in exact integer arithmetic (`rounding.round_within`). Privacy
   rests on that comparison alone, never on a float.
2. Whatever fails it is truncated toward zero, which shortens it to the scaled clip; if the clip itself was off,
   zeros take its place. Nobody is dropped, nothing is reported.
3. A modulus too small for the sum and the noise is an error before anybody is invited.

Source: Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), algorithms 1 and 2.
Not here: the noise (`mechanisms`), the choice of resolution for few bits (`compression`), the sum (another
package), what a release costs (`accounting`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp import checks
from dp.blocks import Block, check_blocks
from dp.clipping import clip_factor
from dp.errors import ParameterError
from dp.keystream import Keystream
from dp.rotation import Rotation
from dp.rounding import (
    LARGEST_ROUNDED,
    norm_after_rounding,
    norm_before_rounding,
    round_each_within,
    round_within,
)

__all__ = ["Block", "Encoding"]

_TAIL_DEVIATIONS = 9.0
_MOST_BITS = 62


@dataclass(frozen=True)
class Encoding:
    """The fixed, public way from a client's blocks to its integer vector and back.

    Guarantee:
        Whatever the input, `encode` returns integers whose squared l2 norm is at most the sum of `limits`, and so at
        most `sensitivity` squared; zeros become zeros.

    Args:
        blocks: In the order in which they are laid out.
        scales: Integer units per unit of each block's own measure.
        limits: Largest squared integer norm: of each block, or of the rotated whole.
        retry_probability: beta of conditional rounding; 0 rounds once.
        rotation: Of the whole vector, or `None`.
        tail_deviations: Deviations of a sum's coordinate that must fit the modulus.

    >>> encoding = Encoding.plan([Block("update", 10_000, l2_bound=0.5, weight=0.96),
    ...                           Block("counts", 2, l2_bound=1.5, weight=0.04)])
    >>> round(encoding.sensitivity)
    10308
    >>> integers = encoding.encode({"update": np.full(10_000, 0.004), "counts": [1.0, 1.0]}, Keystream())
    >>> encoding.check_bits(None, summands=300, noise_stddev=15_000.0)
    23
    >>> encoding.decode(integers.view(np.uint64) % 2**23, modulus_bits=23)["counts"].round(2)
    array([1., 1.])
    """

    blocks: tuple[Block, ...]
    scales: tuple[float, ...]
    limits: tuple[int, ...]
    retry_probability: float = 0.0
    rotation: Rotation | None = None
    tail_deviations: float = _TAIL_DEVIATIONS

    @classmethod
    def plan(
        cls,
        blocks: Iterable[Block],
        *,
        resolution: float = 100.0,
        retry_probability: float = 0.0,
        rotation_key: bytes | None = None,
        tail_deviations: float = _TAIL_DEVIATIONS,
    ) -> Encoding:
        """Choose scales and limits.

        Args:
            blocks: Their weights add up to 1, their names differ.
            resolution: R / sqrt(d) of the longest block (of the rotated whole), above 0: without retries, rounding
                inflates the sensitivity by one part in `resolution`. A larger one costs bits: log2(resolution).
            retry_probability: beta in [0, 1): above 0, rounding is repeated while its norm is too long, which makes
                coarse resolutions affordable.
            rotation_key: 32 public bytes, the same for every client of a sum: rotate at random. `None`: do not.
            tail_deviations: Deviations that `check_bits` makes room for, at least 1. Nine never wrap; fewer wrap
                some coordinates, which costs accuracy but no privacy.

        Returns:
            The encoding.

        Raises:
            ParameterError: Weights, names or bounds do not fit, or a block's weight leaves no room for its rounding.
        """
        blocks = tuple(blocks)
        check_blocks(blocks)
        resolution = checks.positive("resolution", resolution)
        beta = checks.fraction("retry_probability", retry_probability)
        tail = checks.at_least("tail_deviations", tail_deviations, 1)
        if rotation_key is None:
            longest = max(blocks, key=lambda block: block.length)
            limit = norm_after_rounding(resolution * math.sqrt(longest.length), longest.length, beta)
            limits = [limit * math.sqrt(block.weight / longest.weight) for block in blocks]
            norms = [
                norm_before_rounding(most, block.length, beta)
                for block, most in zip(blocks, limits, strict=True)
            ]
            rotation = None
        else:
            rotation = Rotation(sum(block.length for block in blocks), bytes(rotation_key))
            whole = resolution * math.sqrt(rotation.padded_length)
            limits = [norm_after_rounding(whole, rotation.padded_length, beta)]
            norms = [whole * math.sqrt(block.weight) for block in blocks]
        scales = tuple(_scale(block, norm) for block, norm in zip(blocks, norms, strict=True))
        return cls(blocks, scales, tuple(int(limit**2) for limit in limits), beta, rotation, tail)

    @property
    def dimension(self) -> int:
        """Number of integer coordinates, the padding of a rotation included."""
        return self.rotation.padded_length if self.rotation else sum(block.length for block in self.blocks)

    @cached_property
    def sensitivity(self) -> float:
        """D: largest joint l2 norm of one client's integers, rounded up."""
        return _root_above(sum(self.limits))

    @cached_property
    def l1_sensitivity(self) -> float:
        """Largest joint l1 norm: at most D sqrt(d), and at most D^2 as they are integers; rounded up."""
        squared = sum(self.limits)
        return _root_above(squared * min(self.dimension, squared))

    def length(self, name: str) -> int:
        """Number of coordinates of the part called `name`."""
        return self._find(name)[1]

    def scale(self, name: str) -> float:
        """Integer units per unit of the part called `name`."""
        return self.scales[self._find(name)[0]]

    def check_bits(self, modulus_bits: int | None, *, summands: int, noise_stddev: float) -> int:
        """Check that a modulus holds every sum, or choose the smallest that does.

        Guarantee:
            With so many bits, no coordinate of a sum of `summands` encoded vectors wraps unless its noise (rotated:
            the coordinate as a whole, over the choice of the key) passes `tail_deviations` deviations.

        Args:
            modulus_bits: The modulus is 2 to this power; `None` chooses.
            summands: Most vectors that one sum may hold.
            noise_stddev: Deviation of the noise in a sum with all shares, in integer units.

        Returns:
            The bits, at most 62.

        Raises:
            ParameterError: Too few bits, or more than 62 needed.
        """
        summands = checks.integer("summands", summands, 1)
        worst = self._worst_coordinate(summands, checks.at_least("noise_stddev", noise_stddev, 0))
        needed = math.floor(worst).bit_length() + 1
        if needed > _MOST_BITS:
            raise ParameterError(
                f"a sum of {summands} vectors may reach {worst:.4g}, which needs {needed} bits, more than "
                f"{_MOST_BITS}; lower the resolution or the noise"
            )
        if modulus_bits is None:
            return needed
        bits = checks.integer("modulus_bits", modulus_bits, 1)
        if not needed <= bits <= _MOST_BITS:
            raise ParameterError(
                f"modulus_bits is {bits}; sums of {summands} vectors and their noise need {needed} to {_MOST_BITS}"
            )
        return bits

    def _worst_coordinate(self, summands: int, noise_stddev: float) -> float:
        """What a coordinate of the sum stays below, at `tail_deviations`."""
        certain = (
            summands * max(math.isqrt(limit) for limit in self.limits) + self.tail_deviations * noise_stddev
        )
        if self.rotation is None:
            return certain
        squared_norm = math.fsum(
            (block.l2_bound * scale) ** 2 for block, scale in zip(self.blocks, self.scales, strict=True)
        )
        variance = summands**2 * squared_norm / self.dimension + summands / 4 + noise_stddev**2
        return min(certain, self.tail_deviations * math.sqrt(variance))

    def zeros(self) -> dict[str, NDArray[np.float64]]:
        """What a client with nothing to say encodes: zeros in every block."""
        return {name: np.zeros(length) for _, name, length in self._parts()}

    def encode(self, vectors: Mapping[str, ArrayLike], keystream: Keystream) -> NDArray[np.int64]:
        """Clip, scale, round and check one client's blocks.

        Args:
            vectors: One array for each block (each part of a joint one), of its length; any shape, laid out in C order.
            keystream: The client's own randomness.

        Returns:
            int64 array of shape (dimension,), without noise: secret.

        Raises:
            NonFiniteInput: A block holds NaN or infinity; encode `zeros()` instead.
            ParameterError: Names or lengths are not those of the blocks.
        """
        if vectors.keys() != self._names:
            raise ParameterError(f"got blocks {sorted(vectors)}; encode exactly {sorted(self._names)}")
        integers = np.empty(self.dimension, dtype=np.int64)
        start, beta, pieces = 0, self.retry_probability, self._pieces(vectors)
        if not beta:
            round_each_within(pieces, keystream, limits=self.limits, out=integers)
            return integers
        for (piece, factor), limit in zip(pieces, self.limits, strict=True):
            target = integers[start : start + len(piece)]
            round_within(piece, keystream, limit=limit, retry_probability=beta, factor=factor, out=target)
            start += len(piece)
        return integers

    def _pieces(self, vectors: Mapping[str, ArrayLike]) -> list[tuple[NDArray[np.floating], float]]:
        """What is rounded as one: vectors, and the factors that clip and scale them to integer units."""
        clipped = [clip_factor(_joined(block, vectors), block.l2_bound) for block in self.blocks]
        parts = [
            (flat, factor * scale) for (flat, factor, _), scale in zip(clipped, self.scales, strict=True)
        ]
        if self.rotation is None:
            return parts
        whole = np.zeros(self.dimension)
        for (flat, factor), target in zip(parts, self._split(whole[: self.rotation.length]), strict=True):
            np.multiply(flat, factor, out=target, dtype=np.float64)
        return [(self.rotation.forward(whole), 1.0)]

    def decode(
        self, total: NDArray[np.unsignedinteger], *, modulus_bits: int
    ) -> dict[str, NDArray[np.float64]]:
        """Read a sum modulo 2^modulus_bits back into blocks: `read` after `lift`.

        Args:
            total: Unsigned integers below 2^modulus_bits, shape (dimension,).
            modulus_bits: As returned by `check_bits`.

        Returns:
            Each block's *sum* over the clients, noise included, as float64 in the block's own unit.

        Raises:
            ParameterError: The length or a value does not fit.
        """
        return self.read(self.lift(total, modulus_bits=modulus_bits))

    def lift(self, total: NDArray[np.unsignedinteger], *, modulus_bits: int) -> NDArray[np.int64]:
        """The signed integers nearest to 0 that a sum modulo 2^modulus_bits stands for; see `decode`.

        Args:
            total: Unsigned integers below 2^modulus_bits, shape (dimension,).
            modulus_bits: Bits of the ring.

        Raises:
            ParameterError: another shape, or a value too large for the ring.
        """
        if total.shape != (self.dimension,):
            raise ParameterError(f"the total has shape {total.shape}; this encoding has ({self.dimension},)")
        if int(total.max()) >> modulus_bits:
            raise ParameterError(f"the total holds {int(total.max())}; it must stay below 2^{modulus_bits}")
        shift = np.int64(64 - modulus_bits)
        return (total.astype(np.uint64).view(np.int64) << shift) >> shift

    def read(self, values: NDArray[np.int64] | NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Each block's sum in its own unit, from sums in integer units, shape (dimension,).

        Args:
            values: Sums of integer vectors, or of such with float noise, shape (dimension,).
        """
        values = values.astype(np.float64)
        if self.rotation:
            values = self.rotation.inverse(values)
        ends = np.cumsum([length for _, _, length in self._parts()])[:-1]
        parts = zip(self._parts(), np.split(values, ends), strict=True)
        return {name: part / self.scales[j] for (j, name, _), part in parts}

    def canonical(self) -> bytes:
        """The encoding as bytes: equal for equal encodings only."""
        blocks = [
            (block.parts, float(block.l2_bound).hex(), scale.hex())
            for block, scale in zip(self.blocks, self.scales, strict=True)
        ]
        key = self.rotation.key.hex() if self.rotation else None
        facts = ("veilsum encoding 1", blocks, self.limits, self.retry_probability.hex(), key)
        return repr(facts).encode()

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(name for _, name, _ in self._parts())

    def _split(self, vector: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Views of the blocks' parts."""
        return np.split(vector, np.cumsum([block.length for block in self.blocks])[:-1])

    def _parts(self) -> list[tuple[int, str, int]]:
        """Index of the block, name and length of every part, in order."""
        return [(j, name, length) for j, block in enumerate(self.blocks) for name, length in block.parts]

    def _find(self, name: str) -> tuple[int, int]:
        """Index of the block that holds a named part, and the part's length."""
        for j, part, length in self._parts():
            if part == name:
                return j, length
        raise ParameterError(
            f"there is no block {name!r}; there are {[part for _, part, _ in self._parts()]}"
        )


def _joined(block: Block, vectors: Mapping[str, ArrayLike]) -> NDArray[Any]:
    """The block's parts as one vector."""
    parts = []
    for name, length in block.parts:
        part = np.asarray(vectors[name]).reshape(-1)
        if part.size != length:
            raise ParameterError(f"block {name!r} has {part.size} coordinates; it needs {length}")
        parts.append(part)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _scale(block: Block, norm: float) -> float:
    """Integer units per unit, such that the clipped block has integer norm `norm` before rounding."""
    if norm <= 0:
        raise ParameterError(
            f"weight {block.weight} of block {block.name!r} is so small that rounding its {block.length} "
            "coordinates may use it up; raise the weight or the resolution"
        )
    if norm > LARGEST_ROUNDED:
        raise ParameterError(
            f"block {block.name!r} has integer norm {norm:.4g}, above 2^50; lower the resolution"
        )
    scale = norm / block.l2_bound
    if not math.isfinite(scale):
        raise ParameterError(
            f"l2_bound of block {block.name!r} is {block.l2_bound}, too small to scale; enlarge the unit"
        )
    return scale


def _root_above(square: int) -> float:
    """The least float or the next one above the square root of an integer."""
    root = math.sqrt(square)
    return math.nextafter(math.nextafter(root, math.inf), math.inf)
