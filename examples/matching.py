"""Averaging networks that were trained apart: neurons are matched first, and the server only sees sums.

Ten people trained a small network each, from starts of their own. The mean of their weights is useless, for neuron 3 of
one is neuron 41 of another. Probabilistic federated neural matching (Yurochkin et al. 2019) pairs them up, but looks at
every client's weights. Here the server broadcasts K public slots (their mean and how many are in each); each client
takes its own last contribution out, matches its neurons to slots by itself, and sends the permuted block and its
occupancy: sums suffice.

    python -m examples.matching
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

import dp
import fedavg
from examples.experiment import SEEDS, Options, Trial, conduct, options
from fedavg.aggregation import AggregationPlan
from fedavg.datasets import dirichlet, load

CLIENTS, HIDDEN, SLOTS, ROUNDS = 10, 50, 100, 8
CLIP = 16.0  # Public: a little above the norm of fresh weights and fifty ones.
Neurons = NDArray[np.float64]  # one neuron a row: weights in, bias, weights out
Net = tuple[Neurons, NDArray[np.float64]]  # and the biases of the outputs


@dataclass(frozen=True)
class People:
    """Training examples of each client, and the test set."""

    clients: list[tuple[NDArray[Any], NDArray[Any]]]
    test: tuple[NDArray[Any], NDArray[Any]]
    epochs: int

    @classmethod
    def of(cls, seed: int, *, epochs: int) -> People:
        """Deal the digits to ten people whose digits differ."""
        data = load("digits")
        each = len(data.train_y) // CLIENTS
        parts = dirichlet(
            data.train_y, clients=CLIENTS, examples_per_client=each, concentration=1.0, seed=seed
        )
        return cls([(data.train_x[i], data.train_y[i]) for i in parts], (data.test_x, data.test_y), epochs)


def start(features: int, rng: np.random.Generator) -> Net:
    into = rng.normal(0, np.sqrt(2 / features), (HIDDEN, features))
    out = rng.normal(0, np.sqrt(1 / HIDDEN), (HIDDEN, 10))
    return np.hstack([into, np.zeros((HIDDEN, 1)), out]), np.zeros(10)


def outputs(net: Net, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    neurons, bias = net
    features = x.shape[1]
    hidden = np.maximum(x @ neurons[:, :features].T + neurons[:, features], 0)
    return hidden, hidden @ neurons[:, features + 1 :] + bias


def train(
    net: Net, examples: tuple[NDArray[Any], NDArray[Any]], epochs: int, rng: np.random.Generator
) -> Net:
    """Stochastic gradient descent on one client's own examples."""
    neurons, bias = net[0].copy(), net[1].copy()
    x, y = examples
    features = x.shape[1]
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(y)), max(1, len(y) // 16)):
            hidden, scores = outputs((neurons, bias), x[rows])
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
            scores[np.arange(len(rows)), y[rows]] -= 1
            scores *= 0.1 / len(rows)
            back = (scores @ neurons[:, features + 1 :].T) * (hidden > 0)
            neurons[:, features + 1 :] -= hidden.T @ scores
            bias -= scores.sum(axis=0)
            neurons[:, :features] -= back.T @ x[rows]
            neurons[:, features] -= back.sum(axis=0)
    return neurons, bias


def accuracy(net: Net, test: tuple[NDArray[Any], NDArray[Any]]) -> float:
    return round(float((outputs(net, test[0])[1].argmax(axis=1) == test[1]).mean()), 4)


def assigned(neurons: Neurons, means: Neurons, occupancy: NDArray[Any]) -> NDArray[Any]:
    """The slot of each neuron: near the mean of those that are in it already, or an empty one at a fixed price."""
    full = occupancy > 0.5
    distance = ((neurons[:, None, :] - means[None, :, :]) ** 2).sum(axis=2)
    price = np.where(full, distance, (neurons**2).sum(axis=1, keepdims=True))
    # A slot that many share is a better guess of where a neuron belongs.
    return linear_sum_assignment(price - 0.1 * np.log1p(np.maximum(occupancy, 0)))[1]


def placed(net: Net, slots: NDArray[Any]) -> NDArray[np.float64]:
    """One client's vector: its neurons in their slots, and 1 for each slot that it fills."""
    block = np.zeros((SLOTS, net[0].shape[1] + 1))
    block[slots, :-1], block[slots, -1] = net[0], 1
    return block


def opened(total: NDArray[np.float64], bias: NDArray[np.float64]) -> Net:
    """The matched network: slots that fewer than half a client fills are noise."""
    occupancy = total[:, -1]
    kept = occupancy >= 0.5
    neurons = total[kept, :-1] / occupancy[kept, None]
    features = neurons.shape[1] - 11
    # What a slot adds to the output is shared by all: the clients without such a neuron add nothing.
    neurons[:, features + 1 :] *= (occupancy[kept] / CLIENTS)[:, None]
    return neurons, bias


class Sum:
    """Sums of the clients' blocks: plain, or clipped and noised under the masks' integers."""

    def __init__(self, noise_multiplier: float | None, seed: int) -> None:
        self.noise, self.entropy, self.number = noise_multiplier, fedavg.RunEntropy.seeded(seed), 0

    def __call__(self, blocks: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """One round's sum."""
        self.number += 1
        if self.noise is None:
            return np.sum(blocks, axis=0)
        flat = [block.ravel() for block in blocks]
        privacy = dp.Privacy(noise_multiplier=self.noise, delta=1e-5, l2_clip_norm=CLIP)
        plan = AggregationPlan.choose(
            [dp.Block("blocks", flat[0].size, l2_bound=CLIP, weight=1.0)],
            cohort=CLIENTS,
            privacy=privacy,
            noise_multiplier=self.noise,
            secure=fedavg.SecureAggregation(dropout=0.0, corruption=0.0, graph="complete"),
        )
        found = plan.sum_round(
            lambda client: {"blocks": flat[client]}, clients=range(CLIENTS), number=self.number, model_hash=bytes(32),
            dropouts={}, entropy=self.entropy,
        )  # fmt: skip
        return found.sums["blocks"].reshape(blocks[0].shape)


def by_sums(nets: list[Net], summed: Sum, rng: np.random.Generator) -> Net:
    """Matching where nobody sees a client's weights: eight rounds of sums."""
    width = nets[0][0].shape[1]
    means, occupancy = rng.normal(0, 0.3, (SLOTS, width)), np.ones(SLOTS)
    own = [np.zeros((SLOTS, width + 1)) for _ in nets]
    total = np.zeros((SLOTS, width + 1))
    for number in range(ROUNDS):
        mine = []
        for net, last in zip(nets, own, strict=True):
            if number:
                others = total - last
                occupancy = others[:, -1]
                means = others[:, :-1] / np.maximum(occupancy, 0.5)[:, None]
            mine.append(placed(net, assigned(net[0], means, occupancy)))
        own, total = mine, summed(mine)
    return opened(total, np.mean([net[1] for net in nets], axis=0))


def with_weights_seen(nets: list[Net]) -> Net:
    """The same matching by a server that sees every client's weights and takes them one after the other."""
    width = nets[0][0].shape[1]
    own = [np.zeros((SLOTS, width + 1)) for _ in nets]
    for _ in range(ROUNDS):
        for i, net in enumerate(nets):
            others = np.sum(own, axis=0) - own[i]
            means = others[:, :-1] / np.maximum(others[:, -1], 0.5)[:, None]
            own[i] = placed(net, assigned(net[0], means, others[:, -1]))
    return opened(np.sum(own, axis=0), np.mean([net[1] for net in nets], axis=0))


def run(way: str, seed: int, epochs: int) -> dict[str, Any]:
    people, rng = People.of(seed, epochs=epochs), np.random.default_rng(seed)
    features = people.test[0].shape[1]
    shared = start(features, rng) if way.startswith("one round") else None
    nets = [train(shared or start(features, rng), examples, epochs, rng) for examples in people.clients]
    alone = float(np.mean([accuracy(net, people.test) for net in nets]))
    if way in ("mean of the weights", "one round of averaging from a shared start"):
        net = np.mean([net[0] for net in nets], axis=0), np.mean([net[1] for net in nets], axis=0)
    elif way == "matched, weights seen":
        net = with_weights_seen(nets)
    else:
        noise = {"matched by sums": None, "matched by sums, z = 0.01": 0.01, "matched by sums, z = 0.1": 0.1}[
            way
        ]
        net = by_sums(nets, Sum(noise, seed), rng)
    return {"accuracy": accuracy(net, people.test), "alone": round(alone, 4), "neurons": len(net[0])}


WAYS = (
    "mean of the weights",
    "matched, weights seen",
    "matched by sums",
    "matched by sums, z = 0.01",
    "matched by sums, z = 0.1",
    "one round of averaging from a shared start",
)


def trials(asked: Options) -> Iterator[Trial]:
    for way in WAYS:
        for seed in SEEDS[:1] if asked.small else SEEDS:
            yield Trial(way, seed, partial(run, way, seed, 2 if asked.small else 30))


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    asked = options(__doc__.splitlines()[0], arguments)
    return conduct("matching", trials(asked), asked)


if __name__ == "__main__":
    main()
