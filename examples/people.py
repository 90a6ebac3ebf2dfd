"""Thirty people with a phone on the belt: what privacy of each person costs when there are so few.

Of the 30 people of HAR (walking, sitting, lying, ...), 24 train and six are held out, others for each seed. Everybody
takes part in every round, so nothing is won by sampling: the epsilons against readers and against the server are the
same. Two models: softmax regression on 18 hand-made features (114 weights), and a small network on the raw signals
(3,174 weights). Learning rates, rounds and clip were tuned on this data without paying for it.

Besides: how much noise each model stands, and so how many people it would take; a run with so many copies of the 24;
and what fine-tuning on a person's own windows adds (personal models never leave their person).

    python -m examples.people
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import dp
import fedavg
from examples.experiment import SEEDS, Options, Trial, conduct, options, show
from examples.journey import METRICS, Task, evaluated, fitted, in_the_open, privately
from fedavg.datasets import load

EPSILONS = (8.0, 2.0)
HELD_OUT, AXES, ROWS = 6, 6, 128
NOISE = (1 / 8, 1 / 16, 1 / 32)
"""Noise multiplier over number of people: the noise on the average in clips."""
LOST = 0.05
"""Accuracy that noise may cost where it is said to be stood."""
CROWD = 200
Examples = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class Kind:
    """A model: what it sees of a window, what it is, and how it is trained."""

    words: str
    see: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    build: Callable[[], torch.nn.Module]
    fit: Callable[..., None]
    central_fit: Callable[..., None]
    rounds: int
    clip: float


def features(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean, deviation and mean change of each axis, in fixed units: nothing is learnt from anybody's data."""
    jumps = np.abs(np.diff(windows, axis=1)).mean(axis=1)
    return np.hstack([windows.mean(axis=1), 2 * windows.std(axis=1), 4 * jumps]).astype(np.float32)


def signals(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(windows.transpose(0, 2, 1))


def regression() -> torch.nn.Module:
    linear = torch.nn.Linear(3 * AXES, 6)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    return linear


def network() -> torch.nn.Module:
    torch.manual_seed(0)  # Everybody starts from the same public weights.
    return torch.nn.Sequential(
        torch.nn.Conv1d(AXES, 16, 8, stride=4), torch.nn.ReLU(),
        torch.nn.Conv1d(16, 16, 4, stride=2), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(16 * 14, 6),
    )  # fmt: skip


ALL = 10**6
KINDS = (
    Kind(
        "features", features, regression, fitted(1.0, epochs=5, batch=ALL),
        fitted(1.0, epochs=200, batch=ALL), rounds=40, clip=0.3,
    ),
    Kind(
        "network", signals, network, fitted(0.1, epochs=2, batch=32),
        fitted(0.05, epochs=6, batch=32), rounds=10, clip=1.0,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class People:
    """Who trains and who is held out."""

    training: dict[int, Examples]
    held_out: dict[int, Examples]

    @classmethod
    def of(cls, kind: Kind, seed: int) -> People:
        """Hold out six people, others for each seed."""
        data = load("har")
        windows = np.concatenate([data.train_x, data.test_x]).reshape(-1, ROWS, AXES)
        labels = np.concatenate([data.train_y, data.test_y])
        whose = np.concatenate([data.groups["person"], data.test_groups["person"]])
        seen = kind.see(windows)
        everybody = np.random.default_rng(seed).permutation(np.unique(whose)).tolist()
        mine = {person: (seen[whose == person], labels[whose == person]) for person in everybody}
        return cls(
            {person: mine[person] for person in sorted(everybody[HELD_OUT:])},
            {person: mine[person] for person in sorted(everybody[:HELD_OUT])},
        )

    @property
    def test(self) -> Examples:
        """What the people who were held out have."""
        return pooled(self.held_out)

    def copies(self, people: int) -> dict[int, Examples]:
        """So many people just like these."""
        models = list(self.training.values())
        return {number: models[number % len(models)] for number in range(people)}


def pooled(people: dict[int, Examples]) -> Examples:
    return np.concatenate([x for x, _ in people.values()]), np.concatenate([y for _, y in people.values()])


def task_of(kind: Kind, people: People, rounds: int) -> Task:
    step = fedavg.from_torch(kind.build(), kind.fit, evaluate=evaluated)
    clients = fedavg.ClientData.of(
        people.training
    )  # They evaluate on what they train on: they have so little.
    return Task(
        step=step, clients=clients, held_out=clients, test=people.test, most_examples=400, rounds=rounds,
        cohort=len(people.training), clip=kind.clip,
    )  # fmt: skip


def centrally(kind: Kind, seed: int) -> dict[str, Any]:
    """The control: everybody's windows in one place, in plain torch."""
    people, module = People.of(kind, seed), kind.build()
    torch.manual_seed(seed)
    kind.central_fit(module, pooled(people.training))
    return {name: round(value, 4) for name, value in evaluated(module, people.test).items()}


def trained(kind: Kind, seed: int, rounds: int, **private: Any) -> dict[str, Any]:
    """Train, and see what fine-tuning adds for the people who were held out."""
    people = People.of(kind, seed)
    task = task_of(kind, people, rounds)
    weights, figures = privately(task, seed, **private) if private else in_the_open(task, seed)
    return figures | personalised(task, people, weights)


def personalised(task: Task, people: People, weights: Any) -> dict[str, float]:
    """Fine-tune on the first half of each held-out person's windows, evaluate on the second.

    These six are the test bench's: the sums are taken in the open.
    """
    halves = fedavg.ClientData.of(people.held_out).map(split)
    process = fedavg.build_personalisation_eval(
        task.step, {"own": task.step}, metrics=METRICS, model_aggregator=fedavg.insecure_sum
    )
    state = process.set_model_weights(process.initialize(), weights)
    seen = process.next(state, halves).metrics["eval"]
    return {
        "before_fine_tuning": round(seen["baseline/accuracy"], 4),
        "after_fine_tuning": round(seen["own/accuracy"], 4),
    }


def split(examples: Examples) -> tuple[Examples, Examples]:
    """The first half of every activity and the rest, without the window that is in both by half."""
    x, y = examples
    own, rest = [], []
    for activity in np.unique(y):
        rows = np.flatnonzero(y == activity)
        own.append(rows[: len(rows) // 2])
        rest.append(rows[len(rows) // 2 + 1 :])
    first, second = np.concatenate(own), np.concatenate(rest)
    return (x[first], y[first]), (x[second], y[second])


def needed(kind: Kind, seed: int, rounds: int, noises: tuple[float, ...]) -> dict[str, Any]:
    """How much noise the model stands, and how many people it takes for that to be each epsilon's."""
    people = People.of(kind, seed)
    task = task_of(kind, people, rounds)
    count = task.cohort
    best = in_the_open(task, seed)[1]["accuracy"]
    reached = [privately(task, seed, noise_multiplier=noise * count)[1]["accuracy"] for noise in noises]
    stood = [noise for noise, accuracy in zip(noises, reached, strict=True) if accuracy >= best - LOST]
    found: dict[str, Any] = {"accuracy": best}
    found |= {f"accuracy_at_{noise:g}": accuracy for noise, accuracy in zip(noises, reached, strict=True)}
    for epsilon in EPSILONS if stood else ():
        plan = dp.plan(
            population=count, cohort=count, rounds=rounds, delta=task.delta, readers_epsilon=epsilon
        )
        found[f"people_for_{epsilon:g}"] = int(np.ceil(plan["noise_multiplier"] / max(stood)))
    return found


def with_copies(kind: Kind, seed: int, rounds: int, count: int) -> dict[str, Any]:
    """The harder promise with copies of the 24: how it would go, were there so many people like them.

    The promise is to one copy; a real person, who is several of these, has none to speak of.
    """
    people = People.of(kind, seed)
    crowd = replace(people, training=people.copies(count))
    return {"people": count} | privately(task_of(kind, crowd, rounds), seed, readers_epsilon=EPSILONS[-1])[1]


def trials(asked: Options) -> Iterator[Trial]:
    seeds = SEEDS[:1] if asked.small else SEEDS
    for kind in KINDS[:1] if asked.small else KINDS:
        rounds, crowd = (2, 48) if asked.small else (kind.rounds, CROWD)
        noises = NOISE[-2:] if asked.small else NOISE
        settings: dict[str, Callable[[int], dict[str, Any]]] = {
            "central, plain torch": partial(centrally, kind),
            "federated, no privacy": partial(trained, kind, rounds=rounds),
            **{
                f"private, readers' epsilon {epsilon:g}": partial(
                    trained, kind, rounds=rounds, readers_epsilon=epsilon
                )
                for epsilon in EPSILONS
            },
            "people needed": partial(needed, kind, rounds=rounds, noises=noises),
        }
        for words, run in settings.items():
            for seed in seeds:
                yield Trial(f"{kind.words}: {words}", seed, partial(run, seed))
        words = f"{kind.words}: private, readers' epsilon"
        harder = partial(with_copies, kind, 1, rounds, crowd)
        yield Trial(f"{words} {EPSILONS[-1]:g} of one copy, with {crowd} copies", 1, harder)
        masks = {"readers_epsilon": EPSILONS[0], "secure": fedavg.SecureAggregation()}
        yield Trial(f"{words} {EPSILONS[0]:g}, real protocol", 1, partial(trained, kind, 1, rounds, **masks))


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    asked = options(__doc__.splitlines()[0], arguments)
    return show(conduct("people", trials(asked), asked))


if __name__ == "__main__":
    main()
