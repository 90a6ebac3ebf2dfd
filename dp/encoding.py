"""From named real vectors to one bounded integer vector, and from a sum of those back.

A client's vector consists of blocks (update, counts, metrics). Block j is clipped to its public bound c_j, scaled
by s_j and rounded to integers at random; it then takes the share w_j of the joint squared norm:

    D_j = D sqrt(w_j), sum_j w_j = 1,    s_j = (D_j - sqrt(d_j)) / c_j,    limit_j = floor(D_j^2).

Rounding moves a vector of length d by less than sqrt(d), so the longest block is given s c = 100 sqrt(d), which
makes the integer sensitivity D larger than the scaled clip by exactly 1%. One noise deviation fits all blocks.

Rules this file keeps:

1. Every block's integer squared norm is compared with limit_j in exact integer arithmetic. Privacy rests on that
   comparison alone, never on a float.
2. A block that fails it is truncated toward zero, which shortens it to the scaled clip; if the clip itself was
   off, zeros take its place. Nobody is dropped, nothing is retried or reported.
3. A modulus too small for the worst sum and the noise is an error before anybody is invited.

Source: Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), algorithm 1 and proposition 26 with beta = 0.
Not here: the noise (`mechanisms`), the sum (another package), what a release costs (`accounting`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp import checks
from dp.clipping import clip_l2
from dp.errors import ParameterError
from dp.keystream import Keystream
from dp.rounding import LARGEST_ROUNDED, squared_norm, stochastic_round

__all__ = ["Block", "Encoding"]

_TAIL_DEVIATIONS = 9
_MOST_BITS = 62


@dataclass(frozen=True)
class Block:
    """One named part of a client's vector.

    Args:
        name: What the caller calls it.
        length: Number of coordinates, at least 1.
        l2_bound: Public bound c that the block is clipped to, above 0.
        weight: Share of the joint squared sensitivity, in (0, 1]; the weights of all blocks add up to 1.

    Raises:
        ParameterError: A value is out of its range.
    """

    name: str
    length: int
    l2_bound: float
    weight: float

    def __post_init__(self) -> None:
        checks.integer(f"length of block {self.name!r}", self.length, 1)
        checks.positive(f"l2_bound of block {self.name!r}", self.l2_bound)
        if not 0 < self.weight <= 1:
            raise ParameterError(
                f"weight of block {self.name!r} is {self.weight}; it must be above 0 and at most 1"
            )


@dataclass(frozen=True)
class Encoding:
    """The fixed, public way from a client's blocks to its integer vector and back.

    Guarantee:
        Whatever the input, `encode` returns integers whose squared l2 norm is at most the sum of `limits`, and
        so at most `sensitivity` squared; zeros are returned for zeros.

    Args:
        blocks: In the order in which they are laid out.
        scales: Integer units per unit of each block's own measure.
        limits: Largest squared integer norm of each block.

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

    @classmethod
    def plan(cls, blocks: Iterable[Block], *, resolution: float = 100.0) -> Encoding:
        """Choose scales and limits.

        Args:
            blocks: Their weights add up to 1, their names differ.
            resolution: s c / sqrt(d) of the longest block, at least 1: rounding inflates the sensitivity by one part
                in `resolution`. A larger one costs bits: log2(resolution) of them.

        Returns:
            The encoding.

        Raises:
            ParameterError: Weights, names or bounds do not fit, or a block's weight leaves no room for its rounding.
        """
        blocks = tuple(blocks)
        _check(blocks)
        resolution = checks.at_least("resolution", resolution, 1)
        longest = max(blocks, key=lambda block: block.length)
        joint = (resolution + 1) * math.sqrt(longest.length / longest.weight)
        scales = tuple(_scale(block, joint * math.sqrt(block.weight)) for block in blocks)
        limits = tuple(int(joint * joint * block.weight) for block in blocks)
        return cls(blocks, scales, limits)

    @property
    def dimension(self) -> int:
        """Number of integer coordinates."""
        return sum(block.length for block in self.blocks)

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
        """Number of coordinates of a block."""
        return self.blocks[self._index(name)].length

    def scale(self, name: str) -> float:
        """Integer units per unit of a block."""
        return self.scales[self._index(name)]

    def check_bits(self, modulus_bits: int | None, *, summands: int, noise_stddev: float) -> int:
        """Check that a modulus holds every sum, or choose the smallest that does.

        Guarantee:
            With so many bits, no coordinate of a sum of `summands` encoded vectors wraps unless its noise passes
            nine deviations (probability 2e-19).

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
        noise = math.ceil(_TAIL_DEVIATIONS * checks.at_least("noise_stddev", noise_stddev, 0))
        worst = summands * max(math.isqrt(limit) for limit in self.limits) + noise
        needed = worst.bit_length() + 1
        if needed > _MOST_BITS:
            raise ParameterError(
                f"a sum of {summands} vectors may reach {worst}, which needs {needed} bits, more than {_MOST_BITS}; "
                "lower the resolution or the noise"
            )
        if modulus_bits is None:
            return needed
        bits = checks.integer("modulus_bits", modulus_bits, 1)
        if not needed <= bits <= _MOST_BITS:
            raise ParameterError(
                f"modulus_bits is {bits}; sums of {summands} vectors and their noise need {needed} to {_MOST_BITS}"
            )
        return bits

    def zeros(self) -> dict[str, NDArray[np.float64]]:
        """What a client with nothing to say encodes: zeros in every block."""
        return {block.name: np.zeros(block.length) for block in self.blocks}

    def encode(self, vectors: Mapping[str, ArrayLike], keystream: Keystream) -> NDArray[np.int64]:
        """Clip, scale, round and check one client's blocks.

        Args:
            vectors: One array for each block, of its length; any shape, laid out in C order.
            keystream: The client's own randomness.

        Returns:
            int64 array of shape (dimension,), without noise: secret.

        Raises:
            NonFiniteInput: A block holds NaN or infinity; encode `zeros()` instead.
            ParameterError: Names or lengths are not those of the blocks.
        """
        if set(vectors) != {block.name for block in self.blocks}:
            raise ParameterError(
                f"got blocks {sorted(vectors)}; encode exactly {sorted(block.name for block in self.blocks)}"
            )
        parts = zip(self.blocks, self.scales, self.limits, strict=True)
        return np.concatenate(
            [
                _encode_block(vectors[block.name], block, scale, limit, keystream)
                for block, scale, limit in parts
            ]
        )

    def decode(
        self, total: NDArray[np.unsignedinteger], *, modulus_bits: int
    ) -> dict[str, NDArray[np.float64]]:
        """Read a sum modulo 2^modulus_bits back into blocks.

        Args:
            total: Unsigned integers below 2^modulus_bits, shape (dimension,).
            modulus_bits: As returned by `check_bits`.

        Returns:
            Each block's *sum* over the clients, noise included, as float64 in the block's own unit.

        Raises:
            ParameterError: The length or a value does not fit.
        """
        if total.shape != (self.dimension,):
            raise ParameterError(f"the total has shape {total.shape}; this encoding has ({self.dimension},)")
        if int(total.max()) >> modulus_bits:
            raise ParameterError(f"the total holds {int(total.max())}; it must stay below 2^{modulus_bits}")
        shift = np.int64(64 - modulus_bits)
        lifted = (total.astype(np.uint64).view(np.int64) << shift) >> shift
        ends = np.cumsum([block.length for block in self.blocks])[:-1]
        parts = zip(self.blocks, self.scales, np.split(lifted, ends), strict=True)
        return {block.name: part / scale for block, scale, part in parts}

    def canonical(self) -> bytes:
        """The encoding as bytes: equal for equal encodings only."""
        facts = [
            (
                block.name,
                block.length,
                float(block.l2_bound).hex(),
                float(block.weight).hex(),
                scale.hex(),
                limit,
            )
            for block, scale, limit in zip(self.blocks, self.scales, self.limits, strict=True)
        ]
        return repr(("veilsum encoding 1", facts)).encode()

    def _index(self, name: str) -> int:
        for index, block in enumerate(self.blocks):
            if block.name == name:
                return index
        raise ParameterError(f"there is no block {name!r}; there are {[block.name for block in self.blocks]}")


def _check(blocks: tuple[Block, ...]) -> None:
    if not blocks:
        raise ParameterError("an encoding of no blocks; give at least one")
    if len({block.name for block in blocks}) < len(blocks):
        raise ParameterError(f"block names {[block.name for block in blocks]} repeat; give each its own")
    total = math.fsum(block.weight for block in blocks)
    if abs(total - 1) > 1e-9:
        raise ParameterError(
            f"the blocks' weights add up to {total}; they share one sensitivity, so make it 1"
        )


def _scale(block: Block, norm: float) -> float:
    """Integer units per unit, such that the clipped block and its rounding stay within `norm`."""
    room = norm - math.sqrt(block.length)
    if room <= 0:
        raise ParameterError(
            f"weight {block.weight} of block {block.name!r} leaves integer norm {norm:.4g}, which rounding its "
            f"{block.length} coordinates may use up; raise its weight or the resolution"
        )
    if room > LARGEST_ROUNDED:
        raise ParameterError(
            f"block {block.name!r} has integer norm {room:.4g}, above 2^50; lower the resolution"
        )
    scale = room / block.l2_bound
    if not math.isfinite(scale):
        raise ParameterError(
            f"l2_bound of block {block.name!r} is {block.l2_bound}, too small to scale; enlarge the unit"
        )
    return scale


def _encode_block(
    vector: ArrayLike, block: Block, scale: float, limit: int, keystream: Keystream
) -> NDArray[np.int64]:
    clipped, _ = clip_l2(vector, block.l2_bound)
    if clipped.size != block.length:
        raise ParameterError(f"block {block.name!r} has {clipped.size} coordinates; it needs {block.length}")
    scaled = clipped.reshape(-1) * scale
    rounded = stochastic_round(scaled, keystream)
    if squared_norm(rounded) <= limit:
        return rounded
    truncated = np.trunc(scaled).astype(np.int64)
    if squared_norm(truncated) <= limit:
        return truncated
    return np.zeros_like(truncated)


def _root_above(square: int) -> float:
    """The least float or the next one above the square root of an integer."""
    root = math.sqrt(square)
    return math.nextafter(math.nextafter(root, math.inf), math.inf)
