"""What privacy costs in accuracy, for each ecosystem: the loops of `examples/wrap_*`, with and without, same settings.

    python -m benchmarks.wrap_accuracy [--only numpy torch ...]

prints one JSON object a loop, and a table on stderr.

Both runs train softmax regression (scikit-learn: one class against the rest) on the same 3,000 clients of MNIST with 20
examples each, Dirichlet(1) labels, for 50 rounds of about 300 clients, server momentum 0.9. *Plain* sums the updates of
300 clients chosen at random in float64 (`fedavg.insecure_sum`). *Private* clips to 0.3, adds distributed noise of
multiplier 1.5 and draws padded Poisson cohorts; sums are taken with `SecureAggregation.ideal()`, which gives the very
bits of the real protocol. Without the package of MNIST at hand, the embedded digits stand in, at sizes that fit them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import dp
import fedavg
from examples.clients import Images, images
from fedavg.datasets import DatasetError
from fedavg.insecure import insecure_sum
from fedavg.processes import build_unweighted_fed_avg

os.environ.setdefault("KERAS_BACKEND", "jax")
CLASSES = 10
PRIVACY = dp.Privacy(noise_multiplier=1.5, delta=1e-5, l2_clip_norm=0.3)


@dataclass(frozen=True)
class Loop:
    """One ecosystem's loop: the step, where it starts, and the matrix (features, classes) and bias of its weights."""

    step: Any
    weights: Any
    matrix: Callable[[Any], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Sizes:
    """Of one comparison."""

    clients: int
    cohort: int
    rounds: int


def numpy_loop(features: int) -> Loop:
    example = importlib.import_module("examples.wrap_numpy")
    weights = {"w": np.zeros((features, CLASSES), np.float32), "b": np.zeros(CLASSES, np.float32)}
    return Loop(example.step, weights, lambda w: (w["w"], w["b"]))


def torch_loop(features: int) -> Loop:
    import torch

    example = importlib.import_module("examples.wrap_torch")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    step = fedavg.from_torch(torch.nn.Linear(features, CLASSES), example.fit)
    return Loop(step, step.weights, lambda w: (w["weight"].T, w["bias"]))


def keras_loop(features: int) -> Loop:
    import keras

    example = importlib.import_module("examples.wrap_keras")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((features,)), keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"])
    step = fedavg.from_keras(model, example.fit)
    return Loop(step, step.weights, lambda w: tuple(w.values()))


def jax_loop(features: int) -> Loop:
    import jax.numpy as jnp

    example = importlib.import_module("examples.wrap_jax")
    weights = {"w": jnp.zeros((features, CLASSES)), "b": jnp.zeros(CLASSES)}
    return Loop(example.step, weights, lambda w: (np.asarray(w["w"]), np.asarray(w["b"])))


def sklearn_loop(features: int) -> Loop:
    from sklearn.linear_model import SGDClassifier

    example = importlib.import_module("examples.wrap_sklearn")
    estimator = SGDClassifier(
        loss="log_loss", alpha=0.0, learning_rate="constant", eta0=0.005, random_state=0
    )
    step = fedavg.from_sklearn(estimator, example.fit, features=features, classes=CLASSES)
    return Loop(step, step.weights, lambda w: (w["coef_"].T, w["intercept_"]))


LOOPS = {
    "numpy": numpy_loop,
    "torch": torch_loop,
    "jax": jax_loop,
    "sklearn": sklearn_loop,
    "keras": keras_loop,
}


def accuracy(loop: Loop, weights: Any, data: Images) -> float:
    matrix, bias = loop.matrix(weights)
    return float(np.mean((data.test[0] @ matrix + bias).argmax(axis=1) == data.test[1]))


def plain(loop: Loop, data: Images, sizes: Sizes) -> float:
    process = build_unweighted_fed_avg(
        loop.step,
        weights=loop.weights,
        server_optimizer=fedavg.sgd(momentum=0.9),
        model_aggregator=insecure_sum,
    )
    state, dice = process.initialize(), np.random.default_rng(0)
    for _ in range(sizes.rounds):
        cohort = dice.choice(sizes.clients, size=sizes.cohort, replace=False)
        state = process.next(state, [data.clients[client] for client in cohort]).state
    return accuracy(loop, process.get_model_weights(state), data)


def private(loop: Loop, data: Images, sizes: Sizes) -> tuple[float, dp.Epsilons]:
    result = fedavg.train(
        loop.step,
        data.clients,
        weights=loop.weights,
        rounds=sizes.rounds,
        cohort_size=sizes.cohort,
        privacy=PRIVACY,
        server_optimizer=fedavg.sgd(momentum=0.9),
        secure=fedavg.SecureAggregation.ideal(),
    )
    return accuracy(loop, result.weights, data), result.rounds[-1].epsilon


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=LOOPS, default=list(LOOPS))
    options = parser.parse_args()
    sizes, dataset = Sizes(3000, 300, 50), "mnist"
    try:
        data = images(dataset, clients=sizes.clients)
    except DatasetError as error:
        say(f"{error}; using the embedded digits")
        sizes, dataset = Sizes(70, 20, 20), "digits"
        data = images(dataset, clients=sizes.clients)
    say(f"{dataset}: {sizes.clients} clients, {sizes.cohort} a round, {sizes.rounds} rounds")
    say(
        f"{'loop':8} {'plain':>7} {'private':>8} {'points lost':>11} {'readers':>8} {'server':>7} {'CPU s':>7}"
    )
    for name in options.only:
        start = time.process_time()
        loop = LOOPS[name](data.features)
        without = plain(loop, data, sizes)
        within, epsilon = private(loop, data, sizes)
        lost, spent = 100 * (without - within), time.process_time() - start
        shown = f"{name:8} {without:7.4f} {within:8.4f} {lost:11.2f}"
        say(f"{shown} {epsilon.readers:8.3f} {epsilon.server:7.2f} {spent:7.1f}")
        row = {
            "what": f"accuracy that privacy costs, {name} loop on {dataset}",
            "figure": lost,
            "limit": 2.0,
            "unit": "points",
            "loop": name,
            "plain": without,
            "private": within,
            "readers_epsilon": epsilon.readers,
            "server_epsilon": epsilon.server,
            "cpu_s": spent,
        }
        print(json.dumps(row), flush=True)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
