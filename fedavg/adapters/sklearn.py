"""`from_sklearn`: a scikit-learn estimator that can learn in parts, as a step.

Each client trains a fresh copy of a primed estimator, so step counts, learning-rate schedules and averaged
coefficients never pass from one client to the next.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.adapters.adapted import AdaptedStep, Metrics
from fedavg.errors import ParameterError

__all__ = ["from_sklearn"]

_LINEAR, _LAYERED = ("coef_", "intercept_"), ("coefs_", "intercepts_")


def from_sklearn(
    estimator: Any,
    fit: Callable[[Any, Any], Metrics] | None = None,
    *,
    features: int,
    classes: int | None = None,
) -> AdaptedStep:
    """Wrap a scikit-learn estimator with `partial_fit`: `SGDClassifier`, `SGDRegressor`, `MLPClassifier`, ...

    Args:
        estimator: An unfitted estimator.
        fit: Your loop, `fit(estimator, data)`; one `partial_fit(*data)` when None. May return metrics.
        features: Numbers in one example.
        classes: Number of labels (0, 1, ...) of a classifier; None for a regressor.

    Returns:
        A step; `step.weights` are the primed estimator's coefficients (zeros for linear models).

    Raises:
        ParameterError: the estimator cannot learn in parts, or keeps no coefficients.
    """
    if not hasattr(estimator, "partial_fit"):
        raise ParameterError(
            f"{type(estimator).__name__} has no partial_fit; take one that learns in parts, such as"
            " SGDClassifier"
        )
    primed = _primed(estimator, features, classes)
    names = next(
        (names for names in (_LINEAR, _LAYERED) if all(hasattr(primed, name) for name in names)), None
    )
    if names is None:
        raise ParameterError(
            f"{type(estimator).__name__} keeps no coefficients; take a linear model or a perceptron"
        )

    def run(weights: Mapping[str, Any], data: Any) -> tuple[Mapping[str, Any], Metrics]:
        trained = copy.deepcopy(primed)
        for name in names:
            setattr(trained, name, copy.deepcopy(weights[name]))
        metrics = (fit or _partial_fit)(trained, data)
        return {name: getattr(trained, name) for name in names}, metrics

    initial = {name: copy.deepcopy(getattr(primed, name)) for name in names}
    if names == _LINEAR:
        initial = {name: np.zeros_like(value) for name, value in initial.items()}
    return AdaptedStep(initial, run)


def _partial_fit(estimator: Any, data: Any) -> Metrics:
    estimator.partial_fit(*data)
    return None


def _primed(estimator: Any, features: int, classes: int | None) -> Any:
    """A copy that knows its shapes and labels, from one pass over zeros."""
    primed = copy.deepcopy(estimator)
    labels: NDArray[Any] = np.arange(classes) if classes else np.zeros(1)
    primed.partial_fit(np.zeros((len(labels), features)), labels, **({"classes": labels} if classes else {}))
    return primed
