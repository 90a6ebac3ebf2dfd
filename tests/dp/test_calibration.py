"""Calibration: never too little noise, never much too much."""

import math

import pytest

from dp.accounting import epsilon_of
from dp.calibration import calibrate
from dp.cohorts import PaddedPoisson
from dp.errors import ParameterError
from dp.mechanisms import DistributedDiscreteGaussian
from dp.privacy import Privacy


def promise(delta=1e-5, **targets):
    return Privacy(delta=delta, l2_clip_norm=1.0, **targets)


def costs(noise_multiplier, privacy, sampler, rounds):
    mechanism = DistributedDiscreteGaussian(
        noise_multiplier=noise_multiplier,
        sensitivity=1e6,
        dimension=10**6,
        honest_survivors=sampler.cohort_size,
    )
    return epsilon_of(mechanism, sampler, rounds, privacy.delta, privacy.max_participations)


@pytest.mark.parametrize(
    ("population", "expected", "rounds", "delta", "targets"),
    [
        (3000, 300, 50, 1e-5, {"readers_epsilon": 2.53}),
        (3000, 300, 50, 1e-5, {"server_epsilon": 10.7, "max_participations": 10}),
        (3000, 300, 50, 1e-5, {"server_epsilon": 10.7}),
        (1000, 100, 20, 1e-6, {"readers_epsilon": 0.5, "server_epsilon": 20.0}),
        (1000, 100, 20, 1e-6, {"readers_epsilon": 8.0, "server_epsilon": 8.0}),
        (10**6, 1000, 1000, 1e-6, {"readers_epsilon": 2.0}),
        (10, 10, 3, 1e-3, {"readers_epsilon": 1.0}),
        (3000, 300, 5, 1e-5, {"readers_epsilon": 40.0}),
        (3000, 300, 5, 1e-5, {"readers_epsilon": 0.01}),
    ],
)
def test_the_answer_keeps_the_promise_and_no_smaller_one_does(population, expected, rounds, delta, targets):
    sampler, privacy = PaddedPoisson(population, expected), promise(delta, **targets)
    noise_multiplier = calibrate(privacy, sampler, rounds)
    budgets = {k: v for k, v in targets.items() if k != "max_participations"}

    def kept(noise):
        reached = costs(noise, privacy, sampler, rounds)
        return all(
            getattr(reached, name.removesuffix("_epsilon")) <= bound for name, bound in budgets.items()
        )

    assert kept(noise_multiplier)
    assert not kept(noise_multiplier * (1 - 5e-4))


def test_a_given_noise_multiplier_is_a_floor():
    sampler = PaddedPoisson(3000, 300)
    assert calibrate(promise(noise_multiplier=1.5), sampler, 50) == 1.5
    assert calibrate(promise(noise_multiplier=9.0, readers_epsilon=2.5), sampler, 50) == 9.0
    assert calibrate(promise(noise_multiplier=0.1, readers_epsilon=2.53), sampler, 50) == pytest.approx(
        1.5, rel=1e-3
    )


def test_a_promise_nothing_can_keep_is_refused():
    with pytest.raises(ParameterError, match=r"No noise multiplier up to 1e\+06 .* raise epsilon or delta"):
        calibrate(promise(delta=1e-12, readers_epsilon=1e-7), PaddedPoisson(10, 10), 10**6)


def test_a_promise_that_needs_no_noise_gets_the_least_there_is():
    assert 0 < calibrate(promise(readers_epsilon=1e7), PaddedPoisson(10, 10), 1) < 0.06


@pytest.mark.parametrize("rounds", [0, -1, 2.5, math.nan])
def test_rounds_are_whole(rounds):
    with pytest.raises(ParameterError, match="rounds"):
        calibrate(promise(readers_epsilon=1.0), PaddedPoisson(10, 10), rounds)
