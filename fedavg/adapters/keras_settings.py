"""What a Keras model holds besides the values of its variables: remembered once, put back before each client.

A loop that compiles the model anew, freezes layers, replaces the learning rate by a schedule, changes a dropout's rate
or stops early leaves all that in the one model; recurrent layers of Keras 2 and TensorFlow's generators keep state that
is no variable of the model's.

Not here: values of weights, buffers and the optimizer (`fedavg.adapters.keras`); attributes of layers other than
numbers and strings; layers that the loop adds or removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from fedavg.errors import StepError
from fedavg.own_dice import kept

__all__ = ["ModelSettings", "learning_rate"]

# Validation data of a `fit` that raised, in Keras 3 and 2; the next one would take them for its own.
_EVALUATING = ("_eval_epoch_iterator", "_eval_data_handler")


class ModelSettings:
    """A model's settings as they are now.

    Args:
        model: The model, its optimizer built where it has one; it is not changed.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        # The model, then whatever is inside at any depth: `layers`, which is public, goes one deep.
        self._layers = list(model._flatten_layers())
        self._trainable = [layer.trainable for layer in self._layers]
        hidden = [getattr(layer, "_random_generator", None) for layer in self._layers]  # Keras 2's dropout.
        self._plain = [
            (held, {name: value for name, value in held.items() if type(value) in (int, float, str)})
            for held in (vars(part) for part in (*self._layers, *hidden) if part is not None)
        ]
        self._held = dict(vars(model))
        self._optimizer = getattr(model, "optimizer", None)
        self._rate = learning_rate(self._optimizer)
        self._counted = self._counts_rate()
        self._generators = _tensorflow_generators(model, hidden)

    def put_back(self) -> None:
        """Give the model the settings that it had; generators begin anew from numpy's global one."""
        model = self._model
        if self._has_changed():
            for name in set(vars(model)) - set(self._held):
                del vars(model)[name]
            vars(model).update(self._held)  # With them go functions compiled for the other settings.
            for layer, trainable in zip(self._layers, self._trainable, strict=True):
                if layer.trainable != trainable:
                    layer.trainable = trainable
            self._put_back_rate()
        self._put_back_plain()
        for name in _EVALUATING:
            vars(model).pop(name, None)
        model.stop_training = False
        model.reset_metrics()
        for layer in self._layers[1:]:
            if getattr(layer, "stateful", False) and hasattr(layer, "reset_states"):
                layer.reset_states()
        for generator in self._generators:
            generator.reset_from_seed(int(np.random.randint(1 << 31)))

    def _has_changed(self) -> bool:
        optimizer = getattr(self._model, "optimizer", None)
        if optimizer is not self._optimizer or learning_rate(optimizer) is not self._rate:
            return True
        # Each `compile` makes this anew; what is public stays the same if only the loss is another.
        compiled = vars(self._model).get("_compile_config") is self._held.get("_compile_config")
        return not compiled or [layer.trainable for layer in self._layers] != self._trainable

    def _put_back_plain(self) -> None:
        for attributes, plain in self._plain:
            attributes.update(plain)

    def _put_back_rate(self) -> None:
        if self._rate is None:
            return
        optimizer = _innermost(self._optimizer)
        # The public setter would not put a variable where a schedule is.
        vars(optimizer)["_learning_rate"] = self._rate
        if self._counted and not self._counts_rate():
            optimizer._track_variable(self._rate)  # Keras 3 forgets it when a schedule takes its place.

    def _counts_rate(self) -> bool:
        """Whether the learning rate is among the optimizer's variables, as in Keras 3."""
        variables = getattr(_innermost(self._optimizer), "variables", ())
        return any(variable is self._rate for variable in (variables() if callable(variables) else variables))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """For the time of a client's loop: no layer adapts, and what Keras builds when it first trains draws nothing.

        What `adapt` fits is no variable, and compiled functions keep it for all. Keras 3 looks at a batch before its
        first `fit`: without this, all others would draw other numbers if the first client stayed away.
        """

        def refused(*_: Any, **__: Any) -> None:
            raise StepError(
                "the loop adapts a layer to one client's data, which would stay in the model for the others; adapt it"
                " before you wrap the model, on public data"
            )

        instead = [(layer, "adapt", refused) for layer in self._layers if hasattr(layer, "adapt")]
        if hasattr(self._model, "_symbolic_build"):  # No public name: `fit` calls it.
            instead.append(
                (self._model, "_symbolic_build", self._without_drawing(self._model._symbolic_build))
            )
        for holder, name, function in instead:
            vars(holder)[name] = function
        try:
            yield
        finally:
            for holder, name, _ in instead:
                vars(holder).pop(name, None)

    def _without_drawing(self, build: Callable[..., None]) -> Callable[..., None]:
        def built(*args: Any, **settings: Any) -> None:
            with kept():
                build(*args, **settings)
            self._put_back_plain()

        return built


def learning_rate(optimizer: Any) -> Any:
    """The learning rate as the optimizer keeps it, a variable or a schedule: the public one is a schedule's value."""
    return getattr(_innermost(optimizer), "_learning_rate", None)


def _innermost(optimizer: Any) -> Any:
    """The optimizer itself, inside one that scales the loss."""
    return _innermost(optimizer.inner_optimizer) if hasattr(optimizer, "inner_optimizer") else optimizer


def _tensorflow_generators(model: Any, hidden: list[Any]) -> list[Any]:
    """Generators of TensorFlow's that layers keep; those of Keras 3 are variables of the model.

    Args:
        model: The model.
        hidden: Where Keras 2's own layers keep theirs, out of sight of TensorFlow's view.
    """
    if import_module("keras").backend.backend() != "tensorflow":
        return []
    import tensorflow as tf

    held = [
        *tf.train.TrackableView(model).descendants(),
        *(getattr(part, "_generator", None) for part in hidden),
    ]
    return [value for value in held if isinstance(value, tf.random.Generator)]
