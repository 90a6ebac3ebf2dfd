"""`from_keras`: a compiled Keras model and the call that trains it, as a step.

Works with Keras 3 (any backend) and Keras 2.15. The one model is reused for every client in this process; before each
client its weights and its *optimizer's* variables are set back, because a compiled model carries momentum and the step
count of the schedule from one `fit` to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.adapters.adapted import AdaptedStep, Buffers, Metrics, check_buffers

__all__ = ["from_keras"]


def from_keras(model: Any, fit: Callable[[Any, Any], Any], *, buffers: Buffers = "refuse") -> AdaptedStep:
    """Wrap a Keras training loop.

    Args:
        model: A built and compiled model; its weights now are the ones to start from.
        fit: Your call, `fit(model, data)`, such as `lambda model, data: model.fit(*data, epochs=1, verbose=0)`. It may
            return metrics, or the `History` that `model.fit` returns, whose last values are then the metrics.
        buffers: What becomes of batch-norm statistics and other non-trainable variables: "refuse", "keep", "average".

    Returns:
        A step; `step.weights` are the initial weights, by position and name.

    Raises:
        ParameterError: the model has non-trainable variables and `buffers` is "refuse".
    """
    trainable, held = _named(model.trainable_variables), _named(model.non_trainable_variables)
    check_buffers(buffers, list(held))
    floats = {name: value for name, value in held.items() if _array(value).dtype.kind == "f"}
    travelling = {**trainable, **(floats if buffers == "average" else {})}
    initial = [(variable, _array(variable)) for variable in (*trainable.values(), *held.values())]
    optimizer = _optimizer_variables(model)

    def run(weights: Mapping[str, NDArray[Any]], data: Any) -> tuple[Mapping[str, NDArray[Any]], Metrics]:
        for variable, value in (*initial, *optimizer):
            variable.assign(value)
        for name, variable in travelling.items():
            variable.assign(weights[name])
        metrics = _metrics(fit(model, data))
        return {name: _array(variable) for name, variable in travelling.items()}, metrics

    return AdaptedStep({name: _array(variable) for name, variable in travelling.items()}, run)


def _named(variables: Any) -> dict[str, Any]:
    """Variables by position and name: names alone repeat in Keras."""
    return {
        f"{position:04d} {getattr(variable, 'path', variable.name).replace('/', '.')}": variable
        for position, variable in enumerate(variables)
    }


def _optimizer_variables(model: Any) -> list[tuple[Any, NDArray[Any]]]:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return []
    optimizer.build(model.trainable_variables)
    variables = optimizer.variables
    return [(variable, _array(variable)) for variable in (variables() if callable(variables) else variables)]


def _metrics(returned: Any) -> Metrics:
    if (history := getattr(returned, "history", None)) is not None:
        return {name: values[-1] for name, values in history.items()}
    return returned if isinstance(returned, Mapping) else None


def _array(variable: Any) -> NDArray[Any]:
    """A copy of a variable's value, of whichever backend."""
    inner = getattr(variable, "value", None)
    value = variable if inner is None or callable(inner) else inner  # In Keras 2 `value` is a method.
    value = value.detach().cpu() if hasattr(value, "detach") else value
    return np.array(value.numpy() if hasattr(value, "numpy") else value)
