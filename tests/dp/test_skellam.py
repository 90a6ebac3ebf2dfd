"""The Skellam distribution against its series in exact arithmetic, and its draws by chi-square tests."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from dp import ParameterError, skellam
from dp.keystream import Keystream
from dp.skellam import Skellam, _enclosed_ratios, _enclosed_sums, _skellam_cuts
from tests.dp.goodness import chi_square_p

KEY = bytes(range(32))
ALPHA = 1e-6
DRAWS = 200_000


def p_value(values: np.ndarray, variance: float) -> float:
    return chi_square_p(values, Skellam(variance=variance).log_pmf, 14 * math.ceil(math.sqrt(variance)) + 14)


@pytest.mark.parametrize("stddev", [0.5, 1.0, 3.7, 50.0, 700.0, 2000.0, 10_000.0])
def test_draws_have_the_stated_distribution_and_no_other(stddev: float) -> None:
    """Chi-square, n = 200,000, alpha = 1e-6; the same draws reject 2/3 and 3/2 of the deviation."""
    values = Skellam(variance=stddev**2).sample(DRAWS, Keystream.seeded(KEY))
    assert p_value(values, stddev**2) > ALPHA
    assert p_value(values, (stddev * 2 / 3) ** 2) < ALPHA
    assert p_value(values, (stddev * 3 / 2) ** 2) < ALPHA


def test_draws_are_not_gaussian_where_the_two_differ() -> None:
    """Same variance 0.215, but Pr[0] is 0.816 where the discrete Gaussian has 0.786; n = 200,000, alpha = 1e-6."""
    from dp.discrete_gaussian import DiscreteGaussian

    values = DiscreteGaussian(stddev=0.5).sample(DRAWS, Keystream.seeded(KEY))
    assert p_value(values, DiscreteGaussian(stddev=0.5).variance) < ALPHA


@pytest.mark.parametrize("bits", [64, 128])
@pytest.mark.parametrize("variance", [2.0**-10, 0.25, 1.0, 7.3, 60.0])
def test_cuts_are_the_floors_of_the_distribution_function(variance: float, bits: int) -> None:
    """Bessel's series at 150 digits, normalised by exp(-mu) where the code normalises by the sum."""
    cuts = _skellam_cuts(Fraction(variance), bits)
    with localcontext() as context:
        context.prec = 150
        half = Decimal(variance) / 2
        partial, expected = Decimal(0), []
        for k in range(len(cuts)):
            term = (-2 * half).exp() * half**k / math.factorial(k)
            weight, m = Decimal(0), 0
            while term > Decimal(10) ** -140:
                weight += term
                m += 1
                term *= half * half / (m * (m + k))
            partial += weight / 2 if k == 0 else weight
            expected.append(int(partial * 2**bits))
    assert cuts == expected
    assert cuts[-1] == 2 ** (bits - 1) - 1


def test_ratios_are_enclosed() -> None:
    below, above = _enclosed_ratios(Fraction(9), 200, 20, 90)
    assert all(low <= high for low, high in zip(below, above, strict=True))
    assert max(high - low for low, high in zip(below, above, strict=True)) < 1000
    k = np.arange(1, 21)
    logs = Skellam(variance=9.0).log_pmf(np.arange(21))
    np.testing.assert_allclose([low / 2**200 for low in below], np.exp(np.diff(logs)), rtol=1e-9)
    assert len(below) == len(k)


def test_tail_that_is_too_coarse_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without guard bits the sums end too early: the cuts come out the same."""
    expected = _skellam_cuts(Fraction(60), 64)
    monkeypatch.setattr(skellam, "_GUARD_BITS", 0)
    assert _skellam_cuts(Fraction(60), 64) == expected


def test_enclosure_that_is_too_wide_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower bounds that are 2^-65 too low at the first attempt put half the floors in doubt."""
    expected = _skellam_cuts(Fraction(60), 64)
    attempts = []

    def widened(variance: Fraction, bits: int) -> tuple[list[int], list[int]]:
        least, most = _enclosed_sums(variance, bits)
        attempts.append(bits)
        return (least, most) if len(attempts) > 1 else ([low - (low >> 65) for low in least], most)

    monkeypatch.setattr(skellam, "_enclosed_sums", widened)
    assert _skellam_cuts(Fraction(60), 64) == expected
    assert len(attempts) == 2


def test_shares_add_up_to_the_whole() -> None:
    """Ten shares of variance 2.5 are Skellam of variance 25: n = 200,000, alpha = 1e-6."""
    stream = Keystream.seeded(KEY)
    values = Skellam(variance=2.5).sample((10, DRAWS), stream).sum(axis=0)
    assert p_value(values, 25.0) > ALPHA
    assert p_value(values, 25.0 * 4 / 9) < ALPHA


def test_probabilities_add_up_and_give_the_variance() -> None:
    for variance in (0.25, 1.0, 100.0, 4e6):
        reach = 14 * math.ceil(math.sqrt(variance)) + 30
        grid = np.arange(-reach, reach + 1)
        pmf = np.exp(Skellam(variance=variance).log_pmf(grid))
        assert pmf.sum() == pytest.approx(1, abs=1e-12)
        assert (pmf * grid**2).sum() == pytest.approx(variance, rel=1e-11)


def test_far_tail_joins_on() -> None:
    """Where probabilities leave the floats' range the asymptotic series takes over without a step."""
    for variance in (1.0, 100.0, 1e6):
        logs = Skellam(variance=variance).log_pmf(np.arange(100, 45 * math.ceil(math.sqrt(variance)) + 400))
        assert logs[-1] < -700
        assert np.all(np.diff(logs) < 0)
        assert np.all(np.diff(logs, 2) < 1e-6)


def test_shape_and_pinned_stream() -> None:
    assert Skellam(variance=4.0).sample((3, 4)).shape == (3, 4)
    assert Skellam(variance=4.0).sample(0).dtype == np.int64
    vector = np.arange(20_000)
    Skellam(variance=4.0).add_to(vector, Keystream.seeded(KEY))
    drawn = Skellam(variance=4.0).sample(20_000, Keystream.seeded(KEY))
    np.testing.assert_array_equal(vector, np.arange(20_000) + drawn)
    drawn = [Skellam(variance=v).sample(5, Keystream.seeded(KEY)).tolist() for v in (1.0, 490_000.0, 1e8)]
    assert drawn == [[-1, 0, 1, -3, -1], [-562, -337, 967, -2036, -637], [-713, -3871, -4004, -14504, 1501]]


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, math.inf, 1e-4, 1e12])
def test_parameter_out_of_range_is_refused(variance: float) -> None:
    with pytest.raises(ParameterError, match="variance is"):
        Skellam(variance=variance)
