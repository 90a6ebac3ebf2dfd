"""Loss distributions: cells keep both probabilities, composition loses nothing, and the answer is never too small."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import fft, integrate, stats

from dp.gaussian import gaussian_epsilon
from dp.pld import _Cells, _fixed_size_losses, _poisson_losses, _power, fixed_size_epsilon, poisson_epsilon
from tests.dp import exact

noises = st.floats(0.3, 30)
rates = st.one_of(st.floats(1e-5, 0.2), st.floats(0.2, 0.999))


def continuous_delta(noise_multiplier, rate, epsilon):
    """Hockey-stick divergence of one Poisson-sampled release by quadrature, both directions."""
    shift = 1 / noise_multiplier

    def present(x):
        return rate * stats.norm.pdf(x - shift) + (1 - rate) * stats.norm.pdf(x)

    deltas = []
    for first, second in ((present, stats.norm.pdf), (stats.norm.pdf, present)):
        grid = np.linspace(-12, 12 + shift, 200_001)
        deltas.append(
            integrate.trapezoid(np.maximum(first(grid) - math.exp(epsilon) * second(grid), 0), grid)
        )
    return max(deltas)


@given(noises, rates)
@settings(max_examples=50, deadline=None)
def test_cells_and_their_ends_keep_both_probabilities(noise_multiplier, rate):
    cells = _Cells.of(noise_multiplier, rate)
    assert cells.present.sum() + cells.present_beyond == pytest.approx(1, rel=1e-12)
    assert cells.absent.sum() + cells.absent_beyond == pytest.approx(1, rel=1e-12)
    for losses, other in zip(
        _poisson_losses(noise_multiplier, rate), (cells.absent, cells.present), strict=True
    ):
        assert losses.masses.min() >= 0
        assert losses.masses.sum() + losses.infinite == pytest.approx(1, rel=1e-12)
        # e^-loss turns the probability under one side into that under the other, up to what is rounded upwards.
        assert (losses.masses * np.exp(-losses.losses)).sum() == pytest.approx(other.sum(), rel=1e-6)


@pytest.mark.parametrize("noise_multiplier", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("rate", [0.001, 0.1, 0.7])
@pytest.mark.parametrize("delta", [1e-2, 1e-4, 1e-6])
def test_one_release_against_quadrature(noise_multiplier, rate, delta):
    epsilon = poisson_epsilon(noise_multiplier, rate, 1, delta)
    assert continuous_delta(noise_multiplier, rate, epsilon) <= delta * (1 + 1e-6)
    if epsilon > 0.01:
        assert continuous_delta(noise_multiplier, rate, epsilon * 0.995) > delta


@given(noises, rates, st.integers(1, 3000), st.sampled_from([1e-3, 1e-6, 1e-9, 1e-12]))
@example(
    4.0, 0.1953125, 21, 1e-9
)  # In double precision the whole transform is 1.6e-15 too large here, the window is not.
@settings(max_examples=25, deadline=None)
def test_the_windowed_power_agrees_with_the_whole_one(noise_multiplier, rate, count, delta):
    """The same grid composed without tilt or window in extended precision, where that is affordable."""
    losses = _poisson_losses(noise_multiplier, rate)[0]
    if len(losses.masses) * count > 2e5:
        return
    size = 1 << (len(losses.masses) * count - 1).bit_length()
    whole = fft.irfft(fft.rfft(losses.masses.astype(np.longdouble), size) ** count, size)
    grid = losses.grid * (count * losses.lowest + np.arange(size))

    def reached(epsilon):
        return float((whole * np.where(grid > epsilon, -np.expm1(np.minimum(epsilon - grid, 0)), 0)).sum())

    epsilon = losses.epsilon(count, delta)
    assert reached(epsilon) <= delta * (1 + 1e-9) + 1e-15  # the whole transform rounds, too
    if epsilon > 1e-6:
        assert reached(epsilon * (1 - 1e-4) - 1e-7) > delta


def test_what_wraps_round_only_adds():
    masses = np.array([0.25, 0.5, 0.0, 0.25])
    plain = np.convolve(np.convolve(masses, masses), masses)
    wrapped = _power(masses, 3, np.arange(2, 7))
    assert np.all(wrapped >= plain[2:7] - 1e-15)
    assert np.allclose(_power(masses, 3, np.arange(10)), plain, atol=1e-15)


def fixed_size_pair(stddev, others, mine, size):
    """Exact release of a sample of fixed size, with and without one client's data, by every sample."""
    reach, population = 60, len(others) + 1
    first, second = np.zeros(2 * reach + 1), np.zeros(2 * reach + 1)
    samples = list(itertools.combinations(range(population), size))
    for sample in samples:
        rest = sum(others[i - 1] for i in sample if i)
        first += exact.discrete_gaussian(stddev, reach=reach, shift=rest + (mine if 0 in sample else 0))
        second += exact.discrete_gaussian(stddev, reach=reach, shift=rest)
    return first / len(samples), second / len(samples)


@given(
    st.floats(2.5, 6.0),
    st.lists(st.integers(-4, 4), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from([1e-1, 1e-2, 1e-4]),
)
@settings(max_examples=60, deadline=None)
def test_fixed_size_samples_never_cost_less_than_the_truth(stddev, others, size, rounds, delta):
    """Zero-out adjacency, other clients' data anywhere within the bound of 4, one or two rounds."""
    size = min(size, len(others))
    first, second = fixed_size_pair(stddev, others, 4, size)
    claimed = fixed_size_epsilon(math.sqrt(stddev**2 - 4) / 4, size / (len(others) + 1), rounds, delta)
    first, second = exact.product(*[first] * rounds), exact.product(*[second] * rounds)
    assert exact.delta(first, second, claimed) <= delta * (1 + 1e-9)


def test_the_poisson_formula_would_be_wrong_for_samples_of_fixed_size():
    """Two clients of opposite data, one drawn: the Poisson epsilon is exceeded, the fixed-size one is not."""
    first, second = fixed_size_pair(6.0, [-4], 4, 1)
    noise = math.sqrt(6.0**2 - 4) / 4
    assert exact.delta(first, second, poisson_epsilon(noise, 0.5, 1, 1e-3)) > 1e-3
    assert exact.delta(first, second, fixed_size_epsilon(noise, 0.5, 1, 1e-3)) <= 1e-3


def test_a_fixed_size_distribution_bounds_both_directions():
    for noise_multiplier, rate in [(1.0, 0.1), (3.0, 0.5), (0.7, 0.01)]:
        present, absent = _poisson_losses(noise_multiplier, rate)
        both = _fixed_size_losses(noise_multiplier, rate)
        assert both.masses.sum() + both.infinite == pytest.approx(1, rel=1e-9)
        for delta in (1e-2, 1e-4, 1e-6):
            assert both.epsilon(5, delta) >= max(present.epsilon(5, delta), absent.epsilon(5, delta)) * (
                1 - 1e-9
            )


@pytest.mark.parametrize("epsilon_of", [poisson_epsilon, fixed_size_epsilon])
def test_the_ends_of_the_range(epsilon_of):
    assert epsilon_of(0.01, 0.1, 3, 1e-5) == gaussian_epsilon(shift=100 * math.sqrt(3), delta=1e-5)
    assert epsilon_of(1000.0, 0.1, 1, 1e-2) == 0
    assert 10 < epsilon_of(1.0, 0.1, 2, 1e-40) <= gaussian_epsilon(shift=math.sqrt(2), delta=1e-40)
    assert epsilon_of(1.0, 1e-6, 1, 1e-5) == 0


@pytest.mark.parametrize("count", [1, 30, 1000, 10_000, 100_000])
@pytest.mark.parametrize("delta", [0.05, 1e-5, 1e-10, 1e-15])
def test_transforms_lose_nothing_at_many_rounds_and_small_deltas(count, delta):
    """A plain transform understates delta by a percent at 1e-10; at a rate of almost 1 the closed form is the truth."""
    truth = gaussian_epsilon(shift=1.2, delta=delta)
    for losses in _poisson_losses(math.sqrt(count) / 1.2, 1 - 1e-12):
        assert truth <= losses.epsilon(count, delta) <= truth * 1.001


@pytest.mark.parametrize("noise_multiplier", [0.05, 0.3, 1.0, 1e4])
@pytest.mark.parametrize("rate", [1e-9, 0.01, 0.999])
@pytest.mark.parametrize("count", [1, 1000, 10**6])
@pytest.mark.parametrize("delta", [0.3, 1e-6, 1e-15])
def test_no_setting_leaves_the_range_of_floats(noise_multiplier, rate, count, delta):
    unsampled = gaussian_epsilon(shift=math.sqrt(count) / noise_multiplier, delta=delta)
    for epsilon_of in (poisson_epsilon, fixed_size_epsilon):
        assert 0 <= epsilon_of(noise_multiplier, rate, count, delta) <= unsampled


def test_windows_too_wide_to_compute_fall_back_on_renyi_and_stay_above():
    losses = _poisson_losses(0.5, 0.5)[0]
    exact_one, bound = losses.epsilon(300, 1e-6), losses._renyi(300, 0.3, 1e-6)
    assert exact_one <= bound <= 1.5 * exact_one


def test_the_larger_direction_is_taken_whichever_it_is(monkeypatch):
    expected = poisson_epsilon(1.0, 0.3, 5, 1e-4)
    present, absent = _poisson_losses(1.0, 0.3)
    assert absent.epsilon(5, 1e-4) < expected
    monkeypatch.setattr("dp.pld._poisson_losses", lambda *_: (absent, present))
    assert poisson_epsilon(1.0, 0.3, 5, 1e-4) == expected


def test_mass_beyond_the_cut_is_infinite_loss_one_way_and_the_least_loss_the_other():
    """Cells cut far too early, where what lies beyond can be seen."""
    cells = _Cells(1.0, -1, np.array([0.2, 0.4]), np.array([0.3, 0.6]), 0.4, 0.1)
    present, absent = cells.present_against_absent(), cells.absent_against_present()
    assert present.masses.sum() == pytest.approx(0.6)
    assert present.infinite == 0.4
    assert absent.masses.sum() == pytest.approx(1.0)
    assert absent.masses[0] >= 0.1
    assert present.epsilon(1, 0.39) == math.inf
    assert present.epsilon(2, 0.63) == math.inf
    assert present.epsilon(2, 0.65) < math.inf
