"""Nothing that a Keras model holds besides its variables' values takes one client's data to the next."""

from contextlib import suppress

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from fedavg import ParameterError, StepError, check, from_keras  # noqa: E402
from fedavg.own_dice import OwnDice  # noqa: E402

layers, KERAS_2 = keras.layers, keras.__version__ < "3"
FEW, MANY, NEXT = 8, 24, 16


def client(count):
    rng = np.random.default_rng(count)
    return rng.normal(size=(count, 4)).astype("float32") + 1, rng.integers(2, size=count)


def loss(**settings):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **settings)


def fit(model, data, **settings):
    return model.fit(*data, batch_size=8, verbose=0, **settings) and None


def build(*inside, optimizer=None, **settings):
    """A compiled model; what is inside is given as functions, to be made once the seed is set."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((4,)), *(make() for make in inside), layers.Dense(2)])
    model.compile(optimizer=optimizer or keras.optimizers.SGD(0.5), loss=loss(), **settings)
    return model


def after(first, step):
    """What the next client returns after one of so many examples; with None the first stays away."""
    dice = OwnDice(bytes(32))
    for position, count in enumerate((first, NEXT)):
        dice.throw(position)
        returned = None if count is None else step(step.weights, client(count))
    return returned if isinstance(returned, tuple) else (returned, {})


def nothing_passes(make, others=(MANY,)):
    one, measured = after(FEW, make())
    for first in others:
        other, metrics = after(first, make())
        for mine, theirs in zip(one.values(), other.values(), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)
        assert metrics == pytest.approx(measured, abs=1e-6)


def changing(change):
    """A loop that changes something for good, and only for a client with many examples."""

    def loop(model, data):
        if len(data[0]) == MANY:
            change(model)
        return fit(model, data)

    return loop


def decaying():
    return keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)


def unlike_the_others(model):
    model.compile(optimizer=model.optimizer, loss=loss(ignore_class=1))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.optimizer, "learning_rate", 0.01),
        lambda model: setattr(model.optimizer, "learning_rate", decaying()),
        lambda model: model.compile(optimizer=keras.optimizers.Adam(0.1), loss=loss()),
        unlike_the_others,
        lambda model: setattr(model.layers[0], "trainable", False),
    ],
    ids=["rate", "schedule", "compiled", "loss", "frozen"],
)
def test_what_a_loop_does_to_the_model_is_undone(change):
    nothing_passes(lambda: from_keras(build(lambda: layers.Dense(3)), changing(change)))


def test_a_layer_frozen_by_the_loop_and_compiled_so_learns_again():
    def freeze(model):
        model.layers[0].trainable = False
        model.compile(optimizer=keras.optimizers.SGD(0.5), loss=loss())

    nothing_passes(lambda: from_keras(build(lambda: layers.Dense(3)), changing(freeze)))


def test_a_layer_thawed_by_the_loop_is_frozen_again_and_as_it_was():
    def thaw(model):
        model.layers[0].trainable = True
        model.compile(optimizer=keras.optimizers.Adam(0.1), loss=loss())

    def make():
        model = build(lambda: layers.Dense(3))
        model.layers[0].trainable = False
        model.compile(optimizer=keras.optimizers.Adam(0.1), loss=loss())
        return from_keras(model, changing(thaw), buffers="keep")

    assert len(make().weights) == 2
    nothing_passes(make)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own, under numpy 2
def test_a_learning_rate_that_a_callback_set_is_set_back():
    def loop(model, data):
        factor = 0.1 if len(data[0]) == MANY else 0.9
        slower = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * factor)
        return fit(model, data, callbacks=[slower])

    nothing_passes(lambda: from_keras(build(), loop))


def test_adapting_a_layer_inside_the_loop_is_refused():
    step = from_keras(
        build(layers.Normalization), lambda model, data: model.layers[0].adapt(data[0]), buffers="keep"
    )
    with pytest.raises(StepError, match="adapts a layer to one client's data"):
        step(step.weights, client(FEW))


@pytest.mark.skipif(
    not KERAS_2 and keras.backend.backend() == "torch", reason="Keras 3 trains none such on torch"
)
def test_the_state_of_a_recurrent_layer_begins_anew():
    def make():
        keras.utils.set_random_seed(0)
        given = layers.Input(batch_shape=(8, 4))
        hidden = layers.GRU(3, stateful=True)(layers.Reshape((2, 2))(given))
        model = keras.Model(given, layers.Dense(2)(hidden))
        model.compile(optimizer=keras.optimizers.SGD(0.5), loss=loss())
        return from_keras(model, fit, buffers="keep")

    nothing_passes(make)


def test_a_loop_of_ones_own_does_not_find_that_it_shall_stop():
    def loop(model, data):
        model.stop_training = model.stop_training or len(data[0]) == MANY
        for _ in range(2):
            model.train_on_batch(*data)
            if model.stop_training:
                break

    nothing_passes(lambda: from_keras(build(), loop))


def test_metrics_begin_anew():
    def loop(model, data):
        model.examples.update_state(len(data[0]))
        return {"examples": float(model.examples.result())}

    def make():
        model = build()
        model.examples = keras.metrics.Mean()
        return from_keras(model, loop)

    nothing_passes(make)


def test_validation_data_of_a_loop_that_raised_is_dropped():
    class Raising(keras.callbacks.Callback):
        def on_test_end(self, logs=None):
            raise ValueError

    def loop(model, data):
        seen = model.fit(
            *data, verbose=0, validation_data=data, callbacks=[Raising()] * (len(data[0]) == MANY)
        )
        return {"loss": float(seen.history["val_loss"][-1])}

    def make():
        step = from_keras(build(), loop)

        def forgiving(weights, data):
            with suppress(ValueError):
                return step(weights, data)

        forgiving.weights = step.weights
        return forgiving

    nothing_passes(make)


class Counting(layers.Layer):
    seen = 0

    def call(self, inputs):
        self.seen += 1
        return inputs / self.seen


def test_numbers_that_layers_keep_are_put_back():
    nothing_passes(lambda: from_keras(build(Counting, run_eagerly=True), fit), others=(MANY, None))
    rate = changing(lambda model: setattr(model.layers[0], "rate", 0.9))
    nothing_passes(
        lambda: from_keras(build(lambda: layers.Dropout(0.5, seed=3), run_eagerly=True), rate),
        others=(MANY, None),
    )


def test_check_finds_what_is_not_put_back():
    class Remembering(layers.Layer):
        def __init__(self):
            super().__init__()
            self.seen = []

        def call(self, inputs):
            self.seen.append(1.0)
            return inputs / len(self.seen)

    step = from_keras(build(Remembering, run_eagerly=True), fit)
    assert [finding.kind for finding in check(step, [client(FEW), client(MANY)])] == ["impurity"]


@pytest.mark.parametrize("inside", [(), (lambda: layers.Dropout(0.5),)], ids=["plain", "dropout"])
def test_a_client_that_stays_away_changes_nothing_for_the_next(inside):
    """Who trains first has the model built and compiled, and must not draw, or fix, other numbers by that."""
    nothing_passes(lambda: from_keras(build(*inside), fit), others=(MANY, None))


@pytest.mark.skipif(not KERAS_2, reason="Keras 2")
def test_a_generator_inside_a_layer_begins_anew_in_keras_2():
    def make():
        keras.backend.experimental.enable_tf_random_generator()
        try:
            return from_keras(build(lambda: layers.Dropout(0.5, seed=3)), fit)
        finally:
            keras.backend.experimental.disable_tf_random_generator()

    nothing_passes(make)


@pytest.mark.skipif(not KERAS_2, reason="Keras 2")
def test_an_optimizer_that_cannot_be_built_beforehand_is_refused():
    with pytest.raises(ParameterError, match=r"keras\.optimizers\.legacy"):
        from_keras(build(optimizer=keras.optimizers.legacy.Adam(0.1)), fit)
