"""Blocks: the named parts of a client's vector, each with the bound it is clipped to and its share of the noise.

*Joint* clipping: several named parts form one block and are clipped by their common norm (`Block.joint`), as a
weighted update and its weight must be. *Per-layer* clipping: every layer is a block with its own bound
(`per_layer`). Either way the blocks' weights add up to 1, so one noise deviation and one event cover them all;
charging each block by itself at full clip is the classic error.

Source: McMahan et al. 2018 (arXiv 1710.06963), section 3 (flat and per-layer clipping).
Not here: how blocks become integers (`encoding`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dp import checks
from dp.errors import ParameterError

__all__ = ["Block", "check_blocks", "per_layer"]


@dataclass(frozen=True)
class Block:
    """One part of a client's vector, clipped as a whole.

    Args:
        name: What the caller calls it.
        length: Number of coordinates, at least 1.
        l2_bound: Public bound c that the block is clipped to, above 0.
        weight: Share of the joint squared sensitivity, in (0, 1]; the weights of all blocks add up to 1.
        parts: Names and lengths of the vectors that make up the block, in order; empty for the block itself.

    Raises:
        ParameterError: A value is out of its range.
    """

    name: str
    length: int
    l2_bound: float
    weight: float
    parts: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        checks.integer(f"length of block {self.name!r}", self.length, 1)
        checks.positive(f"l2_bound of block {self.name!r}", self.l2_bound)
        if not 0 < self.weight <= 1:
            raise ParameterError(
                f"weight of block {self.name!r} is {self.weight}; it must be above 0 and at most 1"
            )
        if not self.parts:
            object.__setattr__(self, "parts", ((self.name, self.length),))
        if sum(length for _, length in self.parts) != self.length:
            raise ParameterError(
                f"the parts of block {self.name!r} do not add up to its length {self.length}"
            )

    @classmethod
    def joint(cls, parts: Mapping[str, int], *, l2_bound: float, weight: float) -> Block:
        """A block of several named vectors that are clipped together.

        Args:
            parts: Name of each vector to its length.
            l2_bound: Bound of their common norm.
            weight: As in `Block`.

        >>> Block.joint({"weighted update": 100, "weight": 1}, l2_bound=2.0, weight=1.0).length
        101
        """
        for name, length in parts.items():
            checks.integer(f"length of part {name!r}", length, 1)
        return cls(" + ".join(parts), sum(parts.values()), l2_bound, weight, tuple(parts.items()))


def per_layer(
    lengths: Mapping[str, int], *, l2_bound: float | Mapping[str, float], weight: float = 1.0
) -> tuple[Block, ...]:
    """Blocks for layers that are each clipped by themselves.

    A layer's weight is its squared bound's share of all, so that every layer is scaled alike and the noise is the same
    on each coordinate, as with joint clipping to the root of the sum of the squared bounds.

    Args:
        lengths: Name of each layer to its number of coordinates.
        l2_bound: A bound for each layer; or one for all together, of which a layer gets the root of its share of the
            coordinates.
        weight: Of all layers together.

    Raises:
        ParameterError: A layer has no bound, or a value is out of its range.

    >>> [round(block.l2_bound, 3) for block in per_layer({"a": 900, "b": 100}, l2_bound=1.0)]
    [0.949, 0.316]
    """
    if not isinstance(l2_bound, Mapping):
        together = checks.positive("l2_bound", l2_bound)
        total = sum(lengths.values())
        l2_bound = {name: together * math.sqrt(length / total) for name, length in lengths.items()}
    if set(l2_bound) != set(lengths):
        raise ParameterError(f"bounds for {sorted(l2_bound)}; give one for each layer of {sorted(lengths)}")
    squares = {name: checks.positive(f"l2_bound of {name!r}", bound) ** 2 for name, bound in l2_bound.items()}
    whole = math.fsum(squares.values())
    return tuple(
        Block(name, length, l2_bound[name], weight * squares[name] / whole)
        for name, length in lengths.items()
    )


def check_blocks(blocks: tuple[Block, ...]) -> None:
    """Raise `ParameterError` unless the names differ and the weights add up to 1."""
    if not blocks:
        raise ParameterError("an encoding of no blocks; give at least one")
    names = list(_names(blocks))
    if len(set(names)) < len(names):
        raise ParameterError(f"block names {names} repeat; give each its own")
    total = math.fsum(block.weight for block in blocks)
    if abs(total - 1) > 1e-9:
        raise ParameterError(
            f"the blocks' weights add up to {total}; they share one sensitivity, so make it 1"
        )


def _names(blocks: tuple[Block, ...]) -> Iterator[str]:
    return (name for block in blocks for name, _ in block.parts)
