"""`from_keras`: a compiled Keras model and the call that trains it, as a step; `model_from_keras`: as functions.

Works with Keras 3 (any backend) and Keras 2.15. The one model is reused for every client in this process; before each
client its weights and its *optimizer's* variables are set back, because a compiled model carries momentum, the learning
rate that a callback set and the step count of the schedule from one `fit` to the next; so are its settings: what is
frozen, how it is compiled, metrics, states of recurrent layers. The generators inside its layers (dropout's, in Keras
3) begin anew from numpy's global one, which each client has to itself: neither do all clients drop the same units, nor
does what one draws depend on another's data. In Keras 2 they do drop the same if the script seeds TensorFlow: leave it
unseeded.

Not here, but most of it found by `fedavg.check`: layers that the loop adds or removes; lists, arrays and the like that
a layer of one's own keeps in an attribute (numbers and strings are put back); callbacks made outside the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.adapters.adapted import (
    AdaptedStep,
    BatchMetrics,
    Buffers,
    Metrics,
    adapted_model,
    check_buffers,
)
from fedavg.adapters.keras_settings import ModelSettings, learning_rate
from fedavg.errors import ParameterError
from fedavg.model import FunctionalModel

__all__ = ["from_keras", "model_from_keras"]

_GENERATOR = "seed_generator_state"
_Weights = Mapping[str, NDArray[Any]]
_Kept = tuple[Sequence[str], Sequence[NDArray[Any]]]


def from_keras(
    model: Any, fit: Callable[[Any, Any], Any] | None = None, *, buffers: Buffers = "refuse"
) -> AdaptedStep:
    """Wrap a Keras training loop.

    Args:
        model: A built and compiled model; its weights now are the ones to start from.
        fit: Your call, `fit(model, data)`; `model.fit(*data, verbose=0)`, one epoch, when None. It may return metrics,
            or the `History` that `model.fit` returns, whose last values are then the metrics.
        buffers: What becomes of batch-norm statistics and other non-trainable variables: "refuse", "keep", "average".
            The generators of dropout and noise layers are none of these.

    Returns:
        A step; `step.weights` are the initial weights, by position and name; `step.evaluate` is `model.evaluate`, for
        `fedavg.build_fed_eval`.

    Raises:
        ParameterError: the model has non-trainable variables and `buffers` is "refuse"; or an optimizer of
            `keras.optimizers.legacy`.
    """
    trainer = _Trainer(model, fit or _fit, buffers)
    return AdaptedStep(trainer.weights, trainer.run, trainer.evaluate)


class _Trainer:
    """The one model and what it is set to before each client; can be pickled, so that a step can go to processes."""

    def __init__(
        self,
        model: Any,
        fit: Callable[[Any, Any], Any],
        buffers: Buffers,
        kept: _Kept | None = None,
    ) -> None:
        trainable, held = _named(model.trainable_variables), _named(_buffers(model))
        check_buffers(buffers, list(held))
        self._generators = _generators(model)
        floats = {name: value for name, value in held.items() if _array(value).dtype.kind == "f"}
        self._model, self._fit, self._buffers = model, fit, buffers
        self._travelling = {**trainable, **(floats if buffers == "average" else {})}
        self._variables = [*trainable.values(), *held.values(), *_optimizer_variables(model)]
        if (
            kept is not None
        ):  # Keras names a copied model's layers anew, and copies what the last client left.
            names, values = kept
            self._travelling = dict(zip(names, self._travelling.values(), strict=True))
            for variable, value in zip(self._variables, values, strict=True):
                variable.assign(value)
        self._values = [_array(variable) for variable in self._variables]
        self._settings = ModelSettings(model)

    def __reduce__(self) -> tuple[Any, ...]:
        self._settings.put_back()
        return _Trainer, (self._model, self._fit, self._buffers, (list(self._travelling), self._values))

    @property
    def weights(self) -> _Weights:
        """What the model's travelling variables hold now."""
        return {name: _array(variable) for name, variable in self._travelling.items()}

    def run(self, weights: _Weights, data: Any) -> tuple[_Weights, Metrics]:
        """Train one client."""
        self._load(weights)
        with self._settings.in_use():
            metrics = _metrics(self._fit(self._model, data))
        return self.weights, metrics

    def evaluate(self, weights: _Weights, data: Any) -> Mapping[str, Any]:
        """Evaluate one client's examples."""
        self._load(weights)
        averages = self._model.evaluate(*data, verbose=0, return_dict=True)
        return {name: float(value) for name, value in averages.items()}  # Under torch, Keras gives tensors.

    def _load(self, weights: _Weights) -> None:
        self._settings.put_back()
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(value)
        for name, variable in self._travelling.items():
            variable.assign(weights[name])
        _begin_anew(self._generators)


def model_from_keras(
    model: Any,
    loss: Callable[[Any, Any], Any],
    *,
    metrics: BatchMetrics | None = None,
    bounds: Mapping[str, float] | None = None,
    buffers: Buffers = "refuse",
) -> FunctionalModel:
    """A built Keras model as a functional model: gradients by its backend, one batch (inputs, targets) at a time.

    Args:
        model: A built model; its weights now are the ones to start from. It need not be compiled.
        loss: A Keras loss, `loss(targets, outputs)`, a mean over the batch.
        metrics: `metrics(outputs, targets)`, sums over the batch, over numpy arrays.
        bounds: Each metric's largest absolute value for one example.
        buffers: "refuse" or "keep": every batch then starts from the initial non-trainable variables.

    Raises:
        ParameterError: the model has non-trainable variables and `buffers` is "refuse"; or it is "average", which only
            a step can; or no backend whose gradients are known here.
    """
    if buffers == "average":
        raise ParameterError(
            "a functional model keeps no buffers to average; use from_keras, or buffers='keep'"
        )
    trainable, held = _named(model.trainable_variables), _named(_buffers(model))
    check_buffers(buffers, list(held))
    generators = _generators(model)
    initial = {name: _array(variable) for name, variable in trainable.items()}
    kept = [(variable, _array(variable)) for variable in held.values()]
    gradients, settings = _gradients(model), ModelSettings(model)

    def load(weights: _Weights) -> None:
        settings.put_back()
        for variable, value in kept:
            variable.assign(value)
        for name, variable in trainable.items():
            variable.assign(weights[name])
        _begin_anew(generators)

    def loss_and_gradient(weights: _Weights, batch: Any) -> tuple[float, _Weights]:
        load(weights)
        value, slopes = gradients(model, loss, batch)
        arrays = [
            np.asarray(_array(slope), initial[name].dtype)
            for name, slope in zip(initial, slopes, strict=True)
        ]
        return float(value), dict(zip(initial, arrays, strict=True))

    def predict(weights: _Weights, inputs: Any) -> NDArray[Any]:
        load(weights)
        return _array(model(inputs, training=False))

    return adapted_model(initial, loss_and_gradient, predict, metrics, bounds)


def _fit(model: Any, data: Any) -> Any:
    return model.fit(*data, verbose=0)


def _gradients(model: Any) -> Callable[[Any, Any, Any], tuple[Any, list[Any]]]:
    """How the model's backend takes gradients with respect to its trainable variables."""
    known = {"tensorflow": _with_tensorflow, "torch": _with_torch, "jax": _with_jax}
    backend = str(import_module("keras").backend.backend())
    if backend not in known:
        raise ParameterError(
            f"gradients with the Keras backend {backend} are not known; use tensorflow, torch or jax"
        )
    return known[backend]


def _with_tensorflow(model: Any, loss: Any, batch: Any) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss(batch[1], model(batch[0], training=True))
    return value, tape.gradient(value, model.trainable_variables, unconnected_gradients="zero")


def _with_torch(model: Any, loss: Any, batch: Any) -> tuple[Any, list[Any]]:
    import torch

    parameters = [variable.value for variable in model.trainable_variables]
    value = loss(batch[1], model(batch[0], training=True))
    return value.item(), list(
        torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
    )


def _with_jax(model: Any, loss: Any, batch: Any) -> tuple[Any, list[Any]]:
    import jax

    held = [variable.value for variable in model.non_trainable_variables]

    def of(values: list[Any]) -> Any:
        outputs, _ = model.stateless_call(values, held, batch[0], training=True)
        return loss(batch[1], outputs)

    value, slopes = jax.value_and_grad(of)([variable.value for variable in model.trainable_variables])
    return value, slopes


def _named(variables: Any) -> dict[str, Any]:
    """Variables by position and name: names alone repeat in Keras."""
    return {
        f"{position:04d} {getattr(variable, 'path', variable.name).replace('/', '.')}": variable
        for position, variable in enumerate(variables)
    }


def _buffers(model: Any) -> list[Any]:
    """Variables that training changes without a gradient; the state of a generator is none of these."""
    return [variable for variable in model.non_trainable_variables if variable.name != _GENERATOR]


def _generators(model: Any) -> list[Any]:
    """State of the generators inside Keras 3's layers, two integers each; Keras 2 keeps its own elsewhere."""
    return [variable for variable in model.non_trainable_variables if variable.name == _GENERATOR]


def _begin_anew(generators: list[Any]) -> None:
    for variable in generators:
        state = np.random.randint(1 << 31, size=2)
        variable.assign(state.astype(str(variable.dtype)))


def _optimizer_variables(model: Any) -> list[Any]:
    """What a compiled model carries from one `fit` to the next: moments, step count, the learning rate itself."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return []
    if not hasattr(optimizer, "build"):
        raise ParameterError(
            "the optimizer cannot be built before it trains, such as those of keras.optimizers.legacy; take one of"
            " keras.optimizers"
        )
    optimizer.build(model.trainable_variables)
    variables = optimizer.variables
    held = list(variables() if callable(variables) else variables)
    rate = learning_rate(optimizer)  # In Keras 2 it is none of the optimizer's variables.
    if hasattr(rate, "assign") and all(variable is not rate for variable in held):
        held.append(rate)
    return held


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
