"""What the image, text and people experiments share: one task taken through one journey, in the open and privately.

A task is what a user has: a loop wrapped by an adapter, people's data, examples that are nobody's. `in_the_open` and
`privately` run the same process and differ in `model_aggregator=` alone. Then both evaluate twice: centrally, on the
examples that are nobody's, and federated, on the clients' own, which is one more charged release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import dp
import fedavg

__all__ = ["Task", "evaluated", "fitted", "in_the_open", "privately"]

EVALUATION_EPSILON = 0.5
"""Against readers, for the one federated evaluation after training, on top of what training spends."""
IDEAL = fedavg.SecureAggregation.ideal(one_draw=True)
METRICS = {"accuracy": 1.0, "loss": 5.0}
"""What `evaluated` gives, and the largest value of each that travels."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A wrapped loop, its people, and how they train together.

    Attributes:
        step: What an adapter returned: it brings first weights, and its own evaluation.
        clients: People's data, to train on.
        held_out: The same people's, to evaluate on.
        test: Examples that are nobody's.
        most_examples: From how many examples on a client counts fully in the federated evaluation.
        rounds: How many.
        cohort: Clients drawn on average.
        clip: Bound on a client's update.
        delta: Of every promise.
        server: The server's optimizer; plain averaging when None.
    """

    step: Any
    clients: fedavg.ClientData
    held_out: fedavg.ClientData
    test: Any
    most_examples: int
    rounds: int
    cohort: int
    clip: float
    delta: float = 1e-5
    server: fedavg.ServerOptimizer | None = None

    def central(self, weights: Any) -> dict[str, float]:
        """Evaluate on nobody's examples, which costs no privacy."""
        return {
            name: round(float(value), 4) for name, value in self.step.evaluate(weights, self.test).items()
        }


def in_the_open(task: Task, seed: int) -> tuple[Any, dict[str, Any]]:
    """Federated averaging without clip, noise or masks; whom to invite is the caller's to draw.

    Returns:
        The weights, and the figures.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    process = fedavg.build_unweighted_fed_avg(
        task.step, server_optimizer=task.server, model_aggregator=fedavg.insecure_sum
    )
    state = process.initialize()
    for _ in range(task.rounds):
        chosen = rng.choice(len(task.clients), task.cohort, replace=False)
        invited = [task.clients.for_client(task.clients.client_ids[place]) for place in chosen]
        state = process.next(state, invited).state
    weights = process.get_model_weights(state)
    return weights, task.central(weights) | by_clients(evaluation(task, fedavg.insecure_sum), weights, task)


def privately(
    task: Task, seed: int, *, secure: fedavg.SecureAggregation = IDEAL, **target: float
) -> tuple[Any, dict[str, Any]]:
    """The same under a promise: the library charges, draws a padded Poisson cohort, clips, noises and sums.

    Args:
        task: What to train.
        seed: Of a simulation without guarantee; the figures are those of a run without a seed.
        secure: `SecureAggregation()` for real masks.
        target: `readers_epsilon` or `noise_multiplier`, as `dp.Privacy` takes them.

    Returns:
        The weights, and the figures: both epsilons of training, and `total` of training and evaluation together.
    """
    torch.manual_seed(seed)

    def summed(privacy: dp.Privacy, rounds: int, seed: int) -> Any:
        return fedavg.private_sum(
            privacy, rounds=rounds, cohort_size=task.cohort, population=len(task.clients),
            most_examples=task.most_examples, secure=secure, entropy=fedavg.RunEntropy.seeded(seed),
        )  # fmt: skip

    promise = dp.Privacy(**target, delta=task.delta, l2_clip_norm=task.clip)  # type: ignore[arg-type]
    process = fedavg.build_unweighted_fed_avg(
        task.step, server_optimizer=task.server, model_aggregator=summed(promise, task.rounds, seed)
    )
    state, out = process.initialize(), None
    for _ in range(task.rounds):
        out = process.next(state, task.clients)
        state = out.state
    weights = process.get_model_weights(state)
    look = dp.Privacy(readers_epsilon=EVALUATION_EPSILON, delta=task.delta, l2_clip_norm=1.0)
    looking = evaluation(task, summed(look, 1, 1000 + seed))
    figures = task.central(weights) | by_clients(looking, weights, task)
    total, total_delta = fedavg.spent_together(process, looking)
    last = {} if out is None else out.metrics
    return weights, figures | {
        "readers": round(last["epsilon"].readers, 3),
        "server": round(last["epsilon"].server, 3),
        "delta": task.delta,
        "total_readers": round(total.readers, 3),
        "total_server": round(total.server, 3),
        "total_delta": total_delta,
        "cohort": last["cohort"],
        "bytes_up_per_client": last["bytes_up_per_client"],
    }


def evaluation(task: Task, aggregator: Any) -> Any:
    """The federated evaluation of a task."""
    return fedavg.build_fed_eval(task.step, metrics=METRICS, model_aggregator=aggregator)


def by_clients(process: Any, weights: Any, task: Task) -> dict[str, float]:
    """What the clients make of a model, in one round."""
    state = process.set_model_weights(process.initialize(), weights)
    seen = process.next(state, task.held_out).metrics["eval"]
    return {f"federated_{name}": round(seen[name], 4) for name in METRICS}


def fitted(
    learning_rate: float, *, epochs: int, batch: int, momentum: float = 0.0, most: int | None = None
) -> Callable[..., None]:
    """A plain torch training loop, over `most` examples at random where there are more."""

    def fit(module: torch.nn.Module, data: Any) -> None:
        x, y = map(torch.from_numpy, data)
        module.train()
        optimizer = torch.optim.SGD(module.parameters(), lr=learning_rate, momentum=momentum)
        for _ in range(epochs):
            for rows in torch.randperm(len(y))[:most].split(batch):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
                optimizer.step()

    return fit


def evaluated(module: torch.nn.Module, data: Any) -> dict[str, float]:
    """Averages over some examples, in plain torch."""
    x, y = map(torch.from_numpy, data)
    with torch.inference_mode():
        logits = module(x)
    return {
        "accuracy": (logits.argmax(dim=1) == y).float().mean().item(),
        "loss": torch.nn.functional.cross_entropy(logits, y).item(),
    }
