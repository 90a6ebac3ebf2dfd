"""The discrete Gaussian against its definition: cuts in exact arithmetic, draws by chi-square tests."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp import ParameterError, discrete_gaussian
from dp.discrete_gaussian import (
    DiscreteGaussian,
    _bernoulli_exp,
    _Blocks,
    _exp_negative,
    _gaussian_cuts,
    _sampler,
)
from dp.keystream import Keystream
from tests.dp.goodness import chi_square_p

KEY = bytes(range(32))
ALPHA = 1e-6
DRAWS = 200_000


def p_value(values: NDArray[np.int64], stddev: float) -> float:
    return chi_square_p(values, DiscreteGaussian(stddev=stddev).log_pmf, math.ceil(12 * stddev) + 12)


@pytest.mark.parametrize("stddev", [0.5, 1.0, 3.7, 50.0, 255.0, 700.0, 2000.0, 8192.0, 10_000.0, 123_456.7])
def test_draws_have_the_stated_distribution_and_no_other(stddev: float) -> None:
    """Chi-square, n = 200,000, alpha = 1e-6; the same draws reject 2/3 and 3/2 of sigma."""
    values = DiscreteGaussian(stddev=stddev).sample(DRAWS, Keystream.seeded(KEY))
    assert p_value(values, stddev) > ALPHA
    assert p_value(values, stddev * 2 / 3) < ALPHA
    assert p_value(values, stddev * 3 / 2) < ALPHA


@pytest.mark.parametrize(("stddev", "coarse"), [(3.0, 1), (40.0, 2), (300.0, 3)])
def test_blocks_that_reject_often_keep_the_distribution(stddev: float, coarse: int) -> None:
    """Few blocks, so that a third of the candidates is rejected; n = 200,000, alpha = 1e-6, power as above."""
    values = _Blocks(stddev, largest_coarse=coarse).sample(DRAWS, Keystream.seeded(KEY))
    assert p_value(values, stddev) > ALPHA
    assert p_value(values, stddev * 2 / 3) < ALPHA
    assert p_value(values, stddev * 3 / 2) < ALPHA


def test_exact_comparison_agrees_with_the_float_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the band of doubt at 1, big integers decide every acceptance: same stream, same values."""
    blocks = _Blocks(40.0, largest_coarse=2)
    by_floats = blocks.sample(5_000, Keystream.seeded(KEY))
    decided = []

    def counted(*arguments: Any) -> bool:
        decided.append(arguments)
        return _bernoulli_exp(*arguments)

    monkeypatch.setattr(discrete_gaussian, "_FLOAT_BAND", 1.0)
    monkeypatch.setattr(discrete_gaussian, "_bernoulli_exp", counted)
    np.testing.assert_array_equal(blocks.sample(5_000, Keystream.seeded(KEY)), by_floats)
    assert len(decided) > 5_000


def test_squeeze_is_off_where_a_block_is_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block beyond ten deviations (probability e^-50) must be compared exactly, not accepted outright."""
    blocks = _Blocks(300.0, largest_coarse=3)
    far = blocks._farthest + 40
    monkeypatch.setattr(blocks, "_blocks", FarBlocks(far))
    values = blocks.sample(4_000, Keystream.seeded(KEY))
    offset = (values - (far << blocks._shift))[values > 0]
    drop = np.exp(-(values[values > 0].mean() * np.arange(1 << blocks._shift)) / 300.0**2)
    expected = float((np.arange(len(drop)) * drop).sum() / drop.sum())
    assert offset.mean() == pytest.approx(expected, rel=0.1)


class FarBlocks:
    """Stands in for the sampler of blocks and always answers with one far block."""

    def __init__(self, block: int) -> None:
        self.block = block

    def sample(self, count: int, keystream: Keystream) -> NDArray[np.int64]:
        return np.full(count, self.block, dtype=np.int64)


def test_bernoulli_draws_more_bits_until_it_is_clear() -> None:
    """The first 64 bits equal those of exp(-1/3): only the next ones can decide."""
    stream = Keystream.seeded(KEY)
    exponent = Fraction(1, 3)
    start = _exp_negative(exponent, 320) >> 256
    expected = (start << 64 | Keystream.seeded(KEY).integer(64)) < _exp_negative(exponent, 128)
    assert _bernoulli_exp(start, 64, exponent, stream) is expected
    assert stream.words(8, "u1").tobytes() == Keystream.seeded(KEY).words(16, "u1").tobytes()[8:]
    for offset, decision in ((-5, True), (5, False)):
        assert _bernoulli_exp(start + offset, 64, exponent, stream) is decision


@pytest.mark.parametrize(
    "exponent", ["0", "1/1000000", "1/3", "1", "17/3", "2047/1", "1/1267650600228229401496"]
)
@pytest.mark.parametrize("bits", [44, 64, 200, 700])
def test_exponential_is_off_by_less_than_two(exponent: str, bits: int) -> None:
    value = Fraction(exponent)
    with localcontext() as context:
        context.prec = 300
        exact = (-Decimal(value.numerator) / Decimal(value.denominator)).exp() * 2**bits
        assert abs(exact - _exp_negative(value, bits)) < 2


@pytest.mark.parametrize("mirror", [0, 1])
@pytest.mark.parametrize("bits", [64, 128])
@pytest.mark.parametrize("stddev", [2.0**-6, 0.1, 0.5, 1.0, 3.7, 60.0])
def test_cuts_are_the_floors_of_the_distribution_function(stddev: float, bits: int, mirror: int) -> None:
    cuts = _gaussian_cuts(1 / (2 * Fraction(stddev) ** 2), bits, mirror)
    with localcontext() as context:
        context.prec = 120 if stddev >= 0.1 else 1000
        two = 2 * Decimal(stddev) ** 2
        weights = [(-Decimal(k * k) / two).exp() for k in range(20 + 20 * math.ceil(stddev))]
        if mirror == 0:
            weights[0] /= 2
        partial, total, expected = Decimal(0), 2 * sum(weights), []
        for weight in weights:
            partial += weight
            expected.append(int(partial / total * 2**bits))
    assert cuts == expected[: len(cuts)]
    assert cuts[-1] == 2 ** (bits - 1) - 1
    assert cuts[-2:-1] != cuts[-1:], "the table ends at the first cut of the tail"


def test_cuts_in_doubt_are_made_again_with_more_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 4 guard bits instead of 32 half the floors are in doubt at first: the cuts come out the same."""
    rate = 1 / (2 * Fraction(20) ** 2)
    expected = _gaussian_cuts(rate, 64, 0)
    monkeypatch.setattr(discrete_gaussian, "_GUARD_BITS", 4)
    assert _gaussian_cuts(rate, 64, 0) == expected


def test_probabilities_add_up_and_give_the_variance() -> None:
    for stddev in (0.3, 0.5, 1.0, 3.9, 4.1, 50.0):
        noise = DiscreteGaussian(stddev=stddev)
        grid = np.arange(-1500, 1501)
        pmf = np.exp(noise.log_pmf(grid))
        assert pmf.sum() == pytest.approx(1, abs=1e-12)
        assert (pmf * grid**2).sum() == pytest.approx(noise.variance, rel=1e-12)
    assert DiscreteGaussian(stddev=0.5).variance == pytest.approx(0.25 * 0.93**2, rel=0.01)


def test_shape_stream_and_fresh_noise() -> None:
    noise = DiscreteGaussian(stddev=700.0)
    assert noise.sample((3, 4)).shape == (3, 4)
    assert noise.sample(()).shape == ()
    assert noise.sample(0).shape == (0,)
    assert noise.sample(5).dtype == np.int64
    assert noise.sample(50).tolist() != noise.sample(50).tolist()
    once, again = (noise.sample(99, Keystream.seeded(KEY)).tolist() for _ in range(2))
    assert once == again


@pytest.mark.parametrize("stddev", [3.0, 700.0, 10_000.0])
@pytest.mark.parametrize("count", [0, 1, 40_000, 300_000])
def test_noise_added_in_place_is_the_noise_that_is_drawn(stddev: float, count: int) -> None:
    noise = DiscreteGaussian(stddev=stddev)
    vector = np.arange(count, dtype=np.int64)
    noise.add_to(vector, Keystream.seeded(KEY))
    np.testing.assert_array_equal(vector, np.arange(count) + noise.sample(count, Keystream.seeded(KEY)))


def test_stream_is_pinned() -> None:
    """One key, one noise vector, on every machine and in every version: replays depend on it."""
    drawn = [
        DiscreteGaussian(stddev=s).sample(6, Keystream.seeded(KEY)).tolist() for s in (1.0, 700.0, 10_000.0)
    ]
    assert drawn == PINNED


PINNED = [
    [-1, 0, 1, -3, -1, 0],
    [-562, -337, 967, -2036, -637, -183],
    [-8034, -4824, 13822, -29083, -9104, -2616],
]


def test_equal_samplers_share_one_table() -> None:
    assert _sampler(701.0) is _sampler(701.0)


@pytest.mark.parametrize("stddev", [0.0, -1.0, math.nan, math.inf, 1e-3, 1e10])
def test_parameter_out_of_range_is_refused(stddev: float) -> None:
    with pytest.raises(ParameterError, match="stddev is"):
        DiscreteGaussian(stddev=stddev)
