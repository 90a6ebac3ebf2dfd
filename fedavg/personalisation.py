"""How much a model gains from a little training on each client's own data: fine-tune locally, report private sums.

Every client evaluates the broadcast model on its held-out examples, fine-tunes a copy by each strategy on its others,
and evaluates that. Only the sums of these bounded metrics leave it, in one noised vector; personal models never do.

Source: Wang et al. 2019 (1910.10252), section 2 (evaluating personalisation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedavg.errors import ParameterError
from fedavg.evaluation import Evaluate, evaluation_rounds
from fedavg.model import EXAMPLES, Finalizer, FunctionalModel, count_examples
from fedavg.processes.collecting import AggregatorFactory
from fedavg.processes.process import Rounds
from fedavg.processes.work import ClientOptimizer, local_work, weights_of
from fedavg.pytree import Tree, TreeSpec
from fedavg.step import Step

__all__ = ["BASELINE", "build_personalisation_eval", "fine_tune"]

BASELINE = "baseline"


def build_personalisation_eval(
    model: Any,
    strategies: Mapping[str, Step],
    *,
    model_aggregator: AggregatorFactory | None = None,
    weights: Tree | None = None,
    metrics: Mapping[str, float] | None = None,
    examples: Callable[[Any], int] | None = None,
) -> Rounds:
    """Evaluate a model before and after fine-tuning on each client.

    Guarantee: as `build_fed_eval`: one charged and noised release of bounded sums a round.

    Args:
        model: As in `build_fed_eval`.
        strategies: Name to step, `step(weights, data) -> weights`: a wrapped loop, or `fine_tune(model, optimizer)`.
        model_aggregator: As in `build_fed_eval`.
        weights: As in `build_fed_eval`.
        metrics: As in `build_fed_eval`.
        examples: Counts a client's held-out examples.

    Returns:
        A process whose clients' data are pairs (examples to fine-tune on, examples held out), and whose metrics are
        named "baseline/accuracy", "STRATEGY/accuracy" and so on.

    Raises:
        ParameterError: no strategy, one called "baseline" or with a slash in its name, no aggregator, or no metrics.
    """
    if not strategies or BASELINE in strategies or any("/" in name for name in strategies):
        raise ParameterError(
            f"the strategies are {sorted(strategies)}; give at least one, none called {BASELINE} or with a / in its"
            " name, which parts it from the metric's"
        )
    evaluate, start, bounds = _evaluation(model, weights, metrics)
    spec, count = TreeSpec.of(start), examples or count_examples

    def compared(given: Tree, data: Any) -> dict[str, Any]:
        own, held_out = data
        broadcast = spec.flatten(given)
        results = {BASELINE: evaluate(given, held_out)}
        for name, step in strategies.items():
            # A copy for each: a strategy that trains in place must not hand its model to the next one.
            trained = weights_of(step(spec.unflatten(broadcast), own), spec)
            results[name] = evaluate(trained, held_out)
        return {f"{name}/{metric}": result[metric] for name, result in results.items() for metric in bounds}

    return evaluation_rounds(
        compared,
        weights=start,
        metrics={
            f"{name}/{metric}": bound for name in (BASELINE, *strategies) for metric, bound in bounds.items()
        },
        examples=lambda data: count(data[1]),
        aggregator=model_aggregator,
        finalizers={
            f"{name}/{metric}": _renamed(finalizer, name, tuple(bounds))
            for name in (BASELINE, *strategies)
            for metric, finalizer in _finalizers(model).items()
        },
    )


def fine_tune(model: FunctionalModel, optimizer: ClientOptimizer, *, epochs: int = 1) -> Step:
    """Fine-tune a functional model: so many passes over a client's batches.

    Args:
        model: The model.
        optimizer: As `build_weighted_fed_avg`'s client optimizer; anew in each pass.
        epochs: Passes, at least 1.

    Returns:
        A step that trains on a client's own data and sends nothing.

    Raises:
        ParameterError: fewer than one epoch.
    """
    if epochs < 1:
        raise ParameterError(f"fine-tuning for {epochs} epochs; give at least 1")
    step = local_work(model, optimizer).step(0)

    def run(weights: Tree, data: Any) -> Tree:
        for _ in range(epochs):
            weights = step(weights, data)[0]
        return weights

    return run


def _finalizers(model: Any) -> Mapping[str, Finalizer]:
    return model.finalizers if isinstance(model, FunctionalModel) else {}


def _renamed(finalizer: Finalizer, name: str, metrics: tuple[str, ...]) -> Finalizer:
    """The finalizer of one strategy, shown that strategy's sums by the names the model gave them."""
    return lambda sums: finalizer(
        {EXAMPLES: sums[EXAMPLES], **{metric: sums[f"{name}/{metric}"] for metric in metrics}}
    )


def _evaluation(
    model: Any, weights: Tree | None, metrics: Mapping[str, float] | None
) -> tuple[Evaluate, Tree, Mapping[str, float]]:
    """How to evaluate, the form of the weights, and the metrics with their bounds."""
    if isinstance(model, FunctionalModel):
        functional = model

        def averages(given: Tree, data: Any) -> dict[str, float]:
            sums = functional.sums(given, data)
            return {name: sums[name] / max(sums[EXAMPLES], 1.0) for name in functional.bounds}

        return averages, model.weights, model.bounds
    start = getattr(model, "weights", None) if weights is None else weights
    evaluate = getattr(model, "evaluate", model)
    if start is None or evaluate is None:
        raise ParameterError(
            "personalisation needs weights and a way to evaluate them; give weights= and a function (weights, data)"
        )
    return evaluate, start, metrics or {}
