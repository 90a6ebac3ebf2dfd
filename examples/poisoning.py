"""One client in ten lies: what masks, clips, noise and groups do about model poisoning, and what they do not.

The attacker wants twenty test images of ankle boots taken for sandals while overall accuracy stays (Bhagoji et al.
2019). *Explicit boosting* sends ten times the change that would do it; *alternating minimisation* takes turns between
that goal and looking like an honest update. Masks hide single updates from the server, so nothing that looks at them
can help; and a clip that each client applies by itself is applied by everybody but the attacker.

"Clipping enforced" stands for a proof of the norm that the server checks under the mask, which this library does not
have: the rows say what it would be worth. All ten take part in every round.

Every epsilon is an honest client's, against readers and server, the liar on their side: one of ten colludes. The liar
knows its own noise share and, where its own code clips, adds none while it attacks; so its share is never counted, and
the others' shares alone are z. In a group of two that is one share. The liar itself, unclipped, has no promise.

Rounds, learning rate, epochs and clip were chosen by looking at this data, test accuracy included, without paying.

    python -m examples.poisoning
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dp
import fedavg
import secagg
from examples.experiment import SEEDS, Options, Trial, conduct, options, show
from fedavg.aggregation import AggregationPlan
from fedavg.cli.softmax import SoftmaxRegression
from fedavg.datasets import load

CLIENTS, BOOST, CLIP, VICTIMS = 10, 10.0, 0.5, 20
DELTA, QUIET, LOUD = 1e-5, 0.02, (1.0, 4.6)
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


@cache
def plan(size: int, members: int, noise_multiplier: float) -> AggregationPlan:
    """Secure sums of so many clients: clip, integers, noise shares."""
    privacy = dp.Privacy(noise_multiplier=noise_multiplier, delta=DELTA, l2_clip_norm=CLIP)
    return AggregationPlan.choose(
        [dp.Block("update", size, l2_bound=CLIP, weight=1.0)],
        cohort=members,
        privacy=privacy,
        noise_multiplier=noise_multiplier,
        # The liar's noise may be missing, and it knows it: the shares of the others are enough.
        secure=fedavg.SecureAggregation(dropout=0.0, corruption=1 / members, graph="complete"),
    )


class SecureSums:
    """Sums under masks. A liar who skips clip and noise hands its own integers to the same masks: nobody can tell.

    Args:
        noise: z of every sum, by the noise shares of all but the liar.
        masked: Whether the protocol is run, or its integers summed as they are.
        seed: Everything repeats.
    """

    def __init__(self, noise: float, *, masked: bool, seed: int) -> None:
        self.noise, self.masked = noise, masked
        self.entropy, self.number = fedavg.RunEntropy.seeded(seed), 0

    def __call__(self, vectors: dict[int, Vector], *, unbound: bool) -> Vector:
        """The sum over some clients, noised; client 0 neither clips nor adds noise where it is `unbound`."""
        settled = plan(len(vectors[min(vectors)]), len(vectors), self.noise)
        self.number += 1

        def sent(client: int) -> NDArray[Any]:
            keystream = self.entropy.keystream("noise", self.number, client)
            ring = np.uint64((1 << settled.modulus_bits) - 1)
            if client == 0 and unbound:
                integers = np.rint(vectors[client] * settled.encoding.scale("update")).astype(np.int64)
                return integers.view(np.uint64) & ring
            return settled.encode({"update": vectors[client]}, keystream)

        if self.masked:
            parameters = settled.protocol(self.number, bytes(32))
            entropy = self.entropy.protocol("round", self.number)
            result = secagg.run_round(
                parameters, list(vectors), lambda c: {"values": sent(c)}, entropy=entropy
            )
            return settled.open(result.totals["values"], len(vectors)).sums["update"]
        total = np.sum([sent(client).astype(np.uint64) for client in vectors], axis=0)
        return settled.open(total & np.uint64((1 << settled.modulus_bits) - 1), len(vectors)).sums["update"]


@dataclass(frozen=True)
class Defence:
    """What stands between the clients' vectors and the model.

    Attributes:
        words: In the table.
        noise: z of every secure sum; None for a plain mean that the server computes with every update in sight.
        liar_clips: Whether the clip is enforced.
        groups: "all" for one sum, else how five sums of two clients each become one: "median" or "trimmed mean".
    """

    words: str
    noise: float | None = QUIET
    liar_clips: bool = False
    groups: str = "all"

    def combine(
        self, vectors: list[Vector], sums: SecureSums, dice: np.random.Generator, *, attacked: bool
    ) -> Vector:
        """The server's step."""
        if self.noise is None:
            return np.mean(vectors, axis=0)

        def summed(members: list[int]) -> Vector:
            return sums({i: vectors[i] for i in members}, unbound=attacked and not self.liar_clips)

        if self.groups == "all":
            return summed(list(range(CLIENTS))) / CLIENTS
        pairs = np.sort(dice.permutation(CLIENTS).reshape(5, 2), axis=1)
        ranked = np.sort([summed(pair.tolist()) / 2 for pair in pairs], axis=0)
        return ranked[2] if self.groups == "median" else ranked[1:-1].mean(axis=0)

    def promise(self, size: int, rounds: int) -> dict[str, float]:
        """An honest client's epsilon, the liar's noise not counted; all are in every round: readers' is server's."""
        if self.noise is None:
            return {}
        members = CLIENTS if self.groups == "all" else 2
        everybody = dp.FixedOrder(members, members)
        spent = dp.epsilon_of(plan(size, members, self.noise).mechanism, everybody, rounds, DELTA)
        return {"readers": round(spent.readers, 2), "server": round(spent.server, 2), "delta": DELTA}


DEFENCES = (
    Defence("no defence: plain mean", noise=None),
    Defence("masks, each client's own code clips"),
    Defence("masks, clipping enforced", liar_clips=True),
    *(Defence(f"masks, clipping enforced, noise z = {z:g}", noise=z, liar_clips=True) for z in LOUD),
    *(Defence(f"masks, each client's own code clips, noise z = {z:g}", noise=z) for z in LOUD),
    *(Defence(f"groups of two, {kind}", groups=kind) for kind in ("trimmed mean", "median")),
    *(
        Defence(f"groups of two, {kind}, noise z = 1", noise=1.0, groups=kind)
        for kind in ("trimmed mean", "median")
    ),
)


def run(defence: Defence, attack: str, task: Task, seed: int, *, masked: bool = False) -> dict[str, Any]:
    """Train, the first client lying from the second half on; the mean of the last quarter of the rounds counts."""
    weights: Any = task.model.initial()
    rng = np.random.default_rng(seed)
    sums = SecureSums(defence.noise or 0.0, masked=masked, seed=seed)
    success = []
    for number in range(task.rounds):
        vectors = [task.honest(weights, client) for client in range(CLIENTS)]
        attacked = attack != NOBODY and number >= task.rounds // 2
        if attacked:
            vectors[0] = task.boosted(weights) if attack == BOOSTED else task.stealthy(weights)
        step = defence.combine(vectors, sums, rng, attacked=attacked)
        weights = unflat(flat(weights) + step, weights)
        success.append(task.success(weights))
    last = success[-max(1, task.rounds // 4) :]
    return {
        "attack_success": round(float(np.mean(last)), 4),
        "accuracy": round(task.model.accuracy(weights, task.test), 4),
        **defence.promise(step.size, task.rounds),
    }


NOBODY, BOOSTED, STEALTHY = ATTACKS = "nobody lies", "explicit boosting", "alternating minimisation"


def trials(asked: Options) -> Iterator[Trial]:
    """Every defence against every attack; one seed of the boosted attack under real masks."""
    dataset, rounds, each = ("digits", 4, 60) if asked.small else ("fashion-mnist", 40, 600)
    tasks = {seed: Task.of(dataset, rounds=rounds, seed=seed, each=each) for seed in SEEDS}
    for attack in ATTACKS:
        for defence in DEFENCES:
            for seed in SEEDS[:1] if asked.small else SEEDS:
                words = f"{attack}; {defence.words}"
                yield Trial(words, seed, partial(run, defence, attack, tasks[seed], seed))
    for defence in DEFENCES[1:3]:
        words = f"{BOOSTED}; {defence.words}, real protocol"
        yield Trial(words, 1, partial(run, defence, BOOSTED, tasks[1], 1, masked=True))


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run what is missing and show the table."""
    asked = options(__doc__.splitlines()[0], arguments)
    return show(conduct("poisoning", trials(asked), asked))


if __name__ == "__main__":
    main()
