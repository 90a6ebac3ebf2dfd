"""Renyi curves into epsilons: known answers, and never better than the Gaussian's closed form."""

import math

import pytest

from dp.amplification import poisson_renyi
from dp.errors import ParameterError, UnsupportedEvent
from dp.gaussian import gaussian_epsilon
from dp.renyi import ORDERS, renyi_curve, renyi_epsilon


def gaussian(noise_multiplier, rate=1.0):
    return renyi_curve(lambda order: poisson_renyi(lambda a: a / (2 * noise_multiplier**2), rate, order))


@pytest.mark.parametrize(
    ("noise_multiplier", "rate", "count", "delta", "epsilon"),
    [(1.5, 0.1, 50, 1e-5, 2.872), (1.0, 100 / 342477, 1500, 1e-6, 0.679)],
)
def test_known_answers_on_integer_orders(noise_multiplier, rate, count, delta, epsilon):
    assert renyi_epsilon(count * gaussian(noise_multiplier, rate), delta=delta) == pytest.approx(
        epsilon, abs=2.5e-3
    )


def test_concentrated_dp_of_a_production_model():
    """0.81-zCDP at delta 1e-10 is epsilon 8.92 by the tight conversion (a language model for Spanish, 2022)."""
    zcdp = renyi_curve(lambda order: 0.81 * order)
    assert renyi_epsilon(zcdp, delta=1e-10) == pytest.approx(8.92, abs=0.02)


@pytest.mark.parametrize("noise_multiplier", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-10])
def test_never_better_than_the_truth_and_not_much_worse(noise_multiplier, delta):
    truth = gaussian_epsilon(shift=1 / noise_multiplier, delta=delta)
    assert truth <= renyi_epsilon(gaussian(noise_multiplier), delta=delta) <= 1.35 * truth + 0.02


def test_an_impossible_divergence_is_refused():
    for value in (-1e-9, math.nan):
        with pytest.raises(UnsupportedEvent, match="cannot be below 0"):
            renyi_curve(lambda order, value=value: value)


def test_delta_is_checked():
    with pytest.raises(ParameterError, match="delta"):
        renyi_epsilon(renyi_curve(lambda order: 1.0), delta=0)


def test_orders_are_whole_and_ascending():
    assert list(ORDERS) == sorted({int(order) for order in ORDERS})
    assert ORDERS[0] == 2
