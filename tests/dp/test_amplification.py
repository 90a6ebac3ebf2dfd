"""Amplification by sampling in Renyi DP: against closed forms and exact mixtures of symmetric noise."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate

from dp.amplification import poisson_renyi
from dp.events import DiscreteGaussianShares
from tests.dp import exact


def gaussian(noise_multiplier):
    return lambda order: order / (2 * noise_multiplier**2)


@pytest.mark.parametrize("order", [2, 3, 5, 17])
@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_the_gaussian_bound_is_exact(order, rate):
    """For the Gaussian the sum is the divergence itself: compare quadrature of the mixture against the noise."""
    x = np.linspace(-15, 35, 400_001)
    absent = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    ratio = 1 - rate + rate * np.exp(x - 0.5)
    truth = math.log(integrate.trapezoid(absent * ratio**order, x)) / (order - 1)
    assert poisson_renyi(gaussian(1.0), rate, order) == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("order", [2, 3, 6, 12])
@pytest.mark.parametrize("rate", [0.02, 0.25, 0.8])
def test_both_directions_of_exact_mixtures_stay_below(order, rate):
    """Two coordinates, shares narrow enough for their lattice to show."""
    for stddev, shift in itertools.product((0.7, 1.5), ((1, 0), (1, 1), (2, -1))):
        present = exact.product(*(exact.discrete_gaussian(stddev, reach=25, shift=s) for s in shift))
        absent = exact.product(*(exact.discrete_gaussian(stddev, reach=25) for _ in shift))
        mixture = rate * present + (1 - rate) * absent
        l2, l1 = math.hypot(*shift), float(np.abs(shift).sum())
        bound = poisson_renyi(DiscreteGaussianShares(stddev, 1, l2, l1, 2).renyi, rate, order)
        assert exact.renyi(mixture, absent, order) <= bound * (1 + 1e-9)
        assert exact.renyi(absent, mixture, order) <= bound * (1 + 1e-9)


def test_the_ends_of_the_range():
    assert poisson_renyi(gaussian(1.0), 1.0, 7) == 3.5
    assert poisson_renyi(gaussian(1e6), 0.1, 2) >= 0
    assert poisson_renyi(gaussian(0.1), 0.5, 200) < gaussian(0.1)(200)
