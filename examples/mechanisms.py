"""Which noise? The demo's task at one epsilon against readers, with every mechanism; what each costs and promises.

All settings spend readers' epsilon 2.53 at delta 1e-5 over 50 rounds of 300 of 3,000 clients (MNIST, softmax
regression), and differ in who adds the noise, how much of it is left, and what the server could learn.

    python -m examples.mechanisms
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import dp
import fedavg
from examples.clients import images
from examples.experiment import SEEDS, Options, Trial, conduct, options
from fedavg.cli.softmax import SoftmaxRegression

EPSILON, DELTA, CLIP = 2.53, 1e-5, 0.3


@dataclass(frozen=True)
class Task:
    """The demo's, or a small one."""

    dataset: str = "mnist"
    population: int = 3000
    cohort: int = 300
    rounds: int = 50
    dropout: float = 0.1


@dataclass(frozen=True)
class Setting:
    """One way to noise the sums."""

    words: str
    privacy: Mapping[str, Any] = field(default_factory=dict)
    secure: Mapping[str, Any] = field(default_factory=dict)
    sampler: str = "padded Poisson"


CENTRAL = {"mechanism": "central_gaussian", "trusted_server": True}
SETTINGS = (
    Setting("discrete Gaussian shares, sized for the most dropouts"),
    Setting("the same, excess taken off", secure={"excess_noise": "remove"}),
    Setting("the same, compressed", secure={"compression": "rotation"}),
    Setting("Skellam shares", privacy={"mechanism": "skellam"}),
    Setting("discrete Gaussian shares, clients flip a coin of their own", sampler="self-sampling"),
    Setting("a trusted server's discrete Gaussian", privacy=CENTRAL),
    Setting(
        "a trusted server's correlated noise (DP-FTRL)",
        privacy={"mechanism": "central_matrix", "trusted_server": True},
        sampler="fixed order",
    ),
    Setting("shares that protect alone (local)", secure={"corruption": "all but one"}),
)


def sampler(kind: str, task: Task) -> dp.Sampler:
    if kind == "fixed order":
        return dp.FixedOrder(task.population, task.cohort)
    if kind == "self-sampling":
        carriers = dp.PaddedPoisson(task.population, 4 * task.cohort)
        return dp.SelfSampling(carriers, coin=0.25)
    return dp.PaddedPoisson(task.population, task.cohort)


def run(setting: Setting, task: Task, seed: int, *, masked: bool) -> dict[str, Any]:
    """Train once; with masks, only the first three rounds, for their cost."""
    data = images(task.dataset, clients=task.population, seed=seed)
    model = SoftmaxRegression(features=data.features, classes=10, local_epochs=5, learning_rate=0.5)
    draws = sampler(setting.sampler, task)
    secure = {"dropout": task.dropout, "corruption": 0.1, **setting.secure}
    if secure["corruption"] == "all but one":
        secure["corruption"] = (draws.cohort_size * (1 - task.dropout) - 1) / draws.cohort_size
    settled = fedavg.SecureAggregation(**secure, masked=masked)
    federation = fedavg.Federation(
        model.step,
        data.clients,
        weights=model.initial(),
        rounds=task.rounds,
        sampler=draws,
        privacy=dp.Privacy(readers_epsilon=EPSILON, delta=DELTA, l2_clip_norm=CLIP, **setting.privacy),
        secure=settled,
        entropy=fedavg.RunEntropy.seeded(seed),
        task=f"mechanisms: {task.dataset}",
    )
    begun = time.process_time()
    for number, report in enumerate(federation, start=1):
        if masked and number == 3:
            return {
                "bytes_up_per_client": report.bytes_up_per_client,
                "cpu_s_per_client": round((time.process_time() - begun) / 3 / report.cohort, 5),
            }
    statement = federation.statement().as_dict()
    average = federation.plan.stddev_of_sum(
        federation.plan.encoding.blocks[0].name, federation.plan.minimum_survivors
    )
    return {
        "accuracy": round(model.accuracy(federation.result().weights, data.test), 4),
        "readers": statement["readers"]["epsilon"],
        "server": statement["server"]["epsilon"],
        "noise_multiplier": federation.plan.mechanism.noise_multiplier,
        "noise_on_average": average / draws.expected,
        "modulus_bits": federation.plan.modulus_bits,
    }


def without_privacy(task: Task, seed: int) -> dict[str, Any]:
    """The control: the same cohorts averaged in plain numpy, neither clipped nor noised."""
    import numpy as np

    data = images(task.dataset, clients=task.population, seed=seed)
    model = SoftmaxRegression(features=data.features, classes=10, local_epochs=5, learning_rate=0.5)
    weights, rng = model.initial(), np.random.default_rng(seed)
    for _ in range(task.rounds):
        chosen = rng.choice(task.population, task.cohort, replace=False)
        trained = [model.step(weights, data.clients[i])[0] for i in chosen]
        weights = {name: np.mean([one[name] for one in trained], axis=0) for name in weights}
    return {"accuracy": round(model.accuracy(weights, data.test), 4)}


def trials(asked: Options) -> Iterator[Trial]:
    task = Task("digits", population=60, cohort=15, rounds=2) if asked.small else Task()
    seeds = SEEDS[:1] if asked.small else SEEDS
    for seed in seeds:
        yield Trial("no privacy at all", seed, partial(without_privacy, task, seed))
    for setting in SETTINGS:
        for seed in seeds:
            yield Trial(setting.words, seed, partial(run, setting, task, seed, masked=False))
    for setting in () if asked.small else SETTINGS:
        cost = replace(task, rounds=task.rounds)
        yield Trial(f"{setting.words}: cost under masks", 1, partial(run, setting, cost, 1, masked=True))


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    asked = options(__doc__.splitlines()[0], arguments)
    return conduct("mechanisms", trials(asked), asked)


if __name__ == "__main__":
    main()
