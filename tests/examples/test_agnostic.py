"""Agnostic training over sums: lambda finds the worst domain, and no client moves the model by more than it says."""

import numpy as np
import pytest

import dp
from examples import domains
from examples.agnostic import BETA_UNIT, Mixture, Setup, Sums, in_one_place, run, told

SETUP = Setup(domains.digits, cohort=15, rounds=40, eta=0.3)


@pytest.mark.parametrize(
    "train", [lambda way: in_one_place(SETUP, way), lambda way: run(SETUP, way, None, 1)]
)
def test_the_worst_domain_gets_better_and_the_best_a_little_worse(train):
    before, after = train("FedAvg"), train("agnostic")
    losses = [key for key in before if key.startswith("loss: ")]
    worst = max(losses, key=lambda key: before[key])
    assert after[worst] < before[worst]
    assert max(after[key] for key in losses) < max(before[key] for key in losses)
    assert min(after[key] for key in losses) > min(before[key] for key in losses)
    name = worst.removeprefix("loss: ")
    assert after[f"lambda: {name}"] > before[f"lambda: {name}"]


def test_a_step_and_its_beta_are_clipped_as_one():
    """A hundredfold step comes through no longer than one clip, and takes its beta down with it."""
    problem = domains.digits()
    plan = Sums(problem, SETUP, 1, 8.0, masked=False).plan
    assert plan is not None
    size = problem.zeros().size
    honest = told(problem, problem.zeros(), np.ones(3), 0, clip=True)
    step, beta = honest["moved"][:-1], honest["moved"][-1]
    liar = {**honest, "moved": np.append(100 * step, beta)}
    sent = plan.encoding.encode(liar, dp.Keystream.seeded(bytes(32)))[: size + 1] / plan.encoding.scale(
        "moved"
    )
    assert np.linalg.norm(sent) <= 1.02 * np.hypot(1, BETA_UNIT)
    assert sent[-1] < 0.05 * beta


def test_an_honest_message_is_within_its_bounds_whatever_the_gradient():
    problem = domains.digits()
    sent = told(
        problem, 50 * np.random.default_rng(0).normal(size=problem.zeros().shape), np.ones(3), 0, clip=True
    )
    assert np.linalg.norm(sent["moved"][:-1]) <= 1 + 1e-9
    assert sent["moved"][-1] == BETA_UNIT
    assert sent["domains"].max() <= 1


@pytest.mark.parametrize("noised", [-5.0, 0.0, 1e-3])
def test_a_small_or_negative_sum_of_betas_has_a_floor(noised):
    mixture = Mixture(domains.digits(), cohort=15, eta=0.1)
    expected = float(mixture.expected @ mixture.beta)
    assert mixture.denominator(noised) == pytest.approx(expected / 2)
    assert mixture.denominator(3 * expected) == 3 * expected


def test_lambda_stays_a_mixture_when_noise_makes_counts_negative():
    mixture = Mixture(domains.digits(), cohort=15, eta=0.5)
    for _ in range(20):
        mixture.move(np.array([50.0, -50.0, 0.0]), np.array([-30.0, 1e-9, 0.0]))
    assert mixture.weights.sum() == pytest.approx(1)
    assert (mixture.weights > 0).all()
    # Losses stay in [0, most]: twenty rounds move the log-ratio by at most that.
    assert np.log(mixture.weights.max() / mixture.weights.min()) <= 20 * 0.5 * mixture.most + 1


def test_the_text_model_has_the_gradient_of_its_loss():
    rng = np.random.default_rng(0)
    letters = len(domains.LETTERS)
    task = domains.Pages([rng.integers(letters, size=200)], np.zeros(1, int), [], ("one",))
    weights = rng.normal(size=task.zeros().shape)
    gradient, _ = task.work(task.prepared(weights), 0)
    direction = rng.normal(size=weights.shape)
    ends = [task.work(task.prepared(weights + h * direction), 0)[1] for h in (1e-5, -1e-5)]
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float((gradient * direction).sum()), rel=1e-5)
