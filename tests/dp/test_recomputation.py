"""The second code path agrees with the first on everything both cover, and shares no figure with it."""

import pytest

from dp.accounting import epsilon
from dp.events import (
    BandedGaussian,
    Composed,
    DiscreteGaussianShares,
    FixedSize,
    Gaussian,
    Poisson,
    Skellam,
)
from dp.filters import GaussianFilter, RenyiFilter
from dp.recomputation import independent_epsilon, independent_filter_epsilon

SKELLAM = Skellam(900.0, 30.0, 60.0)
SHARES = DiscreteGaussianShares(1.0, 100, 5.0, 10.0, 20)
NARROW = DiscreteGaussianShares(0.5, 10, 20.0, 100.0, 2000)
STEPS = [
    Gaussian(1.5, 1e-9),
    BandedGaussian(Gaussian(4.0), 3),
    Poisson(Gaussian(1.5), 0.1),
    Poisson(Gaussian(0.04), 0.1),
    FixedSize(Gaussian(1.5), 0.1),
    FixedSize(Gaussian(3.0), 0.01),
    FixedSize(Gaussian(0.7), 0.3),
    FixedSize(Gaussian(1.5), 1.0),
    SKELLAM,
    Poisson(SKELLAM, 0.1),
    SHARES,
    Poisson(SHARES, 0.01),
    NARROW,
    FixedSize(SKELLAM, 1.0),
]


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_both_paths_agree(step):
    cost = Composed(step, 30)
    own = epsilon(cost, delta=1e-6)
    assert independent_epsilon(cost, delta=1e-6, scale=own) == pytest.approx(own, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("rate", [0.01, 0.1, 1.0])
def test_both_paths_agree_over_many_rounds(rate):
    cost = Composed(Poisson(Gaussian(1.5), rate), 10_000)
    own = epsilon(cost, delta=1e-6)
    assert independent_epsilon(cost, delta=1e-6, scale=own) == pytest.approx(own, rel=2e-3, abs=1e-3)


def test_what_is_not_covered_is_none_and_what_was_not_charged_nothing():
    assert independent_epsilon(Composed(FixedSize(SKELLAM, 0.1), 3), delta=1e-6, scale=1.0) is None
    assert independent_epsilon(Composed(FixedSize(SKELLAM, 0.1), 0), delta=1e-6, scale=1.0) == 0
    sampled = [Composed(FixedSize(Gaussian(1.5), 0.1), 3)]
    assert independent_filter_epsilon(sampled, delta=1e-6, order=4) is None
    assert independent_filter_epsilon([Composed(SKELLAM, 3)], delta=1e-6, order=None) is None
    assert independent_filter_epsilon([], delta=1e-6, order=4) == 0


@pytest.mark.parametrize("order", [3, 8, 40])
def test_a_renyi_filter_is_recomputed(order):
    steps = [
        Gaussian(5.0),
        Poisson(Gaussian(1.5), 0.01),
        Poisson(SKELLAM, 0.01),
        Poisson(SHARES, 0.01),
        SHARES,
    ]
    budget = RenyiFilter(1000.0, 1e-6, order)
    for step in steps * 2:
        budget = budget.charge(step)
    found = independent_filter_epsilon([Composed(step, 2) for step in steps], delta=1e-6, order=order)
    assert found == pytest.approx(budget.reached, rel=1e-9)


def test_a_gaussian_filter_is_recomputed():
    budget = GaussianFilter(1000.0, 1e-6).charge(Gaussian(5.0)).charge(Poisson(Gaussian(2.0), 0.1))
    steps = [Composed(Gaussian(5.0), 1), Composed(Poisson(Gaussian(2.0), 0.1), 1)]
    assert independent_filter_epsilon(steps, delta=1e-6, order=None) == pytest.approx(
        budget.reached, rel=1e-9
    )
