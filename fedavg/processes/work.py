"""What a client does in a round, for each kind of process: a step that returns weights and sums.

* a wrapped loop (`from_torch`, any `step(weights, data)`): as it is; the averages it reports become sums;
* a functional model: batches through a client optimizer that is made anew for every client, FedProx's pull included
  (Li et al. 2020, 1812.06127, equation 2), metrics taken before each update as the loss is;
* FedSGD: the gradient at the broadcast weights over all of a client's examples (McMahan et al. 2017, section 2).

Everything ends in `fedavg.step.run_step`, whose rules (own copy, checked form, finite numbers) hold in every case.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.adapters.adapted import AdaptedStep
from fedavg.core.types import SequenceType, StructType, TensorType, Type, to_type
from fedavg.errors import ParameterError, TreeError
from fedavg.misfits import buffers_in, written_into
from fedavg.model import EXAMPLES, Finalizer, FunctionalModel, batches_of, check_bounds, count_examples
from fedavg.processes.collecting import Work
from fedavg.pytree import Tree, TreeSpec
from fedavg.server_optimizers import ServerOptimizer
from fedavg.step import Step, run_step

__all__ = [
    "ClientOptimizer",
    "RoundWork",
    "data_type",
    "flat_work",
    "gradient_work",
    "local_work",
    "step_work",
    "weights_of",
]

ClientOptimizer = ServerOptimizer | Callable[[int], ServerOptimizer]
"""A client optimizer, or a function from the number of rounds done to one: a learning rate that falls by round."""


_UNKNOWN = TensorType("data")


@dataclass(frozen=True)
class RoundWork:
    """What clients do: `step(round)` returns weights, and sums with "num_examples".

    Args:
        weights: The nest to start from.
        step: From the number of rounds done to the step.
        bounds: Metrics, name to largest absolute value for one example.
        finalizers: What the server makes of them.
        data_type: Type of one client's data, for signatures.
    """

    weights: Tree
    step: Callable[[int], Step]
    bounds: Mapping[str, float]
    finalizers: Mapping[str, Finalizer] = field(default_factory=dict)
    data_type: Type = _UNKNOWN


def step_work(
    step: Any,
    *,
    weights: Tree | None,
    metrics: Mapping[str, float],
    examples: Callable[[Any], int] | None,
) -> RoundWork:
    """Take a loop as it is.

    Args:
        step: `step(weights, data)`; one of `from_torch` and the like brings its weights along.
        weights: The nest to start from, where the step brings none.
        metrics: Averages over its own examples that a client reports, name to bound.
        examples: Counts a client's examples; the length of the first array when None.

    Raises:
        ParameterError: no weights, or a metric without a usable bound.
    """
    start = getattr(step, "weights", None) if weights is None else weights
    if start is None:
        raise ParameterError("a plain step brings no weights; give weights= to start from")
    spec, count = TreeSpec.of(start), examples or count_examples
    if not isinstance(step, AdaptedStep) and (sentence := buffers_in(spec)):
        raise ParameterError(sentence)
    check_bounds(metrics)

    def summing(given: Tree, data: Any) -> tuple[Tree, dict[str, float]]:
        returned = step(given, data)
        trained, reported = returned if metrics else (weights_of(returned, spec), {})
        number = count(data)
        return trained, {EXAMPLES: number, **{name: reported[name] * number for name in metrics}}

    return RoundWork(start, lambda _: summing, dict(metrics))


def local_work(model: FunctionalModel, optimizer: ClientOptimizer, *, proximal: float = 0.0) -> RoundWork:
    """Train a functional model on a client's batches.

    Args:
        model: The model.
        optimizer: The client's optimizer; its state begins anew with every client.
        proximal: FedProx's mu, at least 0: how strongly a client is pulled back to the broadcast weights.
    """
    if not 0 <= proximal < np.inf:
        raise ParameterError(f"the proximal strength is {proximal}; give a finite number, at least 0")
    if not isinstance(optimizer, ServerOptimizer) and not callable(optimizer):
        raise ParameterError(
            f"the client optimizer is {optimizer!r}; give fedavg.sgd(learning_rate=...), or a function from the number"
            " of rounds done to one"
        )
    spec = TreeSpec.of(model.weights)

    def at(round_number: int) -> Step:
        chosen = optimizer if isinstance(optimizer, ServerOptimizer) else optimizer(round_number)
        if not isinstance(chosen, ServerOptimizer):
            raise ParameterError(
                f"the client optimizer of round {round_number + 1} is a {type(chosen).__name__}; give"
                " fedavg.sgd(learning_rate=...), or a function from the number of rounds done to one"
            )

        def step(given: Tree, data: Any) -> tuple[Tree, dict[str, float]]:
            start = weights = spec.flatten(given)
            state, sums = chosen.initialize(spec.size, spec.dtype), _no_sums(model)
            for batch in batches_of(data):
                tree = spec.unflatten(weights)
                _add(sums, model, tree, batch)
                slope = spec.flatten(model.loss_and_gradient(tree, batch)[1])
                if proximal:
                    slope = slope + proximal * (weights - start)
                state, weights = chosen.update(state, weights, -slope)
            return spec.unflatten(weights), sums

        return step

    return RoundWork(model.weights, at, model.bounds, model.finalizers, data_type(model))


def gradient_work(model: FunctionalModel) -> RoundWork:
    """Take the gradient at the broadcast weights: the update is its negative, averaged over a client's examples."""
    spec = TreeSpec.of(model.weights)

    def step(given: Tree, data: Any) -> tuple[Tree, dict[str, float]]:
        sums, slope = _no_sums(model), np.zeros(spec.size)
        for batch in batches_of(data):
            _add(sums, model, given, batch)
            slope += count_examples(batch) * spec.flatten(model.loss_and_gradient(given, batch)[1])
        moved = spec.flatten(given) - slope / max(sums[EXAMPLES], 1)
        return spec.unflatten(moved), sums

    return RoundWork(model.weights, lambda _: step, model.bounds, model.finalizers, data_type(model))


def weights_of(returned: Any, spec: TreeSpec) -> Tree:
    """The weights, where metrics may have come along that nobody declared: these stay on the client.

    Args:
        returned: Weights, or (weights, metrics).
        spec: Form of the weights, which may be such a pair themselves.
    """
    pair = isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping)
    return returned[0] if pair and not _fits(spec, returned) else returned


def _fits(spec: TreeSpec, tree: Tree) -> bool:
    try:
        return spec.matches(tree)
    except TreeError:
        return False


def _no_sums(model: FunctionalModel) -> dict[str, float]:
    return dict.fromkeys((EXAMPLES, *model.bounds), 0.0)


def _add(sums: dict[str, float], model: FunctionalModel, weights: Tree, batch: Any) -> None:
    for name, value in model.sums(weights, (batch if isinstance(batch, tuple) else [batch])).items():
        sums[name] += value


def data_type(model: FunctionalModel) -> Type:
    """Type of one client's data: batches, as far as the model says what is in them."""
    if model.input_spec is None:
        return SequenceType(TensorType("batch"))
    arrays = [to_type((dtype, shape)) for shape, dtype in model.input_spec]
    return SequenceType(StructType(tuple((None, array) for array in arrays)))


def flat_work(work: RoundWork, spec: TreeSpec, weights: NDArray[Any], round_number: int) -> Work:
    """One round's work as an aggregator runs it; see `fedavg.processes.collecting.Work`."""
    step, declared = work.step(round_number), dict.fromkeys((EXAMPLES, *work.bounds), 1.0)

    watching = [True]

    def watched(given: Tree, fetch: Callable[[], Any]) -> Any:
        returned = step(given, fetch())
        # Looking at the first client of a round is enough to tell, and costs nothing.
        if watching and watching.pop() and (sentence := _written(spec, given, weights)):
            warnings.warn(sentence, stacklevel=2)
        return returned

    def run(fetch: Callable[[], Any]) -> tuple[NDArray[Any], Mapping[str, float]]:
        trained = run_step(watched, spec, weights, fetch, metrics=declared)
        return trained.delta, trained.metrics

    return run


def _written(spec: TreeSpec, given: Tree, weights: NDArray[Any]) -> str | None:
    """What a step did to the weights it was given, in a sentence; whatever it was, its result counts."""
    try:
        return written_into(spec, given, weights)
    except TreeError as error:
        return f"the step changes the nest of weights that it is given ({error}); make a new one"
