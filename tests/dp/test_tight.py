"""The pointwise ratios that `docs/tight-epsilon.md` proves, measured where they are large enough to see."""

import math

import numpy as np
import pytest

from dp.errors import ParameterError
from dp.tight import shares_slack, smoothing_slack, tight_slack, worst_slack

LATTICE = np.arange(-30, 31)


def discrete_gaussian(variance):
    weights = np.exp(-(LATTICE**2) / (2 * variance))
    return weights / weights.sum()


def largest_log_ratio(first, second):
    inside = slice(20, 41)  # the ratios are periodic; farther out the cut of the lattice would show
    return np.max(np.abs(np.log(first[inside] / second[inside])))


@pytest.mark.parametrize("variance", [0.35, 0.5, 0.8])
@pytest.mark.parametrize("shares", [2, 3, 6])
def test_a_sum_of_shares_is_within_the_bound_of_one_discrete_gaussian(variance, shares):
    share = discrete_gaussian(variance)
    total = share
    for _ in range(shares - 1):
        total = np.convolve(total, share, mode="same")
    ratio = largest_log_ratio(total, discrete_gaussian(shares * variance))
    assert ratio <= shares_slack(variance, shares)
    if shares == 2:  # further shares correct one another, which the bound does not count
        assert ratio > shares_slack(variance, shares) / 3


def smoothed_gaussian(variance, smoothing):
    """K_s applied to N(0, variance - smoothing), by the trapezoidal rule."""
    stddev = math.sqrt(variance - smoothing)
    reals = np.linspace(-14, 14, 8001)
    density = np.exp(-(reals**2) / (2 * stddev**2))
    kernel = np.exp(-((LATTICE[:, None] - reals) ** 2) / (2 * smoothing))
    return kernel / kernel.sum(axis=0) @ (density / density.sum())


@pytest.mark.parametrize("smoothing", [0.25, 0.4, 0.6])
@pytest.mark.parametrize("variance", [0.65, 1.5, 4.0])
def test_smoothing_a_continuous_gaussian_gives_the_discrete_one_within_the_bound(variance, smoothing):
    ratio = largest_log_ratio(smoothed_gaussian(variance, smoothing), discrete_gaussian(variance))
    assert ratio <= smoothing_slack(smoothing)


def test_smoothing_leaves_a_trace_that_grows_as_the_bound_does():
    """The measured ratio is not an artefact: it is above a fiftieth of the bound, and falls with it."""
    for smoothing in (0.2, 0.25, 0.3):
        ratio = largest_log_ratio(
            smoothed_gaussian(2 * smoothing, smoothing), discrete_gaussian(2 * smoothing)
        )
        assert smoothing_slack(smoothing) / 50 < ratio


@pytest.mark.parametrize("decay", np.linspace(1e-6, 0.2, 50))
def test_five_exponentials_bound_the_exact_ratio(decay):
    exact = 2 * math.fsum(decay ** (j * j) for j in range(1, 60))
    variance = -math.log(decay) / (2 * math.pi**2)
    assert math.log((1 + exact) / (1 - exact)) <= smoothing_slack(variance * (1 + 1e-12))


def test_many_shares_cost_no_less_than_their_sum():
    """Beyond 200 shares the sum is bounded, not added up."""
    variance = 1.0
    exact = math.fsum(5 * math.exp(-2 * math.pi**2 * variance * k / (k + 1)) for k in range(1, 5000))
    assert exact <= shares_slack(variance, 5000) <= 1.05 * exact


def test_the_slack_at_real_scales_cannot_be_seen():
    assert 50 * tight_slack(local_stddev=3.0, shares=300, dimension=10**6) < 1e-11
    assert 50 * worst_slack(shares=300, dimension=10**6) < 1e-8
    assert tight_slack(local_stddev=5.0, shares=300, dimension=10) <= worst_slack(shares=300, dimension=10)


def test_narrow_shares_are_refused():
    with pytest.raises(ParameterError, match=r"local_stddev is 1\.99; .* at least 2"):
        tight_slack(local_stddev=1.99, shares=10, dimension=10)


def test_the_slack_adds_shares_smoothing_and_coordinates():
    one = 5 * (math.exp(-4 * math.pi**2) + math.exp(-16 * math.pi**2 / 3) + math.exp(-8 * math.pi**2))
    assert tight_slack(local_stddev=2.0, shares=3, dimension=7) == pytest.approx(7 * one, rel=1e-12, abs=0)
