"""Each planted bug is flagged by the detector made for it; an honest run hardly ever is.

The quick tests take a few seeds. The drill takes 100 of each, at level 5%: an honest run may be flagged 11 times (more
than 11 of 100 have probability 0.4% at 5%), a planted bug must be flagged 95 times.
"""

from __future__ import annotations

import numpy as np
import pytest

import dp
import fedavg
from fedavg.auditing import (
    audit_transcript,
    clip_applied,
    cohort_fits,
    fresh_noise,
    masks_cancel,
    noise_in_full,
    read_transcript,
)
from fedavg.auditing.detectors import draw_rounds
from fedavg.errors import ParameterError
from tests.fedavg.auditing import pipelines

SAMPLER = (300, 30)
RUNS, MOST, LEAST = 100, 11, 95


def seeded(seed):
    return fedavg.RunEntropy.seeded(seed)


def cohorts(sampler, seed):
    drawn = draw_rounds(sampler(*SAMPLER), 100, entropy=seeded(seed))
    return cohort_fits(drawn, sampling_rate=0.1)


def transcript(folder, seed, change=None):
    """Two masked rounds of twenty clients; every detector of the transcript at 5%."""
    plan = pipelines.honest(
        cohort=20, length=300, secure=fedavg.SecureAggregation(dropout=0.2, corruption=0.1)
    )
    path = folder / f"{seed}"
    pipelines.record_round(path, plan, seed=seed, rounds=2)
    if change is not None:
        pipelines.rewrite(path, change(plan, seed))
    return audit_transcript(read_transcript(path), level=0.05)


def unmasked(plan, seed):
    (vector,) = plan.protocol(0, bytes(32)).vectors
    return pipelines.metric_unmasked(vector.padded_length, vector.modulus_bits, seed=seed)


HONEST = pipelines.honest()
NULL = {
    "noise": lambda seed: noise_in_full(HONEST, entropy=seeded(seed)).flagged,
    "clip": lambda seed: clip_applied(HONEST, entropy=seeded(seed)).flagged,
    "fresh noise": lambda seed: fresh_noise(HONEST, entropy=seeded(seed)).flagged,
    "cohort": lambda seed: cohorts(dp.PaddedPoisson, seed).flagged,
}
PLANTED = {
    "noise halved": lambda seed: noise_in_full(pipelines.noise_halved(HONEST), entropy=seeded(seed)).flagged,
    "clip not applied": lambda seed: (
        clip_applied(pipelines.clip_not_applied(HONEST), entropy=seeded(seed)).flagged
    ),
    "same noise twice": lambda seed: fresh_noise(HONEST, entropy=pipelines.SameNoise.seeded(seed)).flagged,
    "fixed size": lambda seed: cohorts(pipelines.FixedSize, seed).flagged,
    "turn by turn": lambda seed: cohorts(pipelines.TurnByTurn, seed).flagged,
}
CLEAR = {
    "metric beside": lambda plan, seed: pipelines.metric_beside,
    "metric without a mask": unmasked,
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_flagged(bug):
    assert all(PLANTED[bug](seed) for seed in range(3))


@pytest.mark.parametrize("detector", NULL)
def test_an_honest_run_is_hardly_flagged(detector):
    """Five seeds at 5%: three flags have probability 0.1%."""
    assert sum(NULL[detector](seed) for seed in range(5)) < 3


@pytest.mark.parametrize("bug", CLEAR)
def test_a_metric_in_the_clear_is_flagged(bug, tmp_path):
    assert not transcript(tmp_path, 1, CLEAR[bug]).clean


def test_an_honest_transcript_is_clean(tmp_path):
    assert transcript(tmp_path, 1).clean


@pytest.mark.drill
@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_flagged_in_95_of_100_runs(bug):
    assert sum(PLANTED[bug](seed) for seed in range(RUNS)) >= LEAST


@pytest.mark.drill
@pytest.mark.parametrize("detector", NULL)
def test_honest_runs_are_flagged_at_most_at_the_level(detector):
    assert sum(NULL[detector](seed) for seed in range(RUNS)) <= MOST


@pytest.mark.drill
@pytest.mark.parametrize("bug", CLEAR)
def test_metrics_in_the_clear_are_flagged_in_95_of_100_runs(bug, tmp_path):
    assert sum(not transcript(tmp_path, seed, CLEAR[bug]).clean for seed in range(RUNS)) >= LEAST


@pytest.mark.drill
def test_honest_transcripts_are_flagged_at_most_at_the_level(tmp_path):
    assert sum(not transcript(tmp_path, seed).clean for seed in range(RUNS)) <= MOST


@pytest.mark.parametrize("mechanism", ["skellam", "central_gaussian"])
def test_other_mechanisms_pass_through_the_same_detectors(mechanism):
    privacy = dp.Privacy(
        delta=1e-5, l2_clip_norm=1.0, noise_multiplier=1.5, mechanism=mechanism,
        trusted_server=mechanism == "central_gaussian",
    )  # fmt: skip
    plan = fedavg.aggregation.AggregationPlan.choose(
        (dp.Block("update", length=1000, l2_bound=1.0, weight=1.0),),
        cohort=40,
        privacy=privacy,
        noise_multiplier=1.5,
        secure=fedavg.SecureAggregation.ideal(),
    )
    for detector in (noise_in_full, clip_applied, fresh_noise):
        assert detector(plan, entropy=seeded(11)).p_value > 1e-4


@pytest.mark.parametrize(
    ("population", "rate", "rounds"), [(1000, 0.001, 200), (50, 0.02, 2), (10, 0.5, 200)]
)
def test_rare_clients_and_few_rounds_are_not_taken_for_a_fault(population, rate, rounds):
    """Where hardly anybody comes twice, one who does is no wonder: 400 honest cohorts, at most 3 flags at 0.1%."""
    dice = np.random.default_rng(5)
    drawn = (dice.random((rounds, population)) < rate for _ in range(400))
    found = [cohort_fits(one, sampling_rate=rate, level=0.001).flagged for one in drawn]
    assert sum(found) <= 3


def test_the_detectors_hold_under_real_masks():
    """One masked round each: what the ideal sum shows is what the protocol gives."""
    plan = pipelines.honest(cohort=12, length=400, secure=fedavg.SecureAggregation())
    assert noise_in_full(plan, entropy=seeded(5)).p_value > 1e-4
    assert noise_in_full(pipelines.noise_halved(plan), entropy=seeded(5)).flagged
    assert clip_applied(pipelines.clip_not_applied(plan), entropy=seeded(5)).flagged


def test_sums_that_are_others_under_masks_are_flagged():
    plan = pipelines.honest(cohort=9, length=50, secure=fedavg.SecureAggregation())
    assert not masks_cancel(plan, seed=1).flagged
    assert masks_cancel(pipelines.masked_otherwise(plan), seed=1).flagged


def test_canaries_are_those_looked_for_when_nothing_is_seeded():
    """With the operating system's randomness, too, what is sent is what is expected."""
    entropy = fedavg.RunEntropy()
    assert noise_in_full(HONEST, entropy=entropy).p_value > 1e-6
    assert fresh_noise(HONEST, entropy=entropy).p_value > 1e-6
    assert clip_applied(pipelines.clip_not_applied(HONEST), entropy=entropy).flagged


def test_a_sampler_that_prefers_some_is_flagged():
    rng = np.random.default_rng(3)
    rates = np.where(np.arange(300) < 60, 0.2, 0.075)
    assert cohort_fits(rng.random((100, 300)) < rates, sampling_rate=0.1).flagged


def test_the_same_cohort_in_every_round_is_flagged():
    drawn = np.random.default_rng(4).random((1, 300)) < 0.1
    assert cohort_fits(np.repeat(drawn, 50, axis=0), sampling_rate=0.1).flagged


@pytest.mark.parametrize(("rounds", "rate"), [(1, 0.1), (5, 1.0)])
def test_what_tells_nothing_about_coins_is_refused(rounds, rate):
    with pytest.raises(ParameterError, match="tell nothing about coins"):
        cohort_fits(np.ones((rounds, 10), bool), sampling_rate=rate)
