"""Few bits for a coordinate: the scale, the room in the modulus and the bits, chosen together.

With a rotation, no coordinate of a sum is much larger than the others, and a modulus that wraps now and then costs
accuracy but no privacy. Given b bits, n summands, noise z times the sensitivity D and d (padded) coordinates, the
scaled norm R of one vector and the deviations k that the modulus has room for obey

    2^(b-1) = k sqrt(n^2 R^2 / d + n/4 + z^2 D(R)^2),

and a coordinate of the decoded sum has at most the squared error

    z^2 D(R)^2 + n/4 + 2 exp(-k^2/2) 4^b        (noise, rounding, wrapping)      over R^2,

where a central Gaussian has z^2. The excess is made as small as the bits allow; conditional rounding keeps D close to
R. All of it holds for the worst inputs: every client's vector the same, every coordinate halfway between integers.

Source: Kairouz, Liu, Steinke 2021 (arXiv 2102.06387), theorem 2 and its choice of scale.
Not here: what the choice means for one vector (`encoding`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dp import checks
from dp.blocks import Block
from dp.encoding import Encoding
from dp.errors import ParameterError
from dp.rounding import norm_after_rounding

__all__ = ["compressed"]

_RETRY_PROBABILITY = math.exp(-0.5)
_MOST_BITS = 48
_ROOMS = [k / 10 for k in range(20, 100)]
_SLACK = 1e-3


class _Choice(NamedTuple):
    """One way to use the bits."""

    excess: float
    norm: float
    room: float


def compressed(
    blocks: Iterable[Block],
    *,
    rotation_key: bytes,
    summands: int,
    noise_multiplier: float,
    modulus_bits: int | None = None,
    excess: float = 0.01,
) -> Encoding:
    """Plan a rotated, conditionally rounded encoding for as few bits as its accuracy allows.

    Guarantee:
        `check_bits` with these summands and noise accepts the bits, and each coordinate's mean squared error is at
        most 1 + `excess` times that of a central Gaussian of the same noise multiplier, for any inputs within
        the bounds, over the choice of the key.

    Args:
        blocks: As in `Encoding.plan`.
        rotation_key: 32 public bytes, the same for every client of a sum.
        summands: Most vectors that one sum may hold.
        noise_multiplier: z, deviation of the noise in a sum *with all shares* over the sensitivity.
        modulus_bits: Of the modulus; `None` takes the fewest that `excess` allows.
        excess: Largest loss of accuracy, above 0.

    Returns:
        The encoding; `check_bits` gives the bits.

    Raises:
        ParameterError: The bits are too few for the accuracy, or a value is out of its range.

    >>> plan = compressed([Block("update", 2**20, l2_bound=1.0, weight=1.0)], rotation_key=bytes(32),
    ...                   summands=1000, noise_multiplier=1.0)
    >>> plan.check_bits(None, summands=1000, noise_stddev=plan.sensitivity)
    17

    Source: Kairouz, Liu, Steinke 2021, section 5.
    """
    blocks = tuple(blocks)
    summands = checks.integer("summands", summands, 1)
    noise_multiplier = checks.positive("noise_multiplier", noise_multiplier)
    excess = checks.positive("excess", excess)
    dimension = 1 << (sum(block.length for block in blocks) - 1).bit_length()
    bits, choice = next(
        (found for found in _choices(dimension, summands, noise_multiplier) if found[1].excess <= excess),
        (_MOST_BITS + 1, None),
    )
    if modulus_bits is not None:
        given = checks.integer("modulus_bits", modulus_bits, 2)
        if bits <= given <= _MOST_BITS:
            bits, choice = given, _best(given, dimension, summands, noise_multiplier)
        else:
            choice = None
    if choice is None:
        raise ParameterError(
            f"modulus_bits is {modulus_bits}; sums of {summands} vectors with an excess error of at most {excess:g} "
            f"need {bits} to {_MOST_BITS}: give bits in that range or allow more error"
        )
    return Encoding.plan(
        blocks,
        resolution=choice.norm / math.sqrt(dimension),
        retry_probability=_RETRY_PROBABILITY,
        rotation_key=rotation_key,
        tail_deviations=choice.room,
    )


def _choices(dimension: int, summands: int, noise_multiplier: float) -> Iterator[tuple[int, _Choice]]:
    """The best choice for 2 bits, 3 bits, ..."""
    for bits in range(2, _MOST_BITS + 1):
        yield bits, _best(bits, dimension, summands, noise_multiplier)


def _best(bits: int, dimension: int, summands: int, noise_multiplier: float) -> _Choice:
    """The room in the modulus that makes the excess error least."""
    return min(_with_room(room, bits, dimension, summands, noise_multiplier) for room in _ROOMS)


def _with_room(room: float, bits: int, dimension: int, summands: int, noise_multiplier: float) -> _Choice:
    """Scale and excess error where the modulus holds `room` deviations; an infinite error where none fits."""
    noise, root = noise_multiplier**2, math.sqrt(dimension)
    spread = math.sqrt(-2 * math.log(_RETRY_PROBABILITY))
    # D(R)^2 is the smaller of (R + root)^2 and R^2 + spread R + ..., so R is the larger of two roots.
    variance = ((1 - _SLACK) * 2.0 ** (bits - 1) / room) ** 2 - summands / 4
    square = summands**2 / dimension + noise
    norm = max(
        _root(square, noise * 2 * root, noise * dimension - variance),
        _root(square, noise * spread, noise * (dimension / 4 + spread * root / 2) - variance),
    )
    if norm <= 0:
        return _Choice(math.inf, norm, room)
    after = norm_after_rounding(norm, dimension, _RETRY_PROBABILITY)
    error = noise * after**2 + summands / 4 + 2 * math.exp(-(room**2) / 2) * 4.0**bits
    return _Choice(error / (noise * norm**2) - 1, norm, room)


def _root(square: float, linear: float, constant: float) -> float:
    """The larger root of square x^2 + linear x + constant, or 0 if it is not positive."""
    if constant >= 0:
        return 0.0
    return (math.sqrt(linear**2 - 4 * square * constant) - linear) / (2 * square)
