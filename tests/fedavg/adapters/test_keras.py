"""A compiled Keras model as a step: optimizer state set back for every client, buffers by choice."""

import pickle

import numpy as np
import pytest

keras = pytest.importorskip("keras")

import dp  # noqa: E402
from fedavg import Federation, ParameterError, RunEntropy, SecureAggregation, check, from_keras  # noqa: E402
from fedavg.adapters import model_from_keras  # noqa: E402


def array(variable):
    """A copy, of Keras 3's variables on torch and of Keras 2's alike."""
    inner = variable.value
    return np.array(inner.detach().cpu().numpy() if hasattr(inner, "detach") else variable.numpy())


def build(*, norm=False):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input((4,)), keras.layers.Dense(3, "tanh")]
    model = keras.Sequential([*layers, *([keras.layers.BatchNormalization()] * norm), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss)
    return model


def fit(model, data):
    return model.fit(*data, epochs=2, batch_size=8, shuffle=False, verbose=0)


def client(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, 4)).astype("float32"), rng.integers(2, size=8)


def test_a_step_is_the_loop_itself():
    step = from_keras(build(), fit)
    alone = build()
    fit(alone, client(1))
    trained, metrics = step(step.weights, client(1))
    for value, variable in zip(trained.values(), alone.trainable_variables, strict=True):
        np.testing.assert_allclose(value, array(variable), rtol=1e-6)
    assert metrics["loss"] > 0


def test_the_optimizers_moments_do_not_pass_from_client_to_client():
    step = from_keras(build(), fit)
    assert check(step, [client(1), client(2)], weights=step.weights, metrics={"loss": 5.0}) == []


def test_without_the_reset_they_would():
    model = build()
    step = from_keras(model, fit)

    def leaky(weights, data):
        for value, variable in zip(weights.values(), model.trainable_variables, strict=True):
            variable.assign(value)
        fit(model, data)
        return {name: array(v) for name, v in zip(weights, model.trainable_variables, strict=True)}

    kinds = [finding.kind for finding in check(leaky, [client(1), client(2)], weights=step.weights)]
    assert kinds == ["impurity"]


def test_buffers_are_refused_kept_or_averaged():
    with pytest.raises(ParameterError, match="moving_mean"):
        from_keras(build(norm=True), fit)
    keep = from_keras(build(norm=True), fit, buffers="keep")
    average = from_keras(build(norm=True), fit, buffers="average")
    assert len(average.weights) == len(keep.weights) + 2
    for step in (keep, average):
        assert check(step, [client(1), client(2)], weights=step.weights) == []


def test_without_a_call_of_ones_own_a_step_is_one_epoch():
    step = from_keras(build())
    trained, metrics = step(step.weights, client(1))
    assert any(not np.array_equal(trained[name], step.weights[name]) for name in trained)
    assert set(metrics) == {"loss"}


def test_evaluating_does_not_train():
    step = from_keras(build(), fit)
    first, again = (step.evaluate(step.weights, client(1)) for _ in range(2))
    assert {type(value) for value in first.values()} == {float}
    assert float(first["loss"]) == float(again["loss"])


def test_a_functional_model_refuses_buffers_or_keeps_the_initial_ones():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with pytest.raises(ParameterError, match="moving_mean"):
        model_from_keras(build(norm=True), loss)
    with pytest.raises(ParameterError, match="keeps no buffers to average"):
        model_from_keras(build(norm=True), loss, buffers="average")
    model = model_from_keras(build(norm=True), loss, buffers="keep")
    before = model.predict(model.weights, client(1)[0])
    model.loss_and_gradient(model.weights, client(2))
    np.testing.assert_array_equal(model.predict(model.weights, client(1)[0]), before)
    assert len(model.weights) == len(from_keras(build(norm=True), fit, buffers="keep").weights)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own, under numpy 2
def test_a_step_can_be_taken_to_another_process_after_it_has_trained():
    """What goes along are the initial weights and moments, not those that the last client left in the model."""
    step = from_keras(build(), fit)
    here, _ = step(step.weights, client(1))
    there = pickle.loads(pickle.dumps(step))
    gone, _ = there(there.weights, client(1))
    for mine, theirs in zip(here.values(), gone.values(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def dropping(seed=None):
    """A model whose layers draw at random."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input((4,)), keras.layers.Dense(30, "tanh"), keras.layers.Dropout(0.5, seed=seed)]
    model = keras.Sequential([*layers, keras.layers.GaussianNoise(0.5, seed=seed), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=loss)
    return model


def trained_in_a_run(clients, *, rounds=1, seed=None, globally=True):
    """What each client's step returns while all are played in this process, by round."""
    step = from_keras(
        dropping(seed),
        lambda model, data: model.fit(*data, batch_size=8, shuffle=globally, verbose=0) and None,
    )
    if not globally and hasattr(keras.backend, "clear_session") and keras.__version__ < "3":
        from tensorflow.python.eager import context

        context.set_global_seed(None)
    seen = []

    def watched(weights, data):
        trained = step(weights, data)
        seen.append(np.concatenate([array.ravel() for array in trained.values()]))
        return trained

    federation = Federation(
        watched, clients, weights=step.weights, rounds=rounds, sampler=dp.PaddedPoisson(len(clients), len(clients)),
        privacy=dp.Privacy(noise_multiplier=0.02, delta=1e-3, l2_clip_norm=1.0), entropy=RunEntropy.seeded(3),
        secure=SecureAggregation.ideal(dropout=0.0, corruption=0.0),
    )  # fmt: skip
    for _ in range(rounds):
        federation.run_round()
    return seen


def examples(count):
    x, y = client(7)
    return np.repeat(x, count // 8, axis=0), np.repeat(y, count // 8)


@pytest.mark.parametrize(("seed", "globally"), [(None, True), (5, True), (5, False)])
def test_what_a_layer_draws_for_one_client_does_not_depend_on_anothers_data(seed, globally):
    """The first client has twice the batches, so it draws twice as often; the script has seeded everything."""
    before = trained_in_a_run([examples(16)] * 4, seed=seed, globally=globally)
    after = trained_in_a_run([examples(32)] + [examples(16)] * 3, seed=seed, globally=globally)
    for one, other in zip(before[1:], after[1:], strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(before[0] - after[0]).max() > 0


def test_clients_do_not_all_drop_the_same_units():
    """Of one batch each, the same for all: only what the layers draw makes clients differ."""
    if keras.__version__ < "3":
        pytest.skip(
            "Keras 2 fixes a layer's draws when it compiles the loop; they begin alike for every client"
        )
    seen = trained_in_a_run([examples(8)] * 3, rounds=2)
    assert len({trained.tobytes() for trained in seen}) == 6


def test_the_state_of_a_generator_is_no_buffer():
    assert len(from_keras(dropping(), fit).weights) == 4
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = model_from_keras(dropping(), loss)
    slopes = [model.loss_and_gradient(model.weights, client(1))[1] for _ in range(2)]
    assert any(np.abs(one - other).max() > 0 for one, other in zip(*map(dict.values, slopes), strict=True))


def test_check_finds_nothing_in_a_model_with_dropout():
    step = from_keras(dropping(), fit)
    assert check(step, [client(1), client(2)], weights=step.weights, metrics={"loss": 5.0}) == []
