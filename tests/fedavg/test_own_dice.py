"""One client's work never changes what another draws from a generator that all of the process share."""

import random

import numpy as np
import pytest

import dp
from fedavg import Federation, RunEntropy, SecureAggregation, check

torch = pytest.importorskip("torch")

COHORT = 12
CLIP = 1.0
IDEAL = SecureAggregation.ideal(dropout=0.0, corruption=0.0)
MASKED = SecureAggregation(dropout=0.0, corruption=0.0)


def python(weights, count):
    return {"w": weights["w"] + 10 * np.array([random.gauss(0, 1) for _ in range(count)][-1:])}


def legacy(weights, count):
    return {"w": weights["w"] + 10 * np.random.normal(size=count)[-1:]}


def of_torch(weights, count):
    return {"w": weights["w"] + 10 * torch.randn(count).numpy()[-1:].astype(np.float64)}


STEPS = pytest.mark.parametrize("step", [python, legacy, of_torch])


def seed_everything():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


def released(step, counts, secure=IDEAL, **changes):
    """What a run with hardly any noise adds up, after the caller has seeded every generator, as scripts do."""
    seed_everything()
    federation = Federation(
        step, counts, weights={"w": np.zeros(1)}, rounds=1, sampler=dp.PaddedPoisson(len(counts), len(counts)),
        privacy=dp.Privacy(noise_multiplier=0.02, delta=1e-3, l2_clip_norm=CLIP), secure=secure,
        entropy=RunEntropy.seeded(3), **changes,
    )  # fmt: skip
    federation.run_round()
    return len(counts) * federation.result().weights["w"]


@STEPS
@pytest.mark.parametrize("secure", [IDEAL, MASKED], ids=["ideal", "masked"])
def test_a_client_with_other_data_moves_the_sum_by_its_own_clip_and_no_more(step, secure):
    """The first client draws once more than before; without generators of their own all others would draw anew."""
    before = released(step, [5] * COHORT, secure)
    after = released(step, [6] + [5] * (COHORT - 1), secure)
    assert np.abs(after - before).max() <= 2 * CLIP + 0.3


@STEPS
def test_the_callers_generators_are_as_they_were(step):
    released(step, [5] * COHORT)
    drawn = random.random(), np.random.random(), torch.rand(1).item()
    seed_everything()
    assert drawn == (random.random(), np.random.random(), torch.rand(1).item())


@STEPS
def test_clients_and_rounds_draw_differently(step):
    seen = []

    def watched(weights, count):
        trained = step(weights, count)
        seen.append(float(trained["w"][0] - weights["w"][0]))
        return trained

    federation = Federation(
        watched, [5] * COHORT, weights={"w": np.zeros(1)}, rounds=2, sampler=dp.PaddedPoisson(COHORT, COHORT),
        privacy=dp.Privacy(noise_multiplier=0.02, delta=1e-3, l2_clip_norm=CLIP), secure=IDEAL,
    )  # fmt: skip
    federation.run_round()
    federation.run_round()
    assert len({round(value, 6) for value in seen}) == len(seen) == 2 * COHORT


@STEPS
def test_it_does_not_matter_on_which_worker_a_client_is_played(step):
    np.testing.assert_array_equal(
        released(step, [5] * COHORT), released(step, [5] * COHORT, backend="processes")
    )


@STEPS
def test_a_step_that_shuffles_by_a_global_generator_is_no_impurity(step):
    assert check(step, [5, 6], weights={"w": np.zeros(1)}) == []
