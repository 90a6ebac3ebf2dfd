"""The processes by their names: each fixes what clients do and how they are weighted, nothing else.

`model_aggregator=` is where privacy plugs in. Nothing falls back to a plain sum: give `fedavg.private_sum(...)`, which
wants a promise, or say `fedavg.insecure_sum`, which makes none and tells so in every result.

Source: McMahan et al. 2017 (1602.05629), Algorithm 1, FedSGD and FedAvg; Li et al. 2020 (1812.06127), FedProx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedavg.errors import ParameterError
from fedavg.model import FunctionalModel
from fedavg.processes.collecting import Aggregator, AggregatorFactory, Content
from fedavg.processes.process import FederatedProcess
from fedavg.processes.work import ClientOptimizer, RoundWork, gradient_work, local_work, step_work
from fedavg.pytree import Tree, TreeSpec
from fedavg.server_optimizers import ServerOptimizer, sgd

__all__ = [
    "build_fed_sgd",
    "build_unweighted_fed_avg",
    "build_weighted_fed_avg",
    "build_weighted_fed_prox",
    "create",
]

_TASK = "fedavg process"


def build_weighted_fed_avg(
    model: Any,
    client_optimizer: ClientOptimizer | None = None,
    server_optimizer: ServerOptimizer | None = None,
    *,
    model_aggregator: AggregatorFactory | None = None,
    weights: Tree | None = None,
    metrics: Mapping[str, float] | None = None,
    examples: Callable[[Any], int] | None = None,
) -> FederatedProcess:
    """Federated averaging in which a client counts by its number of examples.

    Under `private_sum` the weight is bounded (`most_examples`), its sum noised in the same vector, and the denominator
    never below a public floor.

    Args:
        model: A `FunctionalModel`, or a step: `from_torch(...)`, `from_keras(...)`, any `step(weights, data)`.
        client_optimizer: For a functional model, such as `fedavg.sgd(learning_rate=0.02)`, or a function from the
            number of rounds done to one. A step brings its own.
        server_optimizer: Plain averaging by default.
        model_aggregator: `fedavg.private_sum(...)`, or `fedavg.insecure_sum`.
        weights: The nest to start from, for a step that brings none.
        metrics: For a step: the averages that a client reports over its own examples, name to bound.
        examples: For a step: counts a client's examples; the length of the first array when None.

    Returns:
        The process: `initialize()`, `next(state, data)`.

    Raises:
        ParameterError: no aggregator, or arguments that do not go together.

    >>> import numpy as np
    >>> from fedavg.insecure import insecure_sum
    >>> def step(weights, data):
    ...     return {"mean": data.mean(keepdims=True)}
    >>> process = build_weighted_fed_avg(
    ...     step, weights={"mean": np.zeros(1)}, examples=len, model_aggregator=insecure_sum
    ... )
    >>> str(process.initialize.type_signature)
    '( -> <model=<trainable=<mean=float64[1]>,non_trainable=<>>,optimizer=<>,round=int64>@SERVER)'
    >>> output = process.next(process.initialize(), [np.array([1.0]), np.array([4.0, 4.0, 4.0])])
    >>> process.get_model_weights(output.state), output.metrics["epsilon"].readers
    ({'mean': array([3.25])}, inf)
    """
    work = _work(model, client_optimizer, weights, metrics, examples)
    return _process(work, server_optimizer, model_aggregator, weighted=True)


def build_unweighted_fed_avg(
    model: Any,
    client_optimizer: ClientOptimizer | None = None,
    server_optimizer: ServerOptimizer | None = None,
    *,
    model_aggregator: AggregatorFactory | None = None,
    weights: Tree | None = None,
    metrics: Mapping[str, float] | None = None,
    examples: Callable[[Any], int] | None = None,
) -> FederatedProcess:
    """Federated averaging in which every client counts once: what differential privacy likes best.

    Arguments are `build_weighted_fed_avg`'s; under `private_sum` the divisor is the public expected number of clients.
    """
    if not isinstance(model, FunctionalModel) and not metrics:
        examples = _uncounted
    work = _work(model, client_optimizer, weights, metrics, examples)
    return _process(work, server_optimizer, model_aggregator, weighted=False)


def build_fed_sgd(
    model: FunctionalModel,
    server_optimizer: ServerOptimizer | None = None,
    *,
    model_aggregator: AggregatorFactory | None = None,
) -> FederatedProcess:
    """Federated SGD: the server steps along the clients' gradients, weighted by their examples.

    Args:
        model: A `FunctionalModel`.
        server_optimizer: `fedavg.sgd(learning_rate=0.1)` when None.
        model_aggregator: As in `build_weighted_fed_avg`; the clip bounds a client's averaged gradient.

    Raises:
        ParameterError: no aggregator, or no functional model.
    """
    if not isinstance(model, FunctionalModel):
        raise ParameterError(
            f"the model is a {type(model).__name__}; FedSGD takes gradients, so give a fedavg.FunctionalModel"
        )
    optimizer = server_optimizer or sgd(learning_rate=0.1)
    return _process(gradient_work(model), optimizer, model_aggregator, weighted=True)


def build_weighted_fed_prox(
    model: FunctionalModel,
    proximal_strength: float,
    client_optimizer: ClientOptimizer,
    server_optimizer: ServerOptimizer | None = None,
    *,
    model_aggregator: AggregatorFactory | None = None,
) -> FederatedProcess:
    """FedProx: federated averaging whose clients are pulled back to the model they were sent.

    Args:
        model: A `FunctionalModel`.
        proximal_strength: mu, at least 0; 0 is federated averaging.
        client_optimizer: As in `build_weighted_fed_avg`.
        server_optimizer: Plain averaging by default.
        model_aggregator: As in `build_weighted_fed_avg`.

    Raises:
        ParameterError: no aggregator, no functional model, or a strength out of its range.
    """
    if not isinstance(model, FunctionalModel):
        raise ParameterError(
            f"the model is a {type(model).__name__}; FedProx changes the gradient, so give a fedavg.FunctionalModel"
        )
    work = local_work(model, client_optimizer, proximal=proximal_strength)
    return _process(work, server_optimizer, model_aggregator, weighted=True)


def create(aggregator: AggregatorFactory | None, content: Content) -> Aggregator:
    """The aggregator, or a refusal to choose between private and plain by silence."""
    if aggregator is None:
        raise ParameterError(
            "no model_aggregator was given; be private with fedavg.private_sum(dp.Privacy(...), rounds=...,"
            " cohort_size=...), or say fedavg.insecure_sum for a plain sum that protects nobody"
        )
    return aggregator.create(content)


def _work(
    model: Any,
    optimizer: ClientOptimizer | None,
    weights: Tree | None,
    metrics: Mapping[str, float] | None,
    examples: Callable[[Any], int] | None,
) -> RoundWork:
    if not isinstance(model, FunctionalModel):
        if optimizer is not None:
            raise ParameterError(
                "a step trains with its own optimizer; leave client_optimizer out, or give a FunctionalModel"
            )
        return step_work(model, weights=weights, metrics=metrics or {}, examples=examples)
    if weights is not None or metrics is not None or examples is not None:
        raise ParameterError("a FunctionalModel brings weights, metrics and examples itself; leave these out")
    if optimizer is None:
        raise ParameterError(
            "a FunctionalModel is trained by the library; give client_optimizer=fedavg.sgd(learning_rate=...)"
        )
    return local_work(model, optimizer)


def _uncounted(_: Any) -> int:
    """Nobody asks for the number of examples, so a client's data need not have a length."""
    return 1


def _process(
    work: RoundWork,
    optimizer: ServerOptimizer | None,
    aggregator: AggregatorFactory | None,
    *,
    weighted: bool,
) -> FederatedProcess:
    content = Content(_TASK, TreeSpec.of(work.weights).size, weighted, work.bounds)
    return FederatedProcess(work, create(aggregator, content), optimizer or sgd(), counted=content.counted)
