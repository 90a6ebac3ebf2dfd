"""Exact sampling of a symmetric integer distribution by its inverse distribution function.

A uniform number V in [-1/2, 1/2) is mapped to the integer whose share of that interval holds it. Only as
many bits of V are drawn as the answer needs:

1. 32 bits: the high ones choose a bucket of the guide table, the low ones are compared with the one cut that
   the bucket holds. A guide entry is `value << low_bits | (mask - threshold)`, so that adding the low bits
   carries into the value exactly when they pass the threshold: one gather and one addition a draw.
2. 64 bits, where the low bits *equal* the threshold or the bucket holds two cuts or more: a binary search
   among the cuts floor(2^64 c_k).
3. 64 more at a time, where V still agrees with a cut in every bit drawn: cuts of higher precision.

Nothing is ever rounded, so the distribution is the one that the cuts define, to the last bit; level 3 is
what makes it so, and is reached about once in 10^16 draws.

By symmetry only the cuts above 0 are kept: c_k is the probability of (-1/2, k + 1/2) counted from 0, so
c_0 < c_1 < ... < 1/2. Which cuts belong to which distribution is in `discrete_gaussian` and `skellam`.

Source: Devroye 1986, Non-Uniform Random Variate Generation, III.2.4 (guide tables), XV.3 (random bits).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dp.keystream import Keystream

__all__ = ["Cuts", "InverseCDF"]

Cuts: TypeAlias = Callable[[int], list[int]]
"""`cuts(bits)`: floor(2^bits c_k) for k = 0, 1, ..., up to the first that equals 2^(bits-1) - 1."""

_WORD_BITS = 32
_CUT_BITS = 64
_BLOCK = 1 << 14


class InverseCDF:
    """A sampler of the integers that some cuts define; immutable once built, so threads may share it.

    Guarantee:
        Given uniform words, value k >= 0 has probability exactly c_k - c_(k-1), and its mirror image the same.

    Args:
        cuts: The cuts at any precision asked for.
        mirror: 0 if the mirror image of k is -k (symmetric about 0), 1 if it is -k-1 (about -1/2).
        bucket_bits: Logarithm of the number of buckets; entries have 4 bytes.
    """

    __slots__ = ("_cuts", "_guide", "_low_bits", "_mirror", "_table", "_undecided")

    def __init__(self, cuts: Cuts, *, mirror: int, bucket_bits: int) -> None:
        self._cuts = cuts
        self._mirror = mirror
        self._low_bits = _WORD_BITS - bucket_bits
        self._table: NDArray[np.uint64] = np.array(cuts(_CUT_BITS), dtype=np.uint64)
        self._undecided = (1 << (bucket_bits - 1)) - 1
        self._guide = self._build_guide(bucket_bits)

    @property
    def nbytes(self) -> int:
        """Memory of both tables."""
        return self._guide.nbytes + self._table.nbytes

    def sample(self, count: int, keystream: Keystream) -> NDArray[np.int64]:
        """Draw `count` independent values."""
        values = np.empty(count, dtype=np.int64)

        def put(start: int, entries: NDArray[np.int32]) -> None:
            values[start : start + len(entries)] = entries

        where, rest = self._draw(count, keystream, put)
        values[where] = rest
        return values

    def add_to(self, values: NDArray[np.int64], keystream: Keystream) -> None:
        """Add the values that `sample` would give to a one-dimensional array, without a second array of its size."""

        def put(start: int, entries: NDArray[np.int32]) -> None:
            values[start : start + len(entries)] += entries

        where, rest = self._draw(len(values), keystream, put)
        values[where] += rest

    def _draw(
        self, count: int, keystream: Keystream, put: Callable[[int, NDArray[np.int32]], None]
    ) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Level 1 for all, handed to `put` by blocks, with 0 for the undecided; then their places and values."""
        mask = np.uint32((1 << self._low_bits) - 1)
        limit = np.int32(self._undecided << self._low_bits)
        size = min(count, _BLOCK)
        words, index = np.empty(size, dtype="<u4"), np.empty(size, dtype=np.intp)
        high, entries = np.empty(size, dtype="<u4"), np.empty(size, dtype=np.int32)
        open_, far = np.empty(size, dtype=np.bool_), np.empty(size, dtype=np.bool_)
        places, prefixes = [np.empty(0, dtype=np.intp)], [np.empty(0, dtype=np.intp)]
        for start in range(0, count, _BLOCK):
            if count - start < size:
                size = count - start
                words, index, high, entries = words[:size], index[:size], high[:size], entries[:size]
                open_, far = open_[:size], far[:size]
            keystream.fill(words)
            np.right_shift(words, self._low_bits, out=high)
            np.copyto(index, high)
            self._guide.take(index, out=entries, mode="wrap")
            words &= mask
            entries += words.view(np.int32)
            np.bitwise_and(entries.view(np.uint32), mask, out=high)
            np.equal(high, mask, out=open_)
            np.greater_equal(entries, limit, out=far)
            open_ |= far
            entries >>= self._low_bits
            (place,) = open_.nonzero()
            entries[place] = 0
            put(start, entries)
            places.append(place + start)
            prefixes.append((index[place] << self._low_bits) | words[place])
        return np.concatenate(places), self._search(np.concatenate(prefixes), keystream)

    def _search(self, prefixes: NDArray[np.intp], keystream: Keystream) -> NDArray[np.int64]:
        """Level 2: complete 32-bit prefixes of V to 64 bits and search among the cuts."""
        words = (prefixes.astype(np.uint64) << np.uint64(_WORD_BITS)) | keystream.words(len(prefixes), "<u4")
        signed = words.view(np.int64)
        sign = signed >> np.int64(63)  # -1 or 0, and x ^ -1 is -x - 1
        distance = (signed ^ sign).view(np.uint64)
        magnitude = np.searchsorted(self._table, distance, side="right")
        # Where no cut lies below, the last one is looked at instead, which is above every distance of such a place.
        for place in np.flatnonzero(self._table[magnitude - 1] == distance):
            magnitude[place] = self._refine(int(distance[place]), keystream)
        values: NDArray[np.int64] = magnitude ^ sign
        return values if self._mirror else values - sign

    def _refine(self, distance: int, keystream: Keystream) -> int:
        """Level 3: draw more bits of |V| until it differs from every cut."""
        bits = _CUT_BITS
        while True:
            bits += 64
            distance = distance << 64 | keystream.integer(64)
            cuts = self._cuts(bits)
            magnitude = bisect_right(cuts, distance)
            if magnitude == 0 or cuts[magnitude - 1] != distance:
                return magnitude

    def _build_guide(self, bucket_bits: int) -> NDArray[np.int32]:
        """One entry a bucket, indexed by the high bits of V as an unsigned (two's complement) number."""
        above = self._table.view(np.int64)
        below = ~above[::-1]
        cuts = np.concatenate((below, np.zeros(self._mirror, dtype=np.int64), above))
        shift = _CUT_BITS - bucket_bits
        buckets, half = 1 << bucket_bits, 1 << (bucket_bits - 1)
        bucket = (cuts >> shift) + half
        held = np.bincount(bucket, minlength=buckets)
        value = np.cumsum(held) - held - len(below) - self._mirror
        mask = (1 << self._low_bits) - 1
        threshold = np.full(buckets, mask, dtype=np.int64)
        threshold[bucket] = (cuts >> (_CUT_BITS - _WORD_BITS)) & mask
        decided = (held <= 1) & (np.abs(value) < self._undecided - 1)
        entries = np.where(
            decided, (value << self._low_bits) + mask - threshold, self._undecided << self._low_bits
        )
        return np.roll(entries, half).astype(np.int32)
