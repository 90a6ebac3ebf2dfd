"""Shakespeare's roles fine-tune a model of speeches to plays: next characters, over masks and noise.

The clients are the 644 roles that say 1,000 characters or more. The model (an embedding, a GRU of width 64 and an
output layer: 21,000 weights) starts from weights trained on State of the Union addresses, which are public. Each role
trains on the first four fifths of what it says; the rest is its own test set, for the federated evaluation. Nobody's
examples are what the 761 roles say that are too short to be clients.

With 644 people delta is 1e-4. Learning rates, rounds, cohort and clip were tuned on this data without paying for it.

    python -m examples.text
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import fedavg
from examples.experiment import SEEDS, Options, Trial, conduct, options, show
from examples.journey import Task, evaluated, fitted, in_the_open, privately
from examples.text_model import Characters, sampled, start, windows
from fedavg.datasets.shakespeare import load_shakespeare

LEAST, LENGTH, WINDOWS = 1000, 50, 40
EPSILONS, DELTA = (8.0, 2.0), 1e-4
PROMPT = "What say you, my lord?\n"
Examples = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Roles:
    """What each role trains on and is tested on, and what the small roles say."""

    training: Mapping[str, Examples]
    held_out: Mapping[str, Examples]
    test: Examples

    @classmethod
    def of(cls, clients: int | None) -> Roles:
        """Read the plays; for a small run, only so many roles."""
        said = load_shakespeare(minimum_characters=0).users
        large = [role for role, speeches in said.items() if sum(map(len, speeches)) >= LEAST]
        cut = {role: windows(said[role], LENGTH) for role in large[:clients]}
        return cls(
            {role: (x[: len(x) * 4 // 5], y[: len(x) * 4 // 5]) for role, (x, y) in cut.items()},
            {role: (x[len(x) * 4 // 5 :], y[len(x) * 4 // 5 :]) for role, (x, y) in cut.items()},
            windows((speech for role in said.keys() - set(large) for speech in said[role]), LENGTH),
        )


LOCAL = {"batch": 20, "most": WINDOWS}


def task_of(roles: Roles, rounds: int, cohort: int) -> Task:
    """Each drawn role takes two steps on 40 of its windows; the server's momentum carries on over the rounds."""
    return Task(
        step=fedavg.from_torch(start(), fitted(1.0, epochs=1, **LOCAL), evaluate=evaluated),
        clients=fedavg.ClientData.of(roles.training), held_out=fedavg.ClientData.of(roles.held_out), test=roles.test,
        most_examples=WINDOWS, rounds=rounds, cohort=cohort, clip=0.6, delta=DELTA, server=fedavg.sgd(momentum=0.8),
    )  # fmt: skip


def figures(module: Characters, seen: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Losses as perplexities, which is how a next-character model is judged, and what the model writes."""
    shown = {name: value for name, value in seen.items() if "loss" not in name}
    perplexities = {
        name.replace("loss", "perplexity"): round(float(np.exp(value)), 3)
        for name, value in seen.items()
        if "loss" in name
    }
    return perplexities | shown | {"text": sampled(module, PROMPT, length=200, seed=seed)}


def before(roles: Roles, task: Task, seed: int) -> dict[str, Any]:
    """The start, as it comes from the speeches."""
    return figures(start(), task.central(task.step.weights), seed)


def centrally(roles: Roles, task: Task, seed: int) -> dict[str, Any]:
    """The control: plain torch on everything that all roles say, in as many steps as it takes to go through it once."""
    torch.manual_seed(seed)
    module = start()
    said = roles.training.values()
    fitted(1.0, epochs=1, batch=64)(
        module, (np.concatenate([x for x, _ in said]), np.concatenate([y for _, y in said]))
    )
    return figures(module, evaluated(module, roles.test), seed)


def federated(roles: Roles, task: Task, seed: int, **private: Any) -> dict[str, Any]:
    weights, seen = privately(task, seed, **private) if private else in_the_open(task, seed)
    module = Characters()
    module.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return figures(module, seen, seed)


def trials(asked: Options) -> Iterator[Trial]:
    roles = Roles.of(30 if asked.small else None)
    task = task_of(roles, 2, 10) if asked.small else task_of(roles, 12, 200)
    settings: dict[str, Callable[..., dict[str, Any]]] = {
        "start, trained on speeches": before,
        "central, plain torch": centrally,
        "federated, no privacy": federated,
        **{
            f"private, readers' epsilon {epsilon:g}": partial(federated, readers_epsilon=epsilon)
            for epsilon in EPSILONS
        },
    }
    for words, run in settings.items():
        for seed in SEEDS[:1] if asked.small else SEEDS:
            yield Trial(words, seed, partial(run, roles, task, seed))
    masks = {"readers_epsilon": EPSILONS[0], "secure": fedavg.SecureAggregation()}
    real = partial(federated, roles, task, 1, **masks)
    yield Trial(f"private, readers' epsilon {EPSILONS[0]:g}, real protocol", 1, real)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    asked = options(__doc__.splitlines()[0], arguments)
    return show(conduct("text", trials(asked), asked))


if __name__ == "__main__":
    main()
