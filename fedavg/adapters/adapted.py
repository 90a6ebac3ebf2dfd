"""What the adapters share: a step that carries its own first weights, and the rule for buffers.

A *buffer* is state that training changes without a gradient: batch-norm statistics, step counts. Averaging it over
clients, or keeping one client's for the next, is a choice nobody should make by accident, so it is refused unless
the caller says "keep" (every client starts from the initial buffers, and its own are dropped) or "average" (floating-
point buffers travel, clipped and noised, with the weights; the others are kept).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from fedavg.errors import ParameterError

__all__ = ["AdaptedStep", "Buffers", "Metrics", "check_buffers"]

Buffers = Literal["refuse", "keep", "average"]
Metrics = Mapping[str, Any] | None
_Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class AdaptedStep:
    """A step for `fedavg.train`; `weights` are the model's own, to start from."""

    weights: _Weights
    run: Callable[[_Weights, Any], tuple[_Weights, Metrics]]

    def __call__(self, weights: _Weights, data: Any) -> Any:
        """Train one client from `weights`; returns the trained weights, with metrics where the loop gave any."""
        trained, metrics = self.run(weights, data)
        return trained if metrics is None else (trained, metrics)


def check_buffers(choice: str, names: list[str]) -> None:
    """Refuse a model with buffers unless the caller has chosen what becomes of them."""
    if choice not in ("refuse", "keep", "average"):
        raise ParameterError(f"buffers is {choice!r}; give 'refuse', 'keep' or 'average'")
    if choice == "refuse" and names:
        raise ParameterError(
            f"the model has buffers ({', '.join(names[:3])}{', ...' * (len(names) > 3)}): use group"
            " or layer normalisation, or say buffers='keep' (clients start from the initial ones) or buffers='average'"
        )
