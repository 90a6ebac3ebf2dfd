"""Averaging networks that were trained apart: neurons are matched first, and the server only sees sums.

People trained a small network each, from starts of their own. The mean of their weights is useless, for neuron 3 of one
is neuron 41 of another. Probabilistic federated neural matching (Yurochkin et al. 2019) pairs them up, but looks at
every client's weights. Here the server broadcasts K public slots (their mean and how many are in each); each client
takes its own last contribution out, matches its neurons to slots by itself, and sends the permuted block and its
occupancy: sums suffice. Everybody takes part in every round, so readers and server have the same promise.

Learning rate, epochs, rounds, both clips, the number of slots and the prices of matching were chosen by looking at this
data, norms of the clients' trained networks and test accuracy included, without paying for it.

    python -m examples.matching
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

import dp
import fedavg
from examples.experiment import SEEDS, Options, Trial, conduct, options, show
from fedavg.aggregation import AggregationPlan
from fedavg.datasets import dirichlet, load

HIDDEN, ROUNDS, NOISY_ROUNDS = 50, 8, 3
DELTA = 1e-5
CLIP = 16.0  # A little above the norm of clients' trained weights and fifty ones: seen, not paid for.
CHANGE_CLIP = 2.0  # What one client's training changes, where all start from the same weights.
Neurons = NDArray[np.float64]  # one neuron a row: weights in, bias, weights out
Net = tuple[Neurons, NDArray[np.float64]]  # and the biases of the outputs
Examples = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class People:
    """Training examples of each client, the test set, and how much each trains alone."""

    clients: list[Examples]
    test: Examples
    epochs: int
    slots: int

    @classmethod
    def ten(cls, seed: int, *, epochs: int = 30) -> People:
        """Deal scikit-learn's digits to ten people whose digits differ."""
        data = load("digits")
        parts = dirichlet(
            data.train_y,
            clients=10,
            examples_per_client=len(data.train_y) // 10,
            concentration=1.0,
            seed=seed,
        )
        return cls(
            [(data.train_x[i], data.train_y[i]) for i in parts], (data.test_x, data.test_y), epochs, 100
        )

    @classmethod
    def thousand(cls, seed: int) -> People:
        """Deal MNIST, shrunk to 7x7, to a thousand people with sixty images each."""
        data = load("mnist")
        train_x, test_x = (
            x.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49) for x in (data.train_x, data.test_x)
        )
        parts = dirichlet(data.train_y, clients=1000, examples_per_client=60, concentration=1.0, seed=seed)
        return cls([(train_x[i], data.train_y[i]) for i in parts], (test_x, data.test_y), 20, 50)

    @property
    def features(self) -> int:
        """Numbers in one example."""
        return int(self.test[0].shape[1])


def start(features: int, rng: np.random.Generator) -> Net:
    into = rng.normal(0, np.sqrt(2 / features), (HIDDEN, features))
    out = rng.normal(0, np.sqrt(1 / HIDDEN), (HIDDEN, 10))
    return np.hstack([into, np.zeros((HIDDEN, 1)), out]), np.zeros(10)


def outputs(net: Net, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    neurons, bias = net
    features = x.shape[1]
    hidden = np.maximum(x @ neurons[:, :features].T + neurons[:, features], 0)
    return hidden, hidden @ neurons[:, features + 1 :] + bias


def train(net: Net, examples: Examples, epochs: int, rng: np.random.Generator) -> Net:
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


def accuracy(net: Net, test: Examples) -> float:
    return round(float((outputs(net, test[0])[1].argmax(axis=1) == test[1]).mean()), 4)


def assigned(neurons: Neurons, means: Neurons, occupancy: NDArray[Any]) -> NDArray[Any]:
    """The slot of each neuron: near the mean of those that are in it already, or an empty one at a fixed price."""
    full = occupancy > 0.5
    distance = ((neurons[:, None, :] - means[None, :, :]) ** 2).sum(axis=2)
    price = np.where(full, distance, (neurons**2).sum(axis=1, keepdims=True))
    # A slot that many share is a better guess of where a neuron belongs.
    return linear_sum_assignment(price - 0.1 * np.log1p(np.maximum(occupancy, 0)))[1]


def placed(net: Net, slots: NDArray[Any], of: int) -> NDArray[np.float64]:
    """One client's vector: its neurons in their slots, and 1 for each slot that it fills; its output biases."""
    block = np.zeros((of, net[0].shape[1] + 1))
    block[slots, :-1], block[slots, -1] = net[0], 1
    return np.concatenate([block.ravel(), net[1]])


def slots_of(vector: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
    """The slots' rows of a client's vector or of their sum, occupancy last."""
    return vector[:-10].reshape(slots, -1)


def means_of(rows: NDArray[np.float64]) -> tuple[Neurons, NDArray[Any]]:
    """Mean and occupancy of each slot; half a client is the floor under a small or negative noised occupancy."""
    return rows[:, :-1] / np.maximum(rows[:, -1:], 0.5), rows[:, -1]


def opened(total: NDArray[np.float64], slots: int, clients: int) -> Net:
    """The matched network: slots that fewer than half a client fills are noise."""
    rows = slots_of(total, slots)
    neurons, occupancy = means_of(rows[rows[:, -1] >= 0.5])
    features = neurons.shape[1] - 11
    # What a slot adds to the output is shared by all: the clients without such a neuron add nothing.
    neurons[:, features + 1 :] *= (occupancy / clients)[:, None]
    return neurons, total[-10:] / clients


class Sum:
    """Sums of the clients' vectors, everybody's every round: plain, or clipped, noised integers, masked or not."""

    def __init__(
        self, epsilon: float | None, seed: int, *, clip: float, rounds: int, masked: bool = False
    ) -> None:
        self.epsilon, self.clip, self.rounds, self.masked = epsilon, clip, rounds, masked
        self.entropy, self.number = fedavg.RunEntropy.seeded(seed), 0
        self.spent: dict[str, Any] = {}

    def __call__(self, vectors: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """One round's sum."""
        if self.epsilon is None:
            return np.sum(vectors, axis=0)
        if not self.number:
            self._plan(len(vectors), len(vectors[0]), self.epsilon)
        self.number += 1
        found = self.plan.sum_round(
            lambda client: {"vector": vectors[client]}, clients=range(len(vectors)), number=self.number,
            model_hash=bytes(32), dropouts={}, entropy=self.entropy,
        )  # fmt: skip
        return found.sums["vector"]

    def _plan(self, clients: int, size: int, epsilon: float) -> None:
        everybody = dp.FixedOrder(clients, clients)
        privacy = dp.Privacy(readers_epsilon=epsilon, delta=DELTA, l2_clip_norm=self.clip)
        self.plan = AggregationPlan.choose(
            [dp.Block("vector", size, l2_bound=self.clip, weight=1.0)],
            cohort=clients,
            privacy=privacy,
            noise_multiplier=dp.calibrate(privacy, everybody, self.rounds),
            secure=fedavg.SecureAggregation(dropout=0.0, corruption=0.1, masked=self.masked),
        )
        spent = dp.epsilon_of(self.plan.mechanism, everybody, self.rounds, DELTA)
        self.spent = {"readers": round(spent.readers, 3), "server": round(spent.server, 3), "delta": DELTA}


def by_sums(nets: list[Net], slots: int, summed: Sum, rng: np.random.Generator) -> Net:
    """Matching where nobody sees a client's weights: rounds of sums, all clients at once."""
    width = nets[0][0].shape[1]
    own = [np.zeros(slots * (width + 1) + 10)] * len(nets)
    means, occupancy, total = rng.normal(0, 0.3, (slots, width)), np.ones(slots), own[0]
    for number in range(summed.rounds):
        mine = []
        for net, last in zip(nets, own, strict=True):
            if number:
                means, occupancy = means_of(slots_of(total - last, slots))
            mine.append(placed(net, assigned(net[0], means, occupancy), slots))
        own, total = mine, summed(mine)
    return opened(total, slots, len(nets))


def with_weights_seen(nets: list[Net], slots: int) -> Net:
    """The control: the same matching by a server that sees every client's weights, one client after the other."""
    width = nets[0][0].shape[1]
    own = [np.zeros(slots * (width + 1) + 10)] * len(nets)
    total = own[0]
    for _ in range(ROUNDS):
        for i, net in enumerate(nets):
            others = total - own[i]
            own[i] = placed(net, assigned(net[0], *means_of(slots_of(others, slots))), slots)
            total = others + own[i]
    return opened(total, slots, len(nets))


def averaged(nets: list[Net], begun: Net, summed: Sum) -> Net:
    """The mean of the weights, by a sum of what training changed."""
    changes = [np.concatenate([(net[0] - begun[0]).ravel(), net[1] - begun[1]]) for net in nets]
    mean = summed(changes) / len(nets)
    return begun[0] + mean[:-10].reshape(begun[0].shape), begun[1] + mean[-10:]


@cache
def trained(
    people: Callable[[int], People], seed: int, *, shared: bool
) -> tuple[People, Net, list[Net], float]:
    """Everybody's networks, trained alone from starts of their own or a shared one, and how good one is alone."""
    dealt, rng = people(seed), np.random.default_rng(seed)
    begun = start(dealt.features, rng)
    nets = [
        train(begun if shared else start(dealt.features, rng), examples, dealt.epochs, rng)
        for examples in dealt.clients
    ]
    return dealt, begun, nets, float(np.mean([accuracy(net, dealt.test) for net in nets[:20]]))


def run(
    way: str,
    people: Callable[[int], People],
    seed: int,
    epsilon: float | None = None,
    *,
    masked: bool = False,
) -> dict[str, Any]:
    """Train everybody alone, then make one network of all."""
    shared = way == SHARED
    dealt, begun, nets, alone = trained(people, seed, shared=shared)
    rounds = 1 if way != SUMS else ROUNDS if epsilon is None else NOISY_ROUNDS
    summed = Sum(epsilon, seed, clip=CHANGE_CLIP if shared else CLIP, rounds=rounds, masked=masked)
    if way == SEEN:
        net = with_weights_seen(nets, dealt.slots)
    elif way == SUMS:
        net = by_sums(nets, dealt.slots, summed, np.random.default_rng(seed))
    else:
        net = averaged(nets, begun if shared else (0 * begun[0], 0 * begun[1]), summed)
    return {
        "accuracy": accuracy(net, dealt.test),
        "alone": round(alone, 4),
        "neurons": len(net[0]),
        **summed.spent,
    }


MEAN, SEEN, SUMS, SHARED = (
    "mean of the weights",
    "matched, weights seen",
    "matched by sums",
    "one round of averaging from a shared start",
)
EPSILONS = (8.0, 2.0)


def trials(asked: Options) -> Iterator[Trial]:
    """Ten people as published; a thousand, because noise needs a crowd."""
    if asked.small:
        few = partial(People.ten, epochs=2)
        for way, epsilon in ((MEAN, None), (SEEN, None), (SUMS, None), (SUMS, 8.0), (SHARED, 8.0)):
            yield Trial(words("10 people", way, epsilon), 1, partial(run, way, few, 1, epsilon))
        return
    crowds: dict[str, tuple[Callable[[int], People], Iterable[int]]] = {
        "10 people": (People.ten, range(1, 11)),
        "1,000 people": (People.thousand, SEEDS),
    }
    for people, (crowd, seeds) in crowds.items():
        for seed in seeds:
            for way in (MEAN, SEEN, SUMS, SHARED):
                for epsilon in (None, *EPSILONS) if way in (SUMS, SHARED) else (None,):
                    yield Trial(words(people, way, epsilon), seed, partial(run, way, crowd, seed, epsilon))
    real = partial(run, SUMS, People.thousand, 1, EPSILONS[0], masked=True)
    yield Trial(words("1,000 people", SUMS + ", real protocol", EPSILONS[0]), 1, real)


def words(people: str, way: str, epsilon: float | None) -> str:
    return f"{people}: {way}" + ("" if epsilon is None else f", epsilon {epsilon:g}")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run what is missing and show the table."""
    asked = options(__doc__.splitlines()[0], arguments)
    return show(conduct("matching", trials(asked), asked))


if __name__ == "__main__":
    main()
