"""What the adapters share: a step that carries its own first weights, a functional model, and the rule for buffers.

A *buffer* is state that training changes without a gradient: batch-norm statistics, step counts. Averaging it over
clients, or keeping one client's for the next, is a choice nobody should make by accident, so it is refused unless
the caller says "keep" (every client starts from the initial buffers, and its own are dropped) or "average" (floating-
point buffers travel, clipped and noised, with the weights; the others are kept).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedavg.errors import ParameterError
from fedavg.model import FunctionalModel

__all__ = ["AdaptedStep", "BatchMetrics", "Buffers", "Metrics", "adapted_model", "check_buffers"]

Buffers = Literal["refuse", "keep", "average"]
Metrics = Mapping[str, Any] | None
BatchMetrics = Callable[[NDArray[Any], NDArray[Any]], Mapping[str, Any]]
"""`(outputs, targets) -> {name: sum over the batch's examples}`, over numpy arrays whatever the ecosystem."""
_Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class AdaptedStep:
    """A step for `fedavg.train`; `weights` are the model's own, to start from.

    `evaluate(weights, data)` gives averages over one client's examples, for `fedavg.build_fed_eval`; None where the
    adapter does not know how. `lent` is `run` without its copies, for a caller that is done with the result before
    anything else runs: it only reads the weights, and returns the model's own memory.
    """

    weights: _Weights
    run: Callable[[_Weights, Any], tuple[_Weights, Metrics]]
    evaluate: Callable[[_Weights, Any], Mapping[str, Any]] | None = None
    lent: Callable[[_Weights, Any], Any] | None = None

    def __call__(self, weights: _Weights, data: Any) -> Any:
        """Train one client from `weights`; returns the trained weights, with metrics where the loop gave any."""
        trained, metrics = self.run(weights, data)
        return trained if metrics is None else (trained, metrics)


def adapted_model(
    weights: _Weights,
    loss_and_gradient: Callable[[_Weights, Any], tuple[Any, _Weights]],
    predict: Callable[[_Weights, Any], Any],
    metrics: BatchMetrics | None,
    bounds: Mapping[str, float] | None,
) -> FunctionalModel:
    """A functional model around an ecosystem's own gradients; metrics are computed from predictions, in numpy."""

    def sums(given: _Weights, batch: Any) -> Mapping[str, Any]:
        return {} if metrics is None else metrics(np.asarray(predict(given, batch[0])), np.asarray(batch[1]))

    return FunctionalModel(
        weights=weights,
        loss_and_gradient=loss_and_gradient,
        predict=predict,
        metrics=None if metrics is None else sums,
        bounds=bounds or {},
    )


def check_buffers(choice: str, names: list[str]) -> None:
    """Refuse a model with buffers unless the caller has chosen what becomes of them."""
    if choice not in ("refuse", "keep", "average"):
        raise ParameterError(f"buffers is {choice!r}; give 'refuse', 'keep' or 'average'")
    if choice == "refuse" and names:
        raise ParameterError(
            f"the model has buffers ({', '.join(names[:3])}{', ...' * (len(names) > 3)}): use group"
            " or layer normalisation, or say buffers='keep' (clients start from the initial ones) or buffers='average'"
        )
