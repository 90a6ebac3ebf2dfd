"""Which noise? The demo's task at equal epsilon against readers, with every mechanism; what each costs and promises.

All private settings spend the same epsilon against readers (2.53, then 0.5) at delta 1e-5 over 50 rounds of about 300
of 3,000 clients (MNIST, softmax regression). They differ in who adds the noise, how much of it is left, and what the
server could learn. 5% of a cohort drop out, except in two controls where nobody does: tensorflow-privacy's rows, and
the one without privacy, which draws exactly 300.

Learning rate, local epochs, rounds, cohort, clip and momentum were chosen by looking at this data, test accuracy
included, without paying for it.

    python -m examples.mechanisms
    .venv-tf/bin/python -m examples.mechanisms    # adds tensorflow-privacy's rows, in the environment of `make test`
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from math import isfinite
from typing import Any

import numpy as np

import dp
import fedavg
from examples.clients import images
from examples.experiment import SEEDS, Options, Trial, conduct, options, show
from fedavg.cli.softmax import SoftmaxRegression

EPSILONS, DELTA, CLIP, MOMENTUM = (2.53, 0.5), 1e-5, 0.3, 0.9
COST_ROUNDS = 3


@dataclass(frozen=True)
class Task:
    """The demo's, or a small one."""

    dataset: str = "mnist"
    population: int = 3000
    cohort: int = 300
    rounds: int = 50
    silent: float = 0.05


@dataclass(frozen=True)
class Setting:
    """One way to noise the sums."""

    words: str
    privacy: Mapping[str, Any] = field(default_factory=dict)
    secure: Mapping[str, Any] = field(default_factory=dict)
    sampler: str = "padded Poisson"


CENTRAL = {"mechanism": "central_gaussian", "trusted_server": True}
SHARES, LOCAL = "discrete Gaussian shares", "shares that protect alone (local)"
SETTINGS = (
    Setting(SHARES),
    Setting("the same, sized for 40% dropouts", secure={"dropout": 0.4}),
    Setting("the same, excess taken off", secure={"dropout": 0.4, "excess_noise": "remove"}),
    Setting("discrete Gaussian shares, compressed", secure={"compression": "rotation"}),
    Setting("Skellam shares", privacy={"mechanism": "skellam"}),
    Setting("discrete Gaussian shares, self-sampling", sampler="self-sampling"),
    Setting(LOCAL, secure={"corruption": "all but one"}),
    Setting("trusted server: discrete Gaussian", privacy=CENTRAL),
    Setting(
        "trusted server: correlated noise (DP-FTRL)",
        privacy={"mechanism": "central_matrix", "trusted_server": True},
        sampler="fixed order",
    ),
)


def sampler(kind: str, task: Task) -> dp.Sampler:
    if kind == "fixed order":
        return dp.FixedOrder(task.population, task.cohort)
    if kind == "self-sampling":
        carriers = dp.PaddedPoisson(task.population, 4 * task.cohort)
        return dp.SelfSampling(carriers, coin=0.25)
    return dp.PaddedPoisson(task.population, task.cohort)


def federated(setting: Setting, task: Task, epsilon: float, seed: int, *, masked: bool) -> fedavg.Federation:
    """The run, not yet begun. In sweeps the noise of a sum is drawn at once where that is the same law."""
    data = images(task.dataset, clients=task.population, seed=seed)
    model = model_for(data.features)
    draws = sampler(setting.sampler, task)
    secure = {"dropout": 0.1, "corruption": 0.1, **setting.secure}
    if secure["corruption"] == "all but one":
        secure["corruption"] = (draws.cohort_size * (1 - secure["dropout"]) - 1) / draws.cohort_size
    at_once = not masked and "excess_noise" not in secure
    return fedavg.Federation(
        model.step,
        data.clients,
        weights=model.initial(),
        rounds=task.rounds,
        sampler=draws,
        privacy=dp.Privacy(readers_epsilon=epsilon, delta=DELTA, l2_clip_norm=CLIP, **setting.privacy),
        secure=fedavg.SecureAggregation(**secure, masked=masked, one_draw=at_once),
        server_optimizer=fedavg.sgd(momentum=MOMENTUM),
        simulated_dropout=task.silent,
        entropy=fedavg.RunEntropy.seeded(seed),
        task=f"mechanisms: {task.dataset}",
    )


def model_for(features: int) -> SoftmaxRegression:
    return SoftmaxRegression(features=features, classes=10, local_epochs=5, learning_rate=0.5)


def run(setting: Setting, task: Task, epsilon: float, seed: int, *, masked: bool = False) -> dict[str, Any]:
    """Train once."""
    federation = federated(setting, task, epsilon, seed, masked=masked)
    for _ in federation:
        pass
    spent, plan = federation.ledger.spent(), federation.plan
    data = images(task.dataset, clients=task.population, seed=seed)
    average = plan.stddev_of_sum("update", plan.cohort - round(task.silent * plan.cohort))
    return {
        "accuracy": round(model_for(data.features).accuracy(federation.result().weights, data.test), 4),
        "readers": round(spent.readers, 4),
        "server": round(spent.server, 3) if isfinite(spent.server) else None,
        "delta": DELTA,
        "noise_multiplier": round(plan.mechanism.noise_multiplier, 4),
        "noise_in_average": round(average / federation.sampler.expected, 6),
    }


def cost(setting: Setting, task: Task) -> dict[str, Any]:
    """The first rounds under masks: bytes of a client, and CPU of clients and server together, training included."""
    federation = federated(setting, task, EPSILONS[0], 1, masked=True)
    begun = time.process_time()
    reports = [federation.run_round() for _ in range(COST_ROUNDS)]
    spent = time.process_time() - begun
    return {
        "cohort": reports[0].cohort,
        "bytes_up_per_client": reports[-1].bytes_up_per_client,
        "modulus_bits": federation.plan.modulus_bits,
        "cpu_ms_per_client": round(1000 * spent / COST_ROUNDS / reports[0].cohort, 2),
    }


def of_tensorflow_privacy(task: Task, epsilon: float, seed: int) -> dict[str, Any]:
    """The central control: a query of tensorflow-privacy, at the noise our ledger asks for."""
    from examples.tensorflow_privacy_central import main as train

    draws = dp.PaddedPoisson(task.population, task.cohort)
    promise = dp.Privacy(readers_epsilon=epsilon, delta=DELTA, l2_clip_norm=CLIP)
    noise = dp.calibrate(promise, draws, task.rounds)
    accuracy, readers, theirs, _ = train(
        task.dataset, task.population, task.cohort, task.rounds, noise_multiplier=noise, seed=seed
    )
    return {
        "accuracy": round(accuracy, 4),
        "readers": round(readers, 4),
        "readers_by_their_accountant": round(theirs, 4),
        "server": None,
        "delta": DELTA,
        "noise_multiplier": round(noise, 4),
        "noise_in_average": round(noise * CLIP / draws.expected, 6),
    }


def without_privacy(task: Task, seed: int) -> dict[str, Any]:
    """The control: the same cohorts averaged in plain numpy, neither clipped nor noised."""
    data = images(task.dataset, clients=task.population, seed=seed)
    model, rng = model_for(data.features), np.random.default_rng(seed)
    weights: Any = model.initial()
    velocity = {name: np.zeros_like(value) for name, value in weights.items()}
    for _ in range(task.rounds):
        chosen = rng.choice(task.population, task.cohort, replace=False)
        trained = [model.step(weights, data.clients[i])[0] for i in chosen]
        for name, value in weights.items():
            step = np.mean([one[name] for one in trained], axis=0) - value
            velocity[name] = MOMENTUM * velocity[name] + step
        weights = {name: value + velocity[name] for name, value in weights.items()}
    return {"accuracy": round(model.accuracy(weights, data.test), 4)}


def trials(asked: Options) -> Iterator[Trial]:
    """The table's rows in order; tensorflow-privacy's where it is installed."""
    task = Task("digits", population=60, cohort=15, rounds=2) if asked.small else Task()
    seeds = SEEDS[:1] if asked.small else SEEDS
    for seed in seeds:
        yield Trial("no privacy: plain numpy", seed, partial(without_privacy, task, seed))
    for epsilon in EPSILONS:
        for setting in SETTINGS:
            for seed in seeds:
                yield Trial(
                    f"{setting.words}, epsilon {epsilon:g}", seed, partial(run, setting, task, epsilon, seed)
                )
        for seed in seeds if find_spec("tensorflow_privacy") else ():
            words = f"trusted server: tensorflow-privacy's query, epsilon {epsilon:g}"
            yield Trial(words, seed, partial(of_tensorflow_privacy, task, epsilon, seed))
    real = f"{SHARES}, real protocol, epsilon {EPSILONS[0]:g}"
    yield Trial(real, 1, partial(run, SETTINGS[0], task, EPSILONS[0], 1, masked=True))
    for setting in () if asked.small else SETTINGS:
        if setting.words == LOCAL:
            continue  # Shares that protect alone need no masks, and no graph withstands that many corrupted clients.
        yield Trial(f"{setting.words}: cost under masks", 1, partial(cost, setting, task))


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run what is missing and show the table."""
    asked = options(__doc__.splitlines()[0], arguments)
    return show(conduct("mechanisms", trials(asked), asked))


if __name__ == "__main__":
    main()
