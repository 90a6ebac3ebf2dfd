"""The image tutorial: clients whose labels differ train together, in the open and at two epsilons.

3,000 clients hold 20 MNIST images each, their labels drawn from a Dirichlet(1) each; they train on 16 and evaluate on
4. Softmax regression (7,850 weights) and a small network of two convolutions (7,018), in torch. Learning rates, rounds
and clips were tuned on this data without paying for it.

    python -m examples.image
    python -m examples.image --full                             # also a Keras network, and CIFAR-10: an hour
    python -m examples.image --emnist fed_emnist_train.h5       # by writer, from your file (.h5 or .sqlite)
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import fedavg
from examples.experiment import SEEDS, Options, Trial, conduct, options, show
from examples.journey import Task, evaluated, fitted, in_the_open, privately
from fedavg.datasets import EMNIST, dirichlet, load, read_tff_hdf5, read_tff_sqlite

EPSILONS = (2.0, 0.5)
EACH, HELD_OUT = 20, 4
Examples = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class Scene:
    """Pictures as clients hold them: to train on, to evaluate on, and those that are nobody's."""

    clients: fedavg.ClientData
    held_out: fedavg.ClientData
    test: Examples
    shape: tuple[int, int, int]
    classes: int


@dataclass(frozen=True)
class Model:
    """A way to make a wrapped loop, and its control in the same framework."""

    words: str
    step: Callable[[Scene], Any]
    centrally: Callable[[Scene, Examples], Mapping[str, float]]
    rounds: int
    cohort: int
    clip: float
    momentum: float


def dealt(dataset: str, seed: int, *, clients: int, shape: tuple[int, int, int]) -> Scene:
    """Deal a data set to clients, labels following a Dirichlet draw for each."""
    data = load(dataset)
    parts = dirichlet(data.train_y, clients=clients, examples_per_client=EACH, concentration=1.0, seed=seed)
    rng = np.random.default_rng(seed)
    parts = rng.permuted(parts, axis=1)  # They come sorted by label.
    train, held_out = (
        fedavg.ClientData.from_parts(planes(data.train_x, shape), data.train_y, parts=some)
        for some in (parts[:, HELD_OUT:], parts[:, :HELD_OUT])
    )
    return Scene(train, held_out, (planes(data.test_x, shape), data.test_y), shape, data.classes)


def planes(pixels: NDArray[np.float32], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Flat pixels of a few colours each as flat planes of one colour each, which is what torch convolves."""
    channels, *sides = shape
    ordered: NDArray[np.float32] = np.moveaxis(pixels.reshape(-1, *sides, channels), 3, 1)
    return ordered.reshape(pixels.shape)


def by_writer(path: Path, seed: int) -> Scene:
    """EMNIST as TensorFlow Federated published it: a client is who wrote; a tenth of the writers are nobody's."""
    if path.suffix == ".sqlite":
        train, test = (read_tff_sqlite(path, shapes=EMNIST, split=split) for split in ("train", "test"))
    else:
        train, test = (
            read_tff_hdf5(path.with_name(path.name.replace("train", to))) for to in ("train", "test")
        )
    writers = np.random.default_rng(seed).permutation(np.array(train.client_ids)).tolist()
    few, many = writers[: len(writers) // 10], writers[len(writers) // 10 :]
    drawn, seen = train.map(inked), test.map(inked)
    return Scene(
        fedavg.ClientData(many, drawn.for_client), fedavg.ClientData(many, seen.for_client),
        pooled(fedavg.ClientData(few, seen.for_client)), (1, 28, 28), 62,
    )  # fmt: skip


def inked(fields: Mapping[str, NDArray[Any]]) -> Examples:
    """A writer's pictures with ink as 1, flat, and what they show."""
    pixels = 1 - np.asarray(fields["pixels"], np.float32)
    return pixels.reshape(len(pixels), -1), np.asarray(fields["label"], np.int64)


def pooled(clients: fedavg.ClientData) -> Examples:
    """Everybody's pictures in one place: what only the control sees."""
    everything = [clients.for_client(client) for client in clients.client_ids]
    return np.concatenate([x for x, _ in everything]), np.concatenate([y for _, y in everything])


def regression(scene: Scene) -> torch.nn.Module:
    linear = torch.nn.Linear(int(np.prod(scene.shape)), scene.classes)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    return linear


def network(scene: Scene) -> torch.nn.Module:
    torch.manual_seed(0)  # Everybody starts from the same public weights.
    channels, side, _ = scene.shape
    left = ((side - 1) // 2 - 1) // 2
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, scene.shape),
        torch.nn.Conv2d(channels, 8, 3, stride=2), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3, stride=2), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(16 * left * left, scene.classes),
    )  # fmt: skip


def in_torch(
    build: Callable[[Scene], torch.nn.Module],
    *,
    learning_rate: float,
    central_rate: float,
    central_epochs: int,
) -> dict[str, Any]:
    """The wrapped loop and the control, which differ in how long they go through whose pictures."""

    def step(scene: Scene) -> Any:
        return fedavg.from_torch(
            build(scene), fitted(learning_rate, epochs=5, batch=EACH), evaluate=evaluated
        )

    def centrally(scene: Scene, everything: Examples) -> Mapping[str, float]:
        module = build(scene)
        fitted(central_rate, epochs=central_epochs, batch=64)(module, everything)
        return evaluated(module, scene.test)

    return {"step": step, "centrally": centrally}


def in_keras() -> dict[str, Any]:
    """The same network in Keras, compiled and fitted as always."""

    def compiled(scene: Scene, learning_rate: float) -> Any:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        import keras

        keras.utils.set_random_seed(0)
        channels, side, _ = scene.shape
        model = keras.Sequential([
            keras.layers.InputLayer((channels * side * side,)),
            keras.layers.Reshape((side, side, channels)),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(scene.classes),
        ])  # fmt: skip
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.SGD(learning_rate), loss=loss, metrics=["accuracy"])
        return model

    def step(scene: Scene) -> Any:
        return fedavg.from_keras(
            compiled(scene, 0.1), lambda model, data: model.fit(*data, epochs=5, batch_size=EACH, verbose=0)
        )

    def centrally(scene: Scene, everything: Examples) -> Mapping[str, float]:
        model = compiled(scene, 0.1)
        model.fit(*everything, epochs=3, batch_size=64, verbose=0)
        seen: Mapping[str, float] = model.evaluate(*scene.test, verbose=0, return_dict=True)
        return seen

    return {"step": step, "centrally": centrally}


REGRESSION = Model(
    "regression", **in_torch(regression, learning_rate=0.1, central_rate=0.1, central_epochs=3),
    rounds=20, cohort=200, clip=0.3, momentum=0.9,
)  # fmt: skip
NETWORK = Model(
    "network", **in_torch(network, learning_rate=0.1, central_rate=0.1, central_epochs=3),
    rounds=20, cohort=200, clip=0.5, momentum=0.9,
)  # fmt: skip
KERAS = Model("Keras network", **in_keras(), rounds=20, cohort=200, clip=0.5, momentum=0.9)


def task_of(model: Model, scene: Scene) -> Task:
    return Task(
        step=model.step(scene), clients=scene.clients, held_out=scene.held_out, test=scene.test,
        most_examples=HELD_OUT, rounds=model.rounds, cohort=model.cohort, clip=model.clip,
        server=fedavg.sgd(momentum=model.momentum),
    )  # fmt: skip


Pictures = Callable[[int], Scene]


def centrally(model: Model, pictures: Pictures, seed: int) -> dict[str, Any]:
    scene = pictures(seed)
    torch.manual_seed(seed)
    seen = model.centrally(scene, pooled(scene.clients))
    return {name: round(float(value), 4) for name, value in seen.items()}


def federated(model: Model, pictures: Pictures, seed: int, **private: Any) -> dict[str, Any]:
    task = task_of(model, pictures(seed))
    return (privately(task, seed, **private) if private else in_the_open(task, seed))[1]


def settings(model: Model, words: str, pictures: Pictures, seeds: tuple[int, ...]) -> Iterator[Trial]:
    """Everything that is tried with a model on some pictures."""
    runs: dict[str, Callable[[int], dict[str, Any]]] = {
        "central, same framework": partial(centrally, model, pictures),
        "federated, no privacy": partial(federated, model, pictures),
        **{
            f"private, readers' epsilon {epsilon:g}": partial(
                federated, model, pictures, readers_epsilon=epsilon
            )
            for epsilon in EPSILONS
        },
    }
    for name, run in runs.items():
        for seed in seeds:
            yield Trial(f"{words}{model.words}: {name}", seed, partial(run, seed))
    masks = {"readers_epsilon": EPSILONS[0], "secure": fedavg.SecureAggregation()}
    real = partial(federated, model, pictures, 1, **masks)
    yield Trial(f"{words}{model.words}: private, readers' epsilon {EPSILONS[0]:g}, real protocol", 1, real)


def trials(asked: Options, emnist: Path | None) -> Iterator[Trial]:
    seeds = SEEDS[:1] if asked.small else SEEDS
    digits = partial(dealt, "digits", clients=70, shape=(1, 8, 8))
    mnist = digits if asked.small else partial(dealt, "mnist", clients=3000, shape=(1, 28, 28))
    models = [REGRESSION, NETWORK, *([KERAS] if asked.full else [])]
    if asked.small:
        models = [replace(model, rounds=2, cohort=20) for model in models]
    for model in models:
        yield from settings(model, "", mnist, seeds)
    if asked.full and not asked.small:
        cifar10 = partial(dealt, "cifar10", clients=2500, shape=(3, 32, 32))
        yield from settings(replace(NETWORK, rounds=100), "CIFAR-10, ", cifar10, seeds)
    if emnist is not None:
        yield from settings(models[1], "EMNIST by writer, ", partial(by_writer, emnist), seeds)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--emnist", type=Path, default=None)
    mine, others = own.parse_known_args(arguments)
    asked = options(__doc__.splitlines()[0], others)
    return show(conduct("image", trials(asked, mine.emnist), asked))


if __name__ == "__main__":
    main()
