"""The guide table against the cuts it was made from, word by word, and every tie path."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from dp.discrete_gaussian import _gaussian_cuts
from dp.inverse_cdf import InverseCDF
from dp.keystream import Keystream


class Scripted(Keystream):
    """A stream that yields given 32-bit words in order, then refuses."""

    def __init__(self, words: Iterable[int]) -> None:
        super().__init__(bytes(32))
        self.left = list(words)

    def fill(self, buffer: NDArray[np.generic]) -> None:
        taken, self.left = self.left[: len(buffer)], self.left[len(buffer) :]
        assert len(taken) == len(buffer), "the script is at its end"
        buffer[:] = taken

    def integer(self, bits: int) -> int:
        assert bits == 64
        low, high = self.left.pop(0), self.left.pop(0)
        return high << 32 | low


def cuts_of(stddev: float, bits: int, mirror: int) -> list[int]:
    return _gaussian_cuts(1 / (2 * Fraction(stddev) ** 2), bits, mirror)


def table(stddev: float, mirror: int, bucket_bits: int) -> InverseCDF:
    return InverseCDF(lambda bits: cuts_of(stddev, bits, mirror), mirror=mirror, bucket_bits=bucket_bits)


def reference(word: int, cuts: list[int], mirror: int) -> int:
    """The value of a 64-bit word by definition; the caller avoids ties."""
    if word < 1 << 63:
        return bisect_right(cuts, word)
    return -bisect_right(cuts, (1 << 64) - 1 - word) - mirror


@pytest.mark.parametrize("bucket_bits", [16, 18])
@pytest.mark.parametrize("mirror", [0, 1])
@pytest.mark.parametrize("stddev", [0.5, 3.0, 40.0, 900.0])
def test_every_word_near_a_cut_or_a_bucket_edge_gets_the_right_value(
    stddev: float, mirror: int, bucket_bits: int
) -> None:
    cuts = cuts_of(stddev, 64, mirror)
    near = np.array([cut >> 32 for cut in cuts[:: 1 + len(cuts) // 500]], dtype=np.int64)[
        :, None
    ] + np.arange(-2, 3)
    edges = (np.arange(1 << 7, dtype=np.int64) << 24)[:, None] + np.arange(-2, 3)
    distances = np.unique(np.clip(np.concatenate((near.ravel(), edges.ravel())), 0, (1 << 31) - 1))
    prefixes = np.concatenate((distances, (1 << 32) - 1 - distances)).tolist()
    tails = Keystream.seeded(bytes(32)).words(len(prefixes), "<u4").tolist()
    sampler = table(stddev, mirror, bucket_bits)
    fast_and_slow = [
        sampler.sample(1, Scripted([prefix, tail, 0, 0])).item()
        for prefix, tail in zip(prefixes, tails, strict=True)
    ]
    expected = [reference(p << 32 | t, cuts, mirror) for p, t in zip(prefixes, tails, strict=True)]
    assert fast_and_slow == expected


@pytest.mark.parametrize("mirror", [0, 1])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("index", [0, 1, 17, 90])
@pytest.mark.parametrize(("offset", "step"), [(-1, 0), (0, 1), (1, 1)])
def test_tie_with_a_cut_is_resolved_by_its_next_bits(
    mirror: int, sign: int, index: int, offset: int, step: int
) -> None:
    """V agrees with cut number `index` in 128 bits but for `offset` in the last; at 0 it exceeds it later."""
    stddev = 10.0
    distance = cuts_of(stddev, 128, mirror)[index] + offset
    assert distance >> 64 == cuts_of(stddev, 64, mirror)[index], "offset must not reach the first 64 bits"
    first = distance >> 64 if sign > 0 else (1 << 64) - 1 - (distance >> 64)
    extra = distance & (1 << 64) - 1
    script = [first >> 32, first & 0xFFFFFFFF, extra & 0xFFFFFFFF, extra >> 32]
    if offset == 0:
        script += [0xFFFFFFFF] * 2
    stream = Scripted(script)
    magnitude = index + step
    assert table(stddev, mirror, 16).sample(1, stream).item() == (
        magnitude if sign > 0 else -magnitude - mirror
    )
    assert stream.left == [], "every level must have been reached"


def test_values_too_large_for_a_guide_entry_are_searched_for() -> None:
    """Uniform on -40,000..40,000: buckets with a single cut, but values beyond the 2^15 that an entry holds."""

    def uniform(bits: int) -> list[int]:
        cuts = [((2 * k + 1) << bits) // (2 * 80_001) for k in range(40_000)]
        return [*cuts, (1 << (bits - 1)) - 1]

    sampler = InverseCDF(uniform, mirror=0, bucket_bits=16)
    for magnitude in (10, 32_000, 32_764, 32_765, 32_766, 32_767, 32_768, 39_999):
        word = (uniform(64)[magnitude - 1] + uniform(64)[magnitude]) // 2
        for value, bits in ((magnitude, word), (-magnitude, (1 << 64) - 1 - word)):
            assert sampler.sample(1, Scripted([bits >> 32, bits & 0xFFFFFFFF])).item() == value


def test_word_beyond_the_last_cut_finds_its_place_in_the_far_tail() -> None:
    """All-ones distance: the tail below 2^-64, where the 64-bit table ends, is sampled all the same."""
    cuts = cuts_of(10.0, 64, 0)
    value = table(10.0, 0, 16).sample(1, Scripted([0x7FFFFFFF, 0xFFFFFFFF, 0, 0])).item()
    assert value == bisect_right(cuts_of(10.0, 128, 0), cuts[-1] << 64)
    deep = table(10.0, 0, 16).sample(1, Scripted([0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE])).item()
    assert len(cuts) - 1 <= value < deep


def test_long_draws_are_the_same_as_short_ones_but_for_their_slow_words() -> None:
    """Blocks of 2^14 cover every position: nothing stays unwritten, whatever the count."""
    sampler = table(5.0, 0, 16)
    for count in (0, 1, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 40_000):
        values = sampler.sample(count, Keystream.seeded(bytes(32)))
        assert values.shape == (count,)
        assert np.all(np.abs(values) < 60)
        if count > 1:
            assert 4 < values.std() < 6


def test_memory_is_bounded() -> None:
    assert table(2048.0, 0, 18).nbytes <= 2 << 20
