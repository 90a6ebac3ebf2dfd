"""The unsampled Gaussian against its own integral, and its three functions against each other."""

import math

import mpmath
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from dp.errors import ParameterError
from dp.gaussian import gaussian_delta, gaussian_epsilon, gaussian_shift

shifts = st.floats(1e-3, 30)
deltas = st.floats(1e-15, 0.5)


def exact_delta(shift, epsilon):
    """To sixty digits, whatever cancels."""
    with mpmath.workdps(60):
        mu, e = mpmath.mpf(shift), mpmath.mpf(epsilon)
        return mpmath.ncdf(mu / 2 - e / mu) - mpmath.exp(e) * mpmath.ncdf(-mu / 2 - e / mu)


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


@given(st.floats(-8, 3), st.floats(-250, -0.4))
@example(-8.0, -9.0)
@example(-6.0, -12.0)
@example(-5.0, -9.0)
@settings(max_examples=150, deadline=None)
def test_epsilon_is_never_below_the_truth_at_any_shift_and_delta(log_shift, log_delta):
    shift, delta = 10**log_shift, 10**log_delta
    epsilon = gaussian_epsilon(shift=shift, delta=delta)
    assert exact_delta(shift, epsilon) <= delta
    if epsilon > 0:
        assert exact_delta(shift, epsilon * (1 - 1e-7)) > delta


@given(st.floats(-8, 3), st.floats(-6, 2))
@settings(max_examples=150, deadline=None)
def test_delta_is_never_below_the_truth(log_shift, log_epsilon):
    shift, epsilon = 10**log_shift, 10**log_epsilon
    delta, exact = gaussian_delta(shift=shift, epsilon=epsilon), exact_delta(shift, epsilon)
    if exact > 1e-300:
        assert exact <= delta <= min(1.0, exact * (1 + 1e-8))


@given(st.floats(-3, 2), st.floats(-250, -0.4))
@settings(max_examples=100, deadline=None)
def test_shift_is_never_above_the_truth(log_epsilon, log_delta):
    epsilon, delta = 10**log_epsilon, 10**log_delta
    shift = gaussian_shift(epsilon=epsilon, delta=delta)
    assert exact_delta(shift, epsilon) <= delta < exact_delta(shift * (1 + 1e-6), epsilon)


def test_the_ends_of_the_range():
    assert gaussian_epsilon(shift=0.0, delta=1e-5) == 0
    assert gaussian_epsilon(shift=math.inf, delta=1e-5) == math.inf
    assert gaussian_epsilon(shift=1e-9, delta=1e-5) == 0
    assert gaussian_epsilon(shift=5e-324, delta=1e-300) == 0
    assert gaussian_delta(shift=0.0, epsilon=0.0) == 0
    assert gaussian_delta(shift=1e-300, epsilon=1e10) == 0
    assert gaussian_delta(shift=1e6, epsilon=0.0) == 1


@pytest.mark.parametrize("shift", [-1.0, math.nan])
def test_no_shift_below_zero(shift):
    with pytest.raises(ParameterError, match="shift"):
        gaussian_epsilon(shift=shift, delta=1e-5)
