"""A model as functions without state: first weights, loss with its gradient, predictions, metrics as *sums*.

What a functional model buys over a step: the library runs the local training itself, so the client optimizer, FedSGD,
FedProx and evaluation come for nothing, and nothing can pass from one client to the next.

Rules: every function takes the weights and changes nothing; a metric is a sum over a batch's examples, declared with
its largest absolute value *per example*, because only what has a bound can be noised; means are formed on the server,
from sums over all clients (`finalise`).

Client data is a sequence of batches; a batch is a tuple of arrays of one length. A tuple stands for one batch.
Not here: models of other ecosystems (`fedavg.adapters`), local training (`fedavg.processes.work`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from fedavg.errors import ParameterError
from fedavg.pytree import Tree, TreeSpec

__all__ = [
    "EXAMPLES",
    "Finalizer",
    "FunctionalModel",
    "batches",
    "check_bounds",
    "count_examples",
    "finalise",
]

EXAMPLES = "num_examples"
Finalizer = Callable[[Mapping[str, float]], float]
_Sums = Callable[[Tree, Any], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class FunctionalModel:
    """Pure functions over a nest of arrays.

    Args:
        weights: The nest of floating-point arrays to start from.
        loss_and_gradient: `(weights, batch) -> (mean loss, its gradient)`, the latter in the form of the weights.
        predict: `(weights, inputs) -> outputs`; for the user's own evaluation, None where there is none.
        metrics: `(weights, batch) -> {name: sum over the batch's examples}`.
        bounds: Largest absolute value of each metric *for one example*; a client's sum is cut to bound times examples.
        finalizers: What the server makes of a metric, from all sums and "num_examples"; the mean by default.
        input_spec: Shape and dtype of each array of a batch, first axis None, for type signatures only.

    Raises:
        ParameterError: a bound is no positive number, a metric takes a reserved name, or a finalizer has no metric.
        TreeError: the weights cannot be averaged.

    >>> def loss_and_gradient(weights, batch):
    ...     x, y = batch
    ...     error = x @ weights["w"] - y
    ...     return float(np.mean(error**2)), {"w": 2 * x.T @ error / len(y)}
    >>> model = FunctionalModel(weights={"w": np.zeros(2)}, loss_and_gradient=loss_and_gradient)
    >>> model.loss_and_gradient(model.weights, (np.eye(2), np.ones(2)))[0]
    1.0
    """

    weights: Tree
    loss_and_gradient: Callable[[Tree, Any], tuple[Any, Tree]]
    predict: Callable[[Tree, Any], Any] | None = None
    metrics: _Sums | None = None
    bounds: Mapping[str, float] = field(default_factory=dict)
    finalizers: Mapping[str, Finalizer] = field(default_factory=dict)
    input_spec: tuple[tuple[tuple[int | None, ...], str], ...] | None = None

    def __post_init__(self) -> None:
        TreeSpec.of(self.weights)
        check_bounds(self.bounds)
        if bool(self.bounds) != (self.metrics is not None):
            raise ParameterError(
                f"the model has {'bounds but no metrics' if self.bounds else 'metrics but no bounds'}; give"
                " metrics= and bounds= together: what has no bound cannot be noised and never leaves a client"
            )
        if odd := sorted(set(self.finalizers) - set(self.bounds)):
            raise ParameterError(
                f"finalizers for {', '.join(odd)}, which are no declared metrics; declare bounds"
            )

    def sums(self, weights: Tree, data: Any) -> dict[str, float]:
        """A client's metric sums over its batches, with "num_examples"; stays on the client until it is clipped.

        Args:
            weights: The model, in the form of `weights`.
            data: A client's batches.
        """
        total = dict.fromkeys((EXAMPLES, *self.bounds), 0.0)
        for batch in batches_of(data):
            total[EXAMPLES] += count_examples(batch)
            if self.metrics is not None:
                reported = self.metrics(weights, batch)
                for name in self.bounds:
                    total[name] += float(reported[name])
        return total


def batches(size: int, *, repeat: int = 1, shuffle: int | None = None) -> Callable[[Any], list[Any]]:
    """Make a function that cuts a client's arrays into batches: for `ClientData.map`.

    Args:
        size: Most examples in a batch, at least 1.
        repeat: How often the client's examples are gone through, at least 1; evaluation never repeats.
        shuffle: A seed for their order, anew in each pass; None leaves them in order.

    Returns:
        The function: arrays that share their first axis in, a list of batches out.

    Raises:
        ParameterError: a value is out of its range.

    >>> batches(2)((np.arange(3), np.arange(3) * 10))
    [(array([0, 1]), array([ 0, 10])), (array([2]), array([20]))]
    """
    for name, value in (("size", size), ("repeat", repeat)):
        if value < 1:
            raise ParameterError(f"batches of {name}={value}; give at least 1")

    def cut(arrays: Any) -> list[Any]:
        generator = None if shuffle is None else np.random.default_rng(shuffle)
        count = count_examples(arrays)
        made = []
        for _ in range(repeat):
            order = np.arange(count) if generator is None else generator.permutation(count)
            made += [tuple(array[order[at : at + size]] for array in arrays) for at in range(0, count, size)]
        return made

    return cut


def batches_of(data: Any) -> Iterable[Any]:
    """A client's batches: a tuple is one, anything else is gone through."""
    return (data,) if isinstance(data, tuple) else data


def count_examples(data: Any) -> int:
    """How many examples are in a batch, an array, or a sequence of batches."""
    if isinstance(data, tuple):
        return len(data[0])
    if isinstance(data, list):
        return sum(count_examples(batch) for batch in data)
    return len(data)


def check_bounds(bounds: Mapping[str, float]) -> None:
    """Refuse metrics without a usable bound."""
    for name, bound in bounds.items():
        if not (bound > 0 and isfinite(bound)):
            raise ParameterError(
                f"metric {name} has bound {bound}; give its largest absolute value for one example"
            )
        if name == EXAMPLES:
            raise ParameterError(f"{EXAMPLES} is counted by the library; give the metric another name")


def finalise(
    sums: Mapping[str, float],
    bounds: Mapping[str, float],
    finalizers: Mapping[str, Finalizer],
    *,
    floor: float,
) -> dict[str, float]:
    """Turn sums over clients into metrics, on the server; all of it is post-processing of what was released.

    Args:
        sums: Each declared metric's sum, and "num_examples"; noised, so that counts may come out small or negative.
            Empty where nothing was counted.
        bounds: The declared metrics.
        finalizers: What is made of a metric; its mean over the examples when there is none.
        floor: Public least number of examples to divide by, above 0.

    Returns:
        Each metric, a mean cut to its bound, and "num_examples".
    """
    if not sums:
        return {}
    examples = max(sums[EXAMPLES], floor)
    seen = {**sums, EXAMPLES: examples}
    metrics = {
        name: float(finalizers[name](seen))
        if name in finalizers
        else float(np.clip(sums[name] / examples, -bound, bound))
        for name, bound in bounds.items()
    }
    return {**metrics, EXAMPLES: sums[EXAMPLES]}
