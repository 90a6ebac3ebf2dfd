"""Empirical audits: known answers, validity under the null, power against a mechanism whose epsilon is known."""

import math

import numpy as np
import pytest

from dp.auditing import (
    membership_inference,
    most_true_alarms,
    one_run_bound,
    one_run_p_value,
    one_shot_estimate,
)
from dp.errors import ParameterError
from dp.gaussian import gaussian_epsilon


def test_the_p_value_crosses_the_level_at_the_published_answer():
    """m=1000, r=100, v=90, delta=1e-5 at 5%: 1.626."""
    case = {"canaries": 1000, "guesses": 100, "right": 90, "delta": 1e-5}
    assert one_run_p_value(**case, epsilon=1.625) < 0.05 < one_run_p_value(**case, epsilon=1.628)


def test_the_p_value_at_delta_zero_is_a_binomial_tail():
    expected = sum(math.comb(10, k) * 0.5**10 for k in range(8, 11))
    found = one_run_p_value(canaries=10, guesses=10, right=8, epsilon=0.0, delta=0.0)
    assert found == pytest.approx(expected)


def responses(rng, *, epsilon, canaries=2000):
    """Randomised response: every coin is reported truly with probability e^eps/(1+e^eps): exactly epsilon-DP."""
    included = rng.random(canaries) < 0.5
    truthful = rng.random(canaries) < 1 / (1 + math.exp(-epsilon))
    reported = included == truthful
    return reported + rng.random(canaries) * 1e-3, included


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
def test_the_bound_is_rarely_above_the_truth(epsilon):
    """200 runs at level 5%, five thresholds tried: at most 10 expected; 22 would be below alpha 1e-3."""
    rng = np.random.default_rng(4)
    bounds = [one_run_bound(*responses(rng, epsilon=epsilon), delta=1e-6).epsilon for _ in range(200)]
    assert sum(bound > epsilon for bound in bounds) < 22
    if epsilon:
        assert np.median(bounds) > 0.6 * epsilon


def test_the_estimate_is_near_the_truth_for_a_gaussian_sum():
    """20 runs, k=1000 canaries of dimension 10^4, z=1 (4.38 at 1e-5), cosines drawn from their law.

    A canary's cosine with a sum of k unit vectors and noise z is near N(1/norm, 1/d), norm^2 = d z^2 + k.
    """
    rng = np.random.default_rng(5)
    dimension, canaries = 10_000, 1000
    truth = gaussian_epsilon(shift=1.0, delta=1e-5)
    estimates = []
    for _ in range(20):
        directions = rng.normal(size=(canaries, dimension))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        released = directions.sum(axis=0) + rng.normal(size=dimension)
        cosines = directions @ released / np.linalg.norm(released)
        estimates.append(one_shot_estimate(cosines, dimension=dimension, delta=1e-5).epsilon)
    assert np.mean(estimates) == pytest.approx(truth, rel=0.15)


def test_canaries_that_left_no_trace_give_a_small_estimate():
    rng = np.random.default_rng(6)
    cosines = rng.normal(size=2000) / 100
    assert one_shot_estimate(cosines, dimension=10_000, delta=1e-5).epsilon < 0.5


def test_membership_scores_of_two_normals_have_the_area_of_theory():
    """Shift 1, 4,000 of each: area Phi(1/sqrt 2) = .760, found within four standard errors, .022; rate at 1% .092."""
    rng = np.random.default_rng(7)
    found = membership_inference(rng.normal(1, 1, 4000), rng.normal(0, 1, 4000))
    assert found.area == pytest.approx(0.760, abs=0.022)
    assert found.advantage == pytest.approx(0.383, abs=0.03)
    assert found.true_alarms == pytest.approx(0.092, abs=0.03)


def test_equal_scores_tell_nothing():
    found = membership_inference(np.ones(10), np.ones(20))
    assert (found.area, found.advantage, found.true_alarms) == (0.5, 0.0, 0.0)


def test_no_attack_on_randomised_response_finds_more_than_is_allowed():
    """Its curve is the bound itself: at e^1 : 1 every threshold stays below, and one reaches it."""
    truth = math.e / (1 + math.e)
    found = membership_inference(np.r_[np.ones(731), np.zeros(269)], np.r_[np.ones(269), np.zeros(731)],
                                 false_alarms=0.269)  # fmt: skip
    assert found.true_alarms == pytest.approx(most_true_alarms(0.269, epsilon=1.0, delta=0.0), abs=1e-3)
    assert found.true_alarms == pytest.approx(truth, abs=1e-3)
    assert most_true_alarms(0.01, epsilon=math.inf, delta=0.0) == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: membership_inference(np.zeros(0), np.zeros(3)),
        lambda: membership_inference(np.array([np.nan]), np.zeros(3)),
        lambda: membership_inference(np.zeros(2), np.zeros(3), false_alarms=0.0),
        lambda: one_run_p_value(canaries=5, guesses=6, right=1, epsilon=1.0, delta=0.0),
        lambda: one_run_p_value(canaries=5, guesses=5, right=6, epsilon=1.0, delta=0.0),
        lambda: one_run_bound(np.zeros(3), np.zeros(4, bool), delta=0.0),
        lambda: one_run_bound(np.array([np.nan]), np.zeros(1, bool), delta=0.0),
        lambda: one_shot_estimate(np.zeros(1), dimension=10, delta=1e-5),
        lambda: one_shot_estimate(np.zeros(9), dimension=0, delta=1e-5),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(ParameterError):
        call()
