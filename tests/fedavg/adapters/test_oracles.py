"""Each adapter's plain FedAvg equals one written out in numpy to 1e-6, as a step and as a functional model."""

import numpy as np
import pytest

from fedavg import sgd
from fedavg.adapters import (
    from_keras,
    from_sklearn,
    from_torch,
    model_from_jax,
    model_from_keras,
    model_from_sklearn,
    model_from_torch,
)
from fedavg.insecure import insecure_sum
from fedavg.processes import build_weighted_fed_avg
from tests.fedavg.adapters.federated import (
    CLASSES,
    FEATURES,
    RATE,
    by_hand,
    cut,
    one_against_rest_slope,
    people,
    run,
)

ROUNDS, CLIENTS = 3, people()
BATCHES = [cut(client) for client in CLIENTS]
CLOSE = {"atol": 1e-6, "rtol": 0}


def fed_avg(model, data, **settings):
    if not callable(model):
        settings["client_optimizer"] = sgd(learning_rate=RATE)
    process = build_weighted_fed_avg(model, model_aggregator=insecure_sum, **settings)
    return run(process, data, ROUNDS)


def right(outputs, targets):
    return {"right": np.sum(outputs.argmax(axis=1) == targets)}


def linear_torch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return torch, torch.nn.Linear(FEATURES, CLASSES)


def test_torch_as_a_step():
    torch, module = linear_torch()

    def fit(module, data):
        optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
        for x, y in cut(data):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
            optimizer.step()

    step = from_torch(module, fit)
    weights, _ = fed_avg(step, CLIENTS)
    w, b = by_hand(CLIENTS, step.weights["weight"].T, step.weights["bias"], rounds=ROUNDS)
    np.testing.assert_allclose(weights["weight"].T, w, **CLOSE)
    np.testing.assert_allclose(weights["bias"], b, **CLOSE)


def test_torch_as_a_functional_model():
    torch, module = linear_torch()
    model = model_from_torch(module, torch.nn.functional.cross_entropy, metrics=right, bounds={"right": 1.0})
    weights, metrics = fed_avg(model, BATCHES)
    w, b = by_hand(CLIENTS, model.weights["weight"].T, model.weights["bias"], rounds=ROUNDS)
    np.testing.assert_allclose(weights["weight"].T, w, **CLOSE)
    np.testing.assert_allclose(weights["bias"], b, **CLOSE)
    assert metrics["train"]["num_examples"] == sum(len(y) for _, y in CLIENTS)
    assert 0 < metrics["train"]["right"] < 1


def test_torch_deep_with_momentum_is_torchs_own_loop():
    """The same modules, seeds and optimizer, averaged by torch alone."""
    torch = pytest.importorskip("torch")

    def net():
        torch.manual_seed(1)
        return torch.nn.Sequential(
            torch.nn.Linear(FEATURES, 6), torch.nn.Tanh(), torch.nn.Dropout(0.2), torch.nn.Linear(6, CLASSES)
        )

    def fit(module, data):
        torch.manual_seed(len(data[1]))  # Dropout's dice, the same in both loops.
        optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9)
        for x, y in cut(data) * 2:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
            optimizer.step()

    weights, _ = fed_avg(from_torch(net(), fit), CLIENTS)
    server = net().state_dict()
    for _ in range(ROUNDS):
        total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in server.items()}
        for client in CLIENTS:
            module = net()
            module.load_state_dict(server)
            fit(module, client)
            for name, value in module.state_dict().items():
                total[name] += len(client[1]) * value.double()
        count = sum(len(y) for _, y in CLIENTS)
        server = {name: (value / count).float() for name, value in total.items()}
    for name, value in server.items():
        np.testing.assert_allclose(weights[name], value.numpy(), **CLOSE)


def dense_keras():
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.InputLayer((FEATURES,)), keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(RATE), loss=loss, metrics=["accuracy"])
    return model, loss


def test_keras_as_a_step():
    model, _ = dense_keras()
    step = from_keras(model, lambda model, data: model.fit(*data, batch_size=4, shuffle=False, verbose=0))
    (start_w, start_b), metrics = step.weights.values(), {"loss": 10.0, "accuracy": 1.0}
    weights, reported = fed_avg(step, CLIENTS, metrics=metrics)
    w, b = by_hand(CLIENTS, start_w, start_b, rounds=ROUNDS)
    for found, expected in zip(weights.values(), (w, b), strict=True):
        np.testing.assert_allclose(found, expected, **CLOSE)
    assert 0 < reported["train"]["accuracy"] < 1
    assert 0 < step.evaluate(weights, CLIENTS[0])["loss"] < 2


def test_keras_as_a_functional_model():
    keras_model, loss = dense_keras()
    model = model_from_keras(keras_model, loss, metrics=right, bounds={"right": 1.0})
    weights, metrics = fed_avg(model, BATCHES)
    w, b = by_hand(CLIENTS, *model.weights.values(), rounds=ROUNDS)
    for found, expected in zip(weights.values(), (w, b), strict=True):
        np.testing.assert_allclose(found, expected, **CLOSE)
    assert 0 < metrics["train"]["right"] < 1


def test_jax_as_a_functional_model_and_as_a_step():
    jax = pytest.importorskip("jax")
    jnp = jax.numpy

    def predict(weights, inputs):
        return inputs @ weights["w"] + weights["b"]

    def loss(weights, batch):
        chances = jax.nn.log_softmax(predict(weights, batch[0]))
        return -jnp.take_along_axis(chances, batch[1][:, None], axis=1).mean()

    start = {"w": jnp.zeros((FEATURES, CLASSES)), "b": jnp.zeros(CLASSES)}
    model = model_from_jax(start, loss, predict=predict, metrics=right, bounds={"right": 1.0})

    def step(weights, data):
        for batch in cut(data):
            slope = jax.grad(loss)(weights, batch)
            weights = jax.tree.map(lambda value, change: value - RATE * change, weights, slope)
        return weights

    w, b = by_hand(CLIENTS, np.zeros((FEATURES, CLASSES)), np.zeros(CLASSES), rounds=ROUNDS)
    for weights, _ in (fed_avg(model, BATCHES), fed_avg(step, CLIENTS, weights=start)):
        np.testing.assert_allclose(weights["w"], w, **CLOSE)
        np.testing.assert_allclose(weights["b"], b, **CLOSE)


def test_sklearn_as_a_step_is_one_example_after_the_other():
    linear_model = pytest.importorskip("sklearn.linear_model")
    estimator = linear_model.SGDClassifier(
        loss="log_loss", alpha=0.0, penalty=None, learning_rate="constant", eta0=RATE, shuffle=False
    )
    weights, _ = fed_avg(from_sklearn(estimator, features=FEATURES, classes=CLASSES), CLIENTS)
    zeros = np.zeros((FEATURES, CLASSES)), np.zeros(CLASSES)
    w, b = by_hand(CLIENTS, *zeros, rounds=ROUNDS, slope=one_against_rest_slope, batch=1)
    np.testing.assert_allclose(weights["coef_"].T, w, **CLOSE)
    np.testing.assert_allclose(weights["intercept_"], b, **CLOSE)


def test_sklearn_as_a_functional_model():
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = model_from_sklearn(
        linear_model.SGDClassifier(loss="log_loss", penalty=None),
        features=FEATURES,
        classes=CLASSES,
        metrics=right,
        bounds={"right": 1.0},
    )
    weights, metrics = fed_avg(model, BATCHES)
    zeros = np.zeros((FEATURES, CLASSES)), np.zeros(CLASSES)
    w, b = by_hand(CLIENTS, *zeros, rounds=ROUNDS, slope=one_against_rest_slope)
    np.testing.assert_allclose(weights["coef_"].T, w, **CLOSE)
    np.testing.assert_allclose(weights["intercept_"], b, **CLOSE)
    assert 0 < metrics["train"]["right"] < 1


@pytest.mark.parametrize("classes", [None, 2])
def test_sklearns_losses_have_the_gradients_that_are_claimed(classes):
    linear_model = pytest.importorskip("sklearn.linear_model")
    estimator = (
        linear_model.SGDRegressor(alpha=0.3)
        if classes is None
        else linear_model.SGDClassifier(loss="log_loss", alpha=0.3)
    )
    model = model_from_sklearn(estimator, features=3, classes=classes)
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(5, 3)), rng.integers(2, size=5)
    weights = {"coef_": rng.normal(size=(1, 3)), "intercept_": rng.normal(size=1)}
    _, gradient = model.loss_and_gradient(weights, batch)
    for name, array in weights.items():
        for index in np.ndindex(array.shape):
            up, down = ({**weights, name: array.copy()} for _ in range(2))
            up[name][index] += 1e-6
            down[name][index] -= 1e-6
            slope = (model.loss_and_gradient(up, batch)[0] - model.loss_and_gradient(down, batch)[0]) / 2e-6
            assert gradient[name][index] == pytest.approx(slope, abs=1e-7)
