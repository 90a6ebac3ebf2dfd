"""Unbiased rounding, and a norm that cannot overflow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp.keystream import Keystream
from dp.rounding import (
    norm_after_rounding,
    norm_before_rounding,
    round_within,
    squared_norm,
    stochastic_round,
)

KEY = bytes(range(32))


@pytest.mark.parametrize("value", [0.25, -0.25, 7.5, -1000.9, 2.0**20 + 0.125, -(2.0**40) + 0.5])
def test_rounding_is_unbiased_between_the_two_neighbours(value: float) -> None:
    """n = 100,000, five standard errors (alpha 6e-7); 2/3 and 3/2 of the fraction would be rejected."""
    count = 100_000
    rounded = stochastic_round(np.full(count, value), Keystream.seeded(KEY))
    assert set(rounded.tolist()) == {math.floor(value), math.ceil(value)}
    fraction = value - math.floor(value)
    error = math.sqrt(fraction * (1 - fraction) / count)
    observed = float(np.mean(rounded - math.floor(value)))
    assert abs(observed - fraction) < 5 * error
    assert abs(observed - fraction * 2 / 3) > 5 * error
    assert abs(observed - fraction * 3 / 2) > 5 * error


def test_threshold_is_where_the_words_say() -> None:
    """The share of words that round up is the fraction to 15 bits; the extreme words leave integers alone."""

    class Word(Keystream):
        def fill(self, buffer: np.ndarray) -> None:
            buffer[:] = word

    large = np.array([-(2.0**36), 2.0**36 - 1, 2.0**36])
    for word in (-(2**15), 2**15 - 1):  # noqa: B007 (the stream above yields it)
        for integers in (np.arange(-9.0, 9.0), large):
            np.testing.assert_array_equal(stochastic_round(integers, Word(KEY)), integers)
    threshold = round(0.3 * 2**16)
    for step, expected in ((-2, 0), (2, 1)):
        word = 2**15 - threshold + step
        assert stochastic_round(np.array([0.3]), Word(KEY)).item() == expected


def test_every_word_counts_once() -> None:
    """All 2^16 words, each once: the mean of what a fraction is rounded to is off by 2^-16 at most."""

    class Each(Keystream):
        def fill(self, buffer: np.ndarray) -> None:
            buffer[:] = (np.arange(len(buffer)) + start - (1 << 15)).astype(buffer.dtype)

    for fraction in (0.0, 0.25, 0.5, 0.7, 1e-3, 1 - 1e-6):
        total = 0
        for start in range(0, 1 << 16, 1 << 12):  # noqa: B007 (the stream above yields it)
            total += int(stochastic_round(np.full(1 << 12, 7 + fraction), Each(KEY)).sum())
        assert abs(total / (1 << 16) - 7 - fraction) <= 2.0**-16


def test_integers_stay() -> None:
    values = np.arange(-70_000.0, 70_000.0)
    np.testing.assert_array_equal(stochastic_round(values, Keystream.seeded(KEY)), values)
    extreme = np.array([0.0, -0.0, 2.0**20, -(2.0**20)])
    for _ in range(50):
        np.testing.assert_array_equal(stochastic_round(extreme, Keystream()), extreme)


def test_coordinates_are_rounded_independently_across_blocks() -> None:
    """Neighbours and the same place of the next block of 2^14: correlations below 5 standard errors."""
    bits = stochastic_round(np.full(1 << 17, 0.5), Keystream.seeded(KEY)).astype(float) * 2 - 1
    for lag in (1, 2, 1 << 14):
        assert abs(np.mean(bits[lag:] * bits[:-lag])) < 5 / math.sqrt(len(bits) - lag)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9))
def test_squared_norm_is_exact_for_every_int64(values: list[int]) -> None:
    assert squared_norm(np.array(values, dtype=np.int64)) == sum(v * v for v in values)


def test_squared_norm_at_the_edge_of_overflow() -> None:
    """2^20 coordinates of 2^21: the sum is 2^62; of 2^22: 2^64, which int64 arithmetic would call 0."""
    for power in (20, 21, 22, 31, 43):
        assert squared_norm(np.full(1 << 20, -(1 << power), dtype=np.int64)) == 1 << (20 + 2 * power)


@pytest.mark.parametrize("beta", [0.0, 1e-9, 0.1, math.exp(-0.5), 0.99])
@pytest.mark.parametrize("length", [1, 30, 10**6])
@pytest.mark.parametrize("norm", [0.5, 100.0, 1e7])
def test_norm_bounds_are_each_others_inverse(norm: float, length: int, beta: float) -> None:
    after = norm_after_rounding(norm, length, beta)
    assert norm < after <= norm + math.sqrt(length)
    assert norm_before_rounding(after, length, beta) == pytest.approx(norm, rel=1e-6)


def test_norm_bound_holds_as_often_as_it_says_and_is_not_loose() -> None:
    """Halves round to the longest norm of all: in 2,000 roundings the bound of beta = 0.1 is passed in at most
    10%, and one that forgot the rounding's own d/4 in nearly all.
    """
    length, beta = 64, 0.1
    values = np.full(length, 1.5)
    norm = math.sqrt(squared_norm((values * 2).astype(np.int64))) / 2
    limit = norm_after_rounding(norm, length, beta)
    stream = Keystream.seeded(KEY)
    norms = [math.sqrt(squared_norm(stochastic_round(values, stream))) for _ in range(2_000)]
    assert np.mean(np.array(norms) > limit) <= beta
    assert np.mean(np.array(norms) > norm) > 0.6
    assert max(norms) <= norm_after_rounding(norm, length, 0.0)


def test_rounding_is_repeated_until_the_norm_fits() -> None:
    """The limit is the mean of the squared norms: a single rounding fails about half the time, 64 never do."""
    values = np.full(64, 1.5)
    stream = Keystream.seeded(KEY)
    limit = int(64 * 2.5)
    again = [round_within(values, stream, limit=limit, retry_probability=0.5) for _ in range(300)]
    assert all(squared_norm(vector) <= limit for vector in again)
    assert not any(np.array_equal(vector, np.ones(64)) for vector in again)
    once = [round_within(values, stream, limit=limit, retry_probability=0.0) for _ in range(300)]
    assert 0.3 < np.mean([np.array_equal(vector, np.ones(64)) for vector in once]) < 0.7


def test_rounding_that_never_fits_is_truncated_or_zero() -> None:
    """Limits that no rounding away from the truncation meets, and that not even the truncation meets."""
    values = np.array([-1.999999, 2.999999, 0.5])
    stream = Keystream.seeded(KEY)
    for beta in (0.0, 0.5):
        truncated = round_within(values, stream, limit=5, retry_probability=beta)
        assert truncated.tolist() == [-1, 2, 0]
        assert round_within(values, stream, limit=4, retry_probability=beta).tolist() == [0, 0, 0]
