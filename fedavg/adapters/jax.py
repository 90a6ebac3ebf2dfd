"""`model_from_jax`: a pytree and a loss as a functional model; a JAX loop needs no adapter to be a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.adapters.adapted import BatchMetrics
from fedavg.errors import ParameterError
from fedavg.model import FunctionalModel
from fedavg.pytree import Tree

__all__ = ["model_from_jax"]


def model_from_jax(
    weights: Tree,
    loss: Callable[[Tree, Any], Any],
    *,
    predict: Callable[[Tree, Any], Any] | None = None,
    metrics: BatchMetrics | None = None,
    bounds: Mapping[str, float] | None = None,
) -> FunctionalModel:
    """Wrap a loss over a pytree; it is compiled once for each shape of batch.

    Args:
        weights: A pytree of dicts, lists and tuples of floating-point arrays.
        loss: `loss(weights, batch)`, a mean over the batch, traceable.
        predict: `predict(weights, inputs)`; needed for metrics.
        metrics: `metrics(outputs, targets)`, sums over the batch, over numpy arrays.
        bounds: Each metric's largest absolute value for one example.

    Returns:
        The model, for any `build_*`.

    Raises:
        ParameterError: metrics without `predict` or bounds.
    """
    import jax

    if metrics is not None and predict is None:
        raise ParameterError("metrics are computed from predictions; give predict=, too")
    value_and_gradient = jax.jit(jax.value_and_grad(loss))

    def sums(given: Tree, batch: Any) -> Mapping[str, Any]:
        if metrics is None or predict is None:
            return {}
        outputs: NDArray[Any] = np.asarray(predict(given, batch[0]))
        return metrics(outputs, np.asarray(batch[1]))

    return FunctionalModel(
        weights=weights,
        loss_and_gradient=value_and_gradient,
        predict=predict,
        metrics=None if metrics is None else sums,
        bounds=bounds or {},
    )
