"""One client in ten lies: what masks, clips, noise and groups do about model poisoning, and what they do not.

The attacker wants twenty test images of ankle boots taken for sandals while overall accuracy stays (Bhagoji et al.
2019). *Explicit boosting* sends ten times the change that would do it; *alternating minimisation* takes turns between
that goal and looking like an honest update. Masks hide single updates from the server, so nothing that looks at them
can help.

    python -m examples.poisoning
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dp
import fedavg
from examples.experiment import SEEDS, Options, Trial, conduct, options
from fedavg.aggregation import AggregationPlan
from fedavg.cli.softmax import SoftmaxRegression
from fedavg.datasets import load

CLIENTS, BOOST, CLIP, VICTIMS, QUIET = 10, 10.0, 0.5, 20, 0.02
BOOT, SANDAL = 9, 5
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """Clients' examples, the images under attack, and the test set."""

    model: SoftmaxRegression
    clients: list[Any]
    victims: NDArray[Any]
    test: tuple[NDArray[Any], NDArray[Any]]
    rounds: int

    @classmethod
    def of(cls, dataset: str, *, rounds: int, seed: int, each: int) -> Task:
        """Deal a data set's examples to the ten clients at random."""
        data = load(dataset)
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(data.train_y))[: CLIENTS * each].reshape(CLIENTS, each)
        clients = [(data.train_x[rows], data.train_y[rows]) for rows in chosen]
        boots = np.flatnonzero(data.test_y == BOOT)
        model = SoftmaxRegression(features=data.features, classes=10, local_epochs=5, learning_rate=0.3)
        return cls(
            model, clients, data.test_x[rng.permutation(boots)[:VICTIMS]], (data.test_x, data.test_y), rounds
        )

    def honest(self, weights: Any, client: int) -> Vector:
        """The change an honest client trains."""
        return flat(self.model.step(weights, self.clients[client])[0]) - flat(weights)

    def boosted(self, weights: Any) -> Vector:
        """The attacker's: what turns its victims into sandals, ten times over."""
        goal = self.model.step(weights, (self.victims, np.full(len(self.victims), SANDAL)))[0]
        return BOOST * (flat(goal) - flat(weights))

    def stealthy(self, weights: Any) -> Vector:
        """The attacker's: turns between its goal, boosted, and its own honest data; kept near an honest change."""
        here, start = weights, flat(weights)
        near = self.honest(weights, 0)
        for _ in range(3):
            goal = self.model.step(here, (self.victims, np.full(len(self.victims), SANDAL)))[0]
            moved = flat(here) + BOOST * (flat(goal) - flat(here))
            here = self.model.step(unflat(moved, weights), self.clients[0])[0]
        change = flat(here) - start
        return near + (change - near) * 0.9

    def success(self, weights: Any) -> float:
        """Share of the victims taken for sandals."""
        return self.model.accuracy(weights, (self.victims, np.full(len(self.victims), SANDAL)))


def flat(weights: Any) -> Vector:
    return np.concatenate([weights[name].ravel() for name in sorted(weights)]).astype(np.float64)


def unflat(vector: Vector, like: Any) -> Any:
    """The nest again, in the order of `flat`."""
    found, start = {}, 0
    for name in sorted(like):
        found[name] = vector[start : start + like[name].size].reshape(like[name].shape).astype(np.float32)
        start += like[name].size
    return found


def plan(size: int, members: int, noise_multiplier: float) -> AggregationPlan:
    """Secure sums of so many clients: enforced clip, integers, noise shares."""
    privacy = dp.Privacy(noise_multiplier=noise_multiplier, delta=1e-5, l2_clip_norm=CLIP)
    return AggregationPlan.choose(
        [dp.Block("update", size, l2_bound=CLIP, weight=1.0)], cohort=members, privacy=privacy,
        noise_multiplier=noise_multiplier, secure=fedavg.SecureAggregation.ideal(dropout=0.0, corruption=0.0),
    )  # fmt: skip


def secure_sum(
    vectors: list[Vector], settled: AggregationPlan, dice: np.random.Generator, *, attacker_clips: bool
) -> Vector:
    """The sum under masks. A liar who skips the clip hands its own integers to the same masks: nobody can tell."""
    total = np.zeros(settled.encoding.dimension, np.uint64)
    for client, vector in enumerate(vectors):
        keystream = dp.Keystream.seeded(dice.bytes(32))  # A simulation: it repeats.
        if client == 0 and not attacker_clips:
            integers = np.rint(vector * settled.encoding.scale("update")).astype(np.int64)
            total += integers.view(np.uint64)
        else:
            total += settled.encode({"update": vector}, keystream).astype(np.uint64)
    total &= np.uint64((1 << settled.modulus_bits) - 1)
    return settled.open(total, len(vectors)).sums["update"]


def mean_of_all(
    vectors: list[Vector], dice: np.random.Generator, noise: float | None, *, attacker_clips: bool = False
) -> Vector:
    if noise is None:
        return np.mean(vectors, axis=0)
    settled = plan(len(vectors[0]), CLIENTS, noise)
    return secure_sum(vectors, settled, dice, attacker_clips=attacker_clips) / CLIENTS


def across_groups(vectors: list[Vector], dice: np.random.Generator, noise: float, *, median: bool) -> Vector:
    """Five secure sums of two clients each; the median, or the mean without the two ends. The liar does not clip."""
    settled = plan(len(vectors[0]), 2, noise)
    sums = [
        secure_sum([vectors[i] for i in pair], settled, dice, attacker_clips=0 not in pair) / 2
        for pair in np.sort(dice.permutation(CLIENTS).reshape(5, 2), axis=1)
    ]
    ranked = np.sort(sums, axis=0)
    return ranked[2] if median else ranked[1:-1].mean(axis=0)


Defence = Callable[[list[Vector], np.random.Generator], Vector]
DEFENCES: dict[str, Defence] = {
    "no defence: plain mean": partial(mean_of_all, noise=None),
    "masks, each client's own code clips": partial(mean_of_all, noise=QUIET),
    "masks, clipping enforced": partial(mean_of_all, noise=QUIET, attacker_clips=True),
    "masks, clipping enforced, noise z = 1": partial(mean_of_all, noise=1.0, attacker_clips=True),
    "groups of two, trimmed mean": partial(across_groups, noise=QUIET, median=False),
    "groups of two, median": partial(across_groups, noise=QUIET, median=True),
}


def run(defence: str, attack: str, task: Task, seed: int) -> dict[str, Any]:
    """Train, the first client lying from the second half on; the worst of the last rounds counts."""
    weights: Any = task.model.initial()
    rng = np.random.default_rng(seed)
    success = []
    for number in range(task.rounds):
        vectors = [task.honest(weights, client) for client in range(CLIENTS)]
        if attack != "nobody lies" and number >= task.rounds // 2:
            vectors[0] = task.boosted(weights) if attack == "explicit boosting" else task.stealthy(weights)
        step = DEFENCES[defence](vectors, rng)
        weights = unflat(flat(weights) + step, weights)
        success.append(task.success(weights))
    last = success[-max(1, task.rounds // 4) :]
    return {
        "attack_success": float(np.mean(last)),
        "accuracy": round(task.model.accuracy(weights, task.test), 4),
    }


def trials(asked: Options) -> Iterator[Trial]:
    dataset, rounds, each = ("digits", 4, 60) if asked.small else ("fashion-mnist", 40, 600)
    for seed in SEEDS[:1] if asked.small else SEEDS:
        task = Task.of(dataset, rounds=rounds, seed=seed, each=each)
        for attack in ("nobody lies", "explicit boosting", "alternating minimisation"):
            for defence in DEFENCES:
                yield Trial(f"{attack}; {defence}", seed, partial(run, defence, attack, task, seed))


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    asked = options(__doc__.splitlines()[0], arguments)
    return conduct("poisoning", trials(asked), asked)


if __name__ == "__main__":
    main()
