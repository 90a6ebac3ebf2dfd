"""`from_sklearn`: a scikit-learn estimator that can learn in parts, as a step; `model_from_sklearn`: as functions.

Each client trains a fresh copy of a primed estimator, so step counts, learning-rate schedules and averaged
coefficients never pass from one client to the next.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.adapters.adapted import AdaptedStep, BatchMetrics, Metrics, adapted_model
from fedavg.errors import ParameterError
from fedavg.model import FunctionalModel

__all__ = ["from_sklearn", "model_from_sklearn"]

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
        A step; `step.weights` are the primed estimator's coefficients (zeros for linear models); `step.evaluate`
        gives `estimator.score` as "score", for `fedavg.build_fed_eval`.

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

    learner = _Learner(primed, names, fit or _partial_fit)
    initial = {name: _cast(getattr(primed, name), np.float64) for name in names}
    if names == _LINEAR:
        initial = {name: np.zeros_like(value) for name, value in initial.items()}
    return AdaptedStep(initial, learner.run, learner.evaluate)


def model_from_sklearn(
    estimator: Any,
    *,
    features: int,
    classes: int | None = None,
    metrics: BatchMetrics | None = None,
    bounds: Mapping[str, float] | None = None,
) -> FunctionalModel:
    """A linear model of scikit-learn's as a functional model; outputs are its decision function, shape (n, rows).

    Args:
        estimator: An `SGDClassifier(loss="log_loss")` (one row a class, each against the rest; one row for two classes)
            or an `SGDRegressor(loss="squared_error")`, with penalty "l2" or None. Its learning rate is not used: the
            client optimizer has one.
        features: Numbers in one example.
        classes: Number of labels (0, 1, ...) of a classifier; None for a regressor.
        metrics: `metrics(outputs, targets)`, sums over the batch, over numpy arrays.
        bounds: Each metric's largest absolute value for one example.

    Raises:
        ParameterError: another loss or penalty: its gradient is not known here, and `from_sklearn` takes it as a step.
    """
    loss, penalty = getattr(estimator, "loss", None), getattr(estimator, "penalty", None)
    if loss != ("squared_error" if classes is None else "log_loss") or penalty not in ("l2", None):
        raise ParameterError(
            f"{type(estimator).__name__} has loss {loss!r} and penalty {penalty!r}; functional models are log_loss"
            " classifiers and squared_error regressors with penalty 'l2' or None: use from_sklearn for the others"
        )
    rows = 1 if classes in (None, 2) else int(classes or 1)
    decay = 0.0 if penalty is None else float(estimator.alpha)

    def predict(weights: Mapping[str, Any], inputs: Any) -> NDArray[Any]:
        scores: NDArray[Any] = np.asarray(inputs) @ weights["coef_"].T + weights["intercept_"]
        return scores

    def loss_and_gradient(weights: Mapping[str, Any], batch: Any) -> tuple[float, Mapping[str, Any]]:
        x, y = np.asarray(batch[0]), np.asarray(batch[1])
        scores, coef = predict(weights, x), weights["coef_"]
        if classes is None:
            slopes = scores - y[:, None]
            value = 0.5 * float(np.mean(slopes**2))
        else:
            signs = np.where(y[:, None] == (np.arange(rows) if rows > 1 else [1]), 1.0, -1.0)
            value = float(np.logaddexp(0, -signs * scores).sum(axis=1).mean())
            slopes = -signs * np.exp(-np.logaddexp(0, signs * scores))
        gradient = {"coef_": slopes.T @ x / len(y) + decay * coef, "intercept_": slopes.mean(axis=0)}
        return value + 0.5 * decay * float(np.sum(coef**2)), gradient

    start = {"coef_": np.zeros((rows, features)), "intercept_": np.zeros(rows)}
    return adapted_model(start, loss_and_gradient, predict, metrics, bounds)


@dataclass(frozen=True)
class _Learner:
    """Copies of a primed estimator, one for each client; a value, so that a step can be taken to other processes."""

    primed: Any
    names: tuple[str, ...]
    fit: Callable[[Any, Any], Metrics]

    def run(self, weights: Mapping[str, Any], data: Any) -> tuple[Mapping[str, Any], Metrics]:
        """Train one client."""
        trained = self._load(weights, data)
        metrics = self.fit(trained, data)
        return {name: _cast(getattr(trained, name), np.float64) for name in self.names}, metrics

    def evaluate(self, weights: Mapping[str, Any], data: Any) -> Mapping[str, Any]:
        """Score one client's examples."""
        return {"score": self._load(weights, data).score(*data)}

    def _load(self, weights: Mapping[str, Any], data: Any) -> Any:
        loaded, dtype = copy.deepcopy(self.primed), _dtype(data)
        for name in self.names:
            setattr(loaded, name, _cast(weights[name], dtype))
        return loaded


def _partial_fit(estimator: Any, data: Any) -> Metrics:
    estimator.partial_fit(*data)
    return None


def _dtype(data: Any) -> Any:
    """What coefficients must be in while an estimator learns from this data: scikit-learn wants both alike."""
    examples = data[0] if isinstance(data, tuple | list) and data else data
    dtype = getattr(examples, "dtype", None)
    return dtype if dtype in (np.float32, np.float64) else np.float64


def _cast(coefficients: Any, dtype: Any) -> Any:
    """A copy, array or list of arrays, in a dtype."""
    if isinstance(coefficients, list):
        return [np.array(array, dtype) for array in coefficients]
    return np.array(coefficients, dtype)


def _primed(estimator: Any, features: int, classes: int | None) -> Any:
    """A copy that knows its shapes and labels, from one pass over zeros."""
    primed = copy.deepcopy(estimator)
    labels: NDArray[Any] = np.arange(classes) if classes else np.zeros(1)
    primed.partial_fit(np.zeros((len(labels), features)), labels, **({"classes": labels} if classes else {}))
    return primed
