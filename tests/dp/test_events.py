"""Events are values: what is out of range never becomes one."""

import math

import pytest

from dp.errors import ParameterError
from dp.events import Composed, Gaussian, Poisson, together


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
    assert together(3.0) == 3.0
    assert together(3.0, 4.0) == pytest.approx(2.4)
