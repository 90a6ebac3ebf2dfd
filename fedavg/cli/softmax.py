"""The model of `veilsum simulate`: softmax regression, trained by gradient descent, in numpy.

It is a user's loop like any other: `step(weights, data)` takes a nest of arrays and returns one of the same form,
and knows nothing of masks, noise or cohorts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.errors import ParameterError

__all__ = ["METRICS", "Examples", "SoftmaxRegression", "Weights"]

Weights = dict[str, NDArray[np.float32]]
Examples = tuple[NDArray[np.float32], NDArray[np.int64]]

METRICS = {"loss": 5.0, "accuracy": 1.0}
"""What a client reports of its own examples, with the largest value that travels."""


@dataclass(frozen=True, kw_only=True)
class SoftmaxRegression:
    """Softmax regression with a plain training loop.

    Args:
        features: Numbers in one example.
        classes: Number of labels.
        local_epochs: Passes over a client's examples, each one gradient step on all of them.
        learning_rate: Step size.

    Raises:
        ParameterError: no epoch, or a learning rate that is not positive and finite.

    >>> model = SoftmaxRegression(features=2, classes=2, local_epochs=50, learning_rate=1.0)
    >>> examples = np.eye(2, dtype=np.float32), np.array([0, 1])
    >>> weights, reported = model.step(model.initial(), examples)
    >>> round(reported["loss"], 4), model.accuracy(weights, examples)
    (0.6931, 1.0)
    """

    features: int
    classes: int
    local_epochs: int
    learning_rate: float

    def __post_init__(self) -> None:
        if self.local_epochs < 1:
            raise ParameterError(f"local epochs is {self.local_epochs}; give at least 1")
        if not 0 < self.learning_rate < np.inf:
            raise ParameterError(f"the learning rate is {self.learning_rate}; give a positive finite number")

    def initial(self) -> Weights:
        """All zeros: the same start for everybody, which tells nothing."""
        return {
            "bias": np.zeros(self.classes, np.float32),
            "kernel": np.zeros((self.features, self.classes), np.float32),
        }

    def step(self, weights: Weights, data: Examples) -> tuple[Weights, dict[str, float]]:
        """Train on one client's examples; reports loss and accuracy of the model it was given."""
        images, labels = data
        kernel, bias = weights["kernel"].copy(), weights["bias"].copy()
        rows = np.arange(len(labels))
        reported: dict[str, float] = {}
        for _ in range(self.local_epochs):
            probabilities = _softmax(images @ kernel + bias)
            if not reported:
                loss = -np.log(np.maximum(probabilities[rows, labels], np.float32(1e-30))).mean()
                reported = {"loss": float(loss), "accuracy": _share_right(probabilities, labels)}
            probabilities[rows, labels] -= 1
            probabilities *= np.float32(self.learning_rate / len(labels))
            kernel -= images.T @ probabilities
            bias -= probabilities.sum(axis=0)
        return {"bias": bias, "kernel": kernel}, reported

    def accuracy(self, weights: Any, data: Examples) -> float:
        """Share of the examples whose most likely label is the right one."""
        images, labels = data
        return _share_right(images @ weights["kernel"] + weights["bias"], labels)


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    scores = scores - scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def _share_right(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float((scores.argmax(axis=1) == labels).mean())
