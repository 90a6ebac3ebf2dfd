"""Mechanisms that trust the server: said in so many words, priced as infinite, and right about their noise."""

import math

import numpy as np
import pytest

from dp.accounting import epsilon, epsilon_of
from dp.central import CentralFloatGaussianNotFloatingPointSafe, CentralGaussian, CentralMatrix
from dp.cohorts import PaddedPoisson
from dp.errors import CohortMismatch, ParameterError
from dp.events import Composed, Gaussian
from dp.fixed_cohorts import FixedOrder
from dp.keystream import Keystream

GOOD = {"noise_multiplier": 1.5, "sensitivity": 1000.0, "dimension": 2000, "trusted_server": True}
KINDS = [CentralGaussian, CentralFloatGaussianNotFloatingPointSafe]


def matrix(**changes):
    return CentralMatrix(**{**GOOD, "bands": 4, **changes})


@pytest.mark.parametrize("kind", [*KINDS, matrix])
@pytest.mark.parametrize("trusted", [False, None, 1])
def test_trust_is_asked_for_in_so_many_words(kind, trusted):
    with pytest.raises(ParameterError, match="trusted_server=True"):
        kind(**{**GOOD, "trusted_server": trusted})


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_promised_against_a_server_that_is_trusted(kind):
    sampler = PaddedPoisson(3000, 300)
    costs = epsilon_of(kind(**GOOD), sampler, 50, 1e-5)
    assert costs.server == math.inf
    assert costs.readers == pytest.approx(2.530, abs=1e-3)
    assert epsilon_of(kind(**GOOD), sampler, 0, 1e-5).server == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_has_the_stated_deviation(kind):
    """Mean square of 2000 coordinates within five standard errors; 2/3 and 3/2 of the deviation are outside."""
    noise = kind(**GOOD).noise(Keystream.seeded(bytes(32))).astype(float)
    for factor, inside in [(1, True), (2 / 3, False), (3 / 2, False)]:
        ratio = (noise**2).mean() / (factor * 1500.0) ** 2
        assert (abs(ratio - 1) < 5 * math.sqrt(2 / 2000)) == inside


@pytest.mark.parametrize("name", ["noise_multiplier", "sensitivity", "dimension"])
@pytest.mark.parametrize("kind", [*KINDS, matrix])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_bad_parameters_are_named(kind, name, value):
    with pytest.raises(ParameterError, match=name):
        kind(**{**GOOD, name: value})


@pytest.mark.parametrize("bands", [1, 2, 10])
def test_what_is_recovered_from_correlated_noise_has_the_stated_deviation(bands):
    """Mean square of 20,000 coordinates within five standard errors, round by round."""
    mechanism = matrix(bands=bands, dimension=20_000)
    release, zeros = mechanism.start(), np.zeros(20_000, np.int64)
    stated = []
    for number in range(1, 15):
        estimate = release.next(zeros, Keystream.seeded(bytes([number]) * 32))
        stated.append(mechanism.stddev_of_release(number))
        assert abs((estimate**2).mean() / stated[-1] ** 2 - 1) < 5 * math.sqrt(2 / 20_000)
    assert stated == sorted(stated)
    assert stated[0] == pytest.approx(1500 * np.linalg.norm(mechanism.coefficients) / 2**16, rel=1e-5)


def test_the_factor_is_the_square_root_of_the_prefix_sum():
    c = matrix(bands=12).coefficients / 2**16
    square = np.convolve(c, c)[:12]
    assert np.allclose(square, 1, atol=1e-4)


def test_wide_noise_gets_a_coarser_factor_and_can_still_be_drawn():
    """The demo's own vector (7,850 weights) at ten bands: 2^16 would ask the sampler for more than it offers."""
    wide = matrix(noise_multiplier=7.0, sensitivity=9000.0, bands=10)
    assert wide.coefficient_scale < 2**16 == matrix(bands=10).coefficient_scale
    assert 2**29 < wide.stddev < 2**31
    c = wide.coefficients / wide.coefficient_scale
    square = np.convolve(c, c)[:10]
    assert np.allclose(square, 1, atol=1e-3)
    noise = wide.start().next(np.zeros(2000, np.int64), Keystream.seeded(bytes(32)))
    assert noise.std() == pytest.approx(7.0 * 9000.0 * math.sqrt((c**2).sum()), rel=0.1)


def test_prefix_sums_carry_the_noise_of_the_literature():
    """1024 rounds, 8 participations, 128 bands, joint multiplier 1: root mean square 10.3, fresh noise 64.0."""
    rounds, mechanism = 1024, matrix(bands=128)
    inverse = np.zeros(rounds)
    column = np.zeros(rounds)
    column[:128] = mechanism.coefficients / 2**16
    inverse[0] = 1
    for t in range(1, rounds):
        inverse[t] = -(column[1 : t + 1] @ inverse[t - 1 :: -1][:t])
    prefix = np.cumsum(inverse)
    norm = math.sqrt(8) * math.sqrt((column**2).sum())
    error = norm * math.sqrt(np.mean(np.cumsum(prefix**2)))
    fresh = math.sqrt(8) * math.sqrt(np.mean(np.arange(1, rounds + 1)))
    assert error == pytest.approx(10.3, abs=0.1)
    assert fresh == pytest.approx(64.0, abs=0.1)


def test_releases_are_the_sums_plus_the_correlated_noise_and_nothing_else():
    """The same stream with and without data: the difference of the releases is the data, to the last bit of floats."""
    mechanism = matrix(dimension=50)
    sums = np.random.default_rng(1).integers(-(10**6), 10**6, (9, 50))
    with_data, without = mechanism.start(), mechanism.start()
    for t, total in enumerate(sums):
        key = bytes([t + 1] * 32)
        one = with_data.next(total, Keystream.seeded(key))
        other = without.next(np.zeros(50, np.int64), Keystream.seeded(key))
        assert np.allclose(one - other, total, atol=1e-3)


def test_a_matrix_is_accounted_for_by_turns_and_only_in_a_fixed_order():
    mechanism = matrix(bands=10)
    order = FixedOrder(population=1000, expected=100)
    costs = epsilon_of(mechanism, order, 25, 1e-5)
    assert costs.server == math.inf
    assert costs.readers == pytest.approx(epsilon(Composed(Gaussian(1.5), 3), delta=1e-5), rel=1e-9)
    with pytest.raises(
        CohortMismatch, match="turns are 10 rounds apart, and the noise is correlated over 11"
    ):
        epsilon_of(matrix(bands=11), order, 25, 1e-5)
    with pytest.raises(CohortMismatch, match="random cohort"):
        epsilon_of(mechanism, PaddedPoisson(1000, 100), 25, 1e-5)


def test_a_sum_that_would_overflow_is_refused():
    state = matrix(dimension=2).start()
    with pytest.raises(ParameterError, match="overflow 64 bits"):
        state.next(np.array([0, 2**50]), Keystream())
    with pytest.raises(ParameterError, match="shape"):
        state.next(np.zeros(3, np.int64), Keystream())


def test_descriptions_say_what_they_are():
    assert "not floating-point safe" in CentralFloatGaussianNotFloatingPointSafe(**GOOD).describe()["kind"]
    assert matrix().describe()["bands"] == 4
    assert CentralGaussian(**GOOD).describe()["noise_multiplier"] == 1.5


def test_every_release_carries_fresh_noise_of_the_stated_deviation():
    """C applied to eight releases of nothing: 16,000 values, mean square within five standard errors, and no echo."""
    mechanism = matrix()
    state = mechanism.start()
    nothing = np.zeros(2000, np.int64)
    estimates = np.array([state.next(nothing, Keystream.seeded(bytes([t] * 32))) for t in range(8)])
    noise = np.zeros_like(estimates)
    for lag, coefficient in enumerate(mechanism.coefficients):
        noise[lag:] += coefficient * estimates[: len(estimates) - lag]
    for factor, inside in [(1, True), (2 / 3, False), (3 / 2, False)]:
        ratio = (noise**2).mean() / (factor * mechanism.stddev) ** 2
        assert (abs(ratio - 1) < 5 * math.sqrt(2 / noise.size)) == inside
    echo = (noise[1:] * noise[:-1]).mean() / mechanism.stddev**2
    assert abs(echo) < 5 / math.sqrt(noise[1:].size)
