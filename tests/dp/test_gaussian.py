"""The unsampled Gaussian against its own integral, and its three functions against each other."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from dp.errors import ParameterError
from dp.gaussian import gaussian_delta, gaussian_epsilon, gaussian_shift

shifts = st.floats(1e-3, 30)
deltas = st.floats(1e-15, 0.5)


@pytest.mark.parametrize(("shift", "epsilon"), [(0.3, 0.1), (1.0, 1.0), (1.0, 4.0), (3.0, 8.0)])
def test_delta_is_the_hockey_stick_divergence(shift, epsilon):
    def excess(x):
        return max(0.0, stats.norm.pdf(x - shift) - math.exp(epsilon) * stats.norm.pdf(x))

    edge = epsilon / shift + shift / 2
    exact, _ = integrate.quad(excess, edge, edge + 12, epsabs=0, epsrel=1e-10)
    assert gaussian_delta(shift=shift, epsilon=epsilon) == pytest.approx(exact, rel=1e-8)


@given(shifts, deltas)
@settings(max_examples=200, deadline=None)
def test_epsilon_is_the_least_that_holds(shift, delta):
    epsilon = gaussian_epsilon(shift=shift, delta=delta)
    assert gaussian_delta(shift=shift, epsilon=epsilon) <= delta * (1 + 1e-12)
    if epsilon > 1e-3:
        assert gaussian_delta(shift=shift, epsilon=epsilon * (1 - 1e-6)) > delta


@given(st.floats(1e-2, 100), deltas)
@settings(max_examples=200, deadline=None)
def test_shift_is_the_largest_that_holds(epsilon, delta):
    shift = gaussian_shift(epsilon=epsilon, delta=delta)
    assert gaussian_epsilon(shift=shift, delta=delta) <= epsilon * (1 + 1e-9)
    assert gaussian_epsilon(shift=shift * (1 + 1e-6), delta=delta) > epsilon


def test_the_ends_of_the_range():
    assert gaussian_epsilon(shift=0.0, delta=1e-5) == 0
    assert gaussian_epsilon(shift=math.inf, delta=1e-5) == math.inf
    assert gaussian_epsilon(shift=1e-9, delta=1e-5) == 0
    assert gaussian_delta(shift=0.0, epsilon=0.0) == 0


@pytest.mark.parametrize("shift", [-1.0, math.nan])
def test_no_shift_below_zero(shift):
    with pytest.raises(ParameterError, match="shift"):
        gaussian_epsilon(shift=shift, delta=1e-5)
