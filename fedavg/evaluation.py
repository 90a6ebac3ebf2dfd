"""`build_fed_eval`: evaluate a model on clients' own data, through the same masked, noised, charged sums as training.

An accuracy over clients is computed from their data, so it costs privacy like any other release; there is no free
look. What training and evaluation cost a client together is their sum (`fedavg.spent_together`, or one shared ledger).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedavg.errors import ParameterError
from fedavg.model import EXAMPLES, Finalizer, FunctionalModel, check_bounds, count_examples
from fedavg.processes.builders import create
from fedavg.processes.collecting import AggregatorFactory, Content
from fedavg.processes.process import Rounds
from fedavg.processes.work import RoundWork, data_type
from fedavg.pytree import Tree

__all__ = ["Evaluate", "build_fed_eval", "evaluation_rounds"]

Evaluate = Callable[[Tree, Any], Mapping[str, Any]]
"""`(weights, data) -> averages over this client's examples`."""
_TASK = "fedavg evaluation"


def build_fed_eval(
    model: Any,
    *,
    model_aggregator: AggregatorFactory | None = None,
    weights: Tree | None = None,
    metrics: Mapping[str, float] | None = None,
    examples: Callable[[Any], int] | None = None,
) -> Rounds:
    """Evaluate on clients' data.

    Guarantee: under `private_sum` each round is one charged, noised release of bounded sums, whatever the model.

    Args:
        model: A `FunctionalModel` with metrics; a step that can evaluate (`from_keras`, `from_sklearn`, `from_torch`
            with `evaluate=`); or a function `(weights, data) -> {name: average over the client's examples}`.
        model_aggregator: `fedavg.private_sum(...)`, or `fedavg.insecure_sum`; its own budget, apart from training's.
        weights: The nest of arrays that will be evaluated, for a plain function.
        metrics: Averages and their largest absolute values, unless the model is functional, which declares its own.
        examples: Counts a client's examples; the length of the first array when None.

    Returns:
        A process: `initialize`, `set_model_weights(state, weights)`, `next(state, data).metrics["eval"]`.

    Raises:
        ParameterError: no aggregator, no metrics, or arguments that do not go together.

    >>> import numpy as np
    >>> from fedavg.insecure import insecure_sum
    >>> evaluation = build_fed_eval(
    ...     lambda weights, data: {"error": abs(data - weights["mean"]).mean()},
    ...     weights={"mean": np.zeros(1)}, metrics={"error": 10.0}, model_aggregator=insecure_sum,
    ... )
    >>> state = evaluation.set_model_weights(evaluation.initialize(), {"mean": np.ones(1)})
    >>> evaluation.next(state, [np.array([1.0]), np.array([2.0, 4.0, 4.0])]).metrics["eval"]
    {'error': 1.75, 'num_examples': 4.0}
    """
    if isinstance(model, FunctionalModel):
        if weights is not None or metrics is not None or examples is not None:
            raise ParameterError(
                "a FunctionalModel brings weights, metrics and examples itself; leave these out"
            )
        functional = model

        def sums(given: Tree, data: Any) -> tuple[Tree, dict[str, float]]:
            return given, functional.sums(given, data)

        work = RoundWork(model.weights, lambda _: sums, model.bounds, model.finalizers, data_type(functional))
        return _rounds(work, model_aggregator)
    start = getattr(model, "weights", None) if weights is None else weights
    if start is None:
        raise ParameterError("a plain function brings no weights; give weights= for their form")
    evaluate = getattr(model, "evaluate", model)
    if evaluate is None:
        raise ParameterError(
            "this step cannot evaluate; make it with evaluate=, or give a function (weights, data)"
        )
    return evaluation_rounds(
        evaluate, weights=start, metrics=metrics or {}, examples=examples, aggregator=model_aggregator
    )


def evaluation_rounds(
    evaluate: Evaluate,
    *,
    weights: Tree,
    metrics: Mapping[str, float],
    examples: Callable[[Any], int] | None,
    aggregator: AggregatorFactory | None,
    finalizers: Mapping[str, Finalizer] | None = None,
) -> Rounds:
    """Rounds of a function that reports averages; see `build_fed_eval`."""
    check_bounds(metrics)
    count = examples or count_examples

    def averages(given: Tree, data: Any) -> tuple[Tree, dict[str, float]]:
        number, reported = count(data), evaluate(given, data)
        return given, {EXAMPLES: number, **{name: reported[name] * number for name in metrics}}

    return _rounds(RoundWork(weights, lambda _: averages, dict(metrics), finalizers or {}), aggregator)


def _rounds(work: RoundWork, aggregator: AggregatorFactory | None) -> Rounds:
    if not work.bounds:
        raise ParameterError(
            "there is nothing to evaluate; declare metrics and their largest absolute values"
        )
    return Rounds(work, create(aggregator, Content(_TASK, bounds=work.bounds)), "eval", counted=True)
