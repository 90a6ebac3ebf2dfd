"""Events are values: what is out of range never becomes one."""

import itertools
import math

import numpy as np
import pytest
from scipy import special

from dp.accounting import epsilon
from dp.errors import CohortMismatch, ParameterError
from dp.events import (
    BandedGaussian,
    Composed,
    DiscreteGaussianShares,
    FixedSize,
    Gaussian,
    Poisson,
    together,
)
from dp.events import Skellam as SkellamNoise
from tests.dp import exact


@pytest.mark.parametrize("noise", [0, -1.0, math.nan, math.inf])
def test_a_gaussian_needs_noise(noise):
    with pytest.raises(ParameterError, match="noise_multiplier"):
        Gaussian(noise)


@pytest.mark.parametrize("slack", [-1e-9, math.nan, math.inf])
def test_slack_is_finite_and_not_negative(slack):
    with pytest.raises(ParameterError, match="slack"):
        Gaussian(1.0, slack)


@pytest.mark.parametrize("rate", [0, -0.1, 1.0001, math.nan])
def test_a_rate_is_a_probability_above_zero(rate):
    with pytest.raises(ParameterError, match="rate"):
        Poisson(Gaussian(1.0), rate)


def test_a_count_is_whole():
    with pytest.raises(ParameterError, match="count"):
        Composed(Gaussian(1.0), 1.5)


def test_equal_events_are_one_key():
    assert {Composed(Poisson(Gaussian(1.5), 0.1), 3): 1}[Composed(Poisson(Gaussian(1.5), 0.1), 3)] == 1


def test_releases_on_one_draw_fold_into_one():
    assert together(Gaussian(3.0)) == Gaussian(3.0)
    both = together(Gaussian(3.0, 0.25), Gaussian(4.0, 0.5))
    assert both.noise_multiplier == pytest.approx(2.4)
    assert both.slack == 0.75


def test_two_sampled_releases_on_one_draw_cost_more_than_on_two():
    """Two aggregations at z = 1.5 and q = 0.1 over 50 rounds: 4.60 together, where separate draws give 3.54."""
    one_draw = Composed(Poisson(together(Gaussian(1.5), Gaussian(1.5)), 0.1), 50)
    two_draws = Composed(Poisson(Gaussian(1.5), 0.1), 100)
    assert epsilon(one_draw, delta=1e-5) == pytest.approx(4.60, abs=0.005)
    assert epsilon(two_draws, delta=1e-5) == pytest.approx(3.54, abs=0.05)


@pytest.mark.parametrize("sampled", [Poisson, FixedSize])
def test_correlated_noise_is_never_amplified(sampled):
    with pytest.raises(CohortMismatch, match="fixed order"):
        sampled(BandedGaussian(Gaussian(1.0), 16), 0.1)


SHARES = {"local_stddev": 1.0, "shares": 9, "l2_sensitivity": 3.0, "l1_sensitivity": 5.0, "dimension": 4}


@pytest.mark.parametrize("name", list(SHARES))
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_every_figure_of_a_sum_of_shares_is_checked(name, value):
    with pytest.raises(ParameterError, match=name):
        DiscreteGaussianShares(**{**SHARES, name: value})


@pytest.mark.parametrize("order", [2, 3, 8])
def test_the_divergence_of_shares_is_never_below_the_truth(order):
    """Against the exact sums of two and four shares of sigma 0.6 to 1.2, in one dimension."""
    for stddev, shares, shift in itertools.product((0.6, 0.8, 1.2), (1, 2, 4), (1, 2)):
        present = exact.shifted_sum(stddev, shares, reach=60, shift=shift)
        absent = exact.shifted_sum(stddev, shares, reach=60, shift=0)
        event = DiscreteGaussianShares(stddev, shares, float(shift), float(shift), 1)
        assert exact.renyi(present, absent, order) <= event.renyi(order) * (1 + 1e-12)


@pytest.mark.parametrize("order", [2, 3, 8])
@pytest.mark.parametrize("variance", [1.0, 4.0, 30.0])
@pytest.mark.parametrize("shift", [1, 2, 4])
def test_the_divergence_of_skellam_is_never_below_the_truth(order, variance, shift):
    lattice = np.arange(-60, 61)
    absent = special.ive(np.abs(lattice), variance)
    present = special.ive(np.abs(lattice - shift), variance)
    claimed = SkellamNoise(variance, float(shift), float(shift)).renyi(order)
    assert exact.renyi(present, absent, order) <= claimed * (1 + 1e-9)
