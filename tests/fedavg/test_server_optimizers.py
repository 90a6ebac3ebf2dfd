"""Server optimizers against the arithmetic written out."""

import numpy as np
import pytest

from fedavg import ParameterError, adagrad, adam, sgd, yogi


def test_plain_sgd_is_fedavg():
    optimizer = sgd()
    state = optimizer.initialize(3, np.float32)
    _, weights = optimizer.update(state, np.ones(3, np.float32), np.full(3, 0.5, np.float32))
    np.testing.assert_array_equal(weights, np.full(3, 1.5, np.float32))
    assert weights.dtype == np.float32


def test_momentum_keeps_a_share_of_each_step():
    optimizer = sgd(learning_rate=0.1, momentum=0.9)
    rng = np.random.default_rng(1)
    averages = rng.normal(size=(5, 4))
    state, weights = optimizer.initialize(4, np.float64), np.zeros(4)
    expected, velocity = np.zeros(4), np.zeros(4)
    for average in averages:
        state, weights = optimizer.update(state, weights, average)
        velocity = 0.9 * velocity + average
        expected = expected + 0.1 * velocity
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_updates_are_pure():
    optimizer = sgd(momentum=0.5)
    state, weights, average = optimizer.initialize(2, np.float64), np.zeros(2), np.ones(2)
    first = optimizer.update(state, weights, average)[1]
    second = optimizer.update(state, weights, average)[1]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(weights, np.zeros(2))


@pytest.mark.parametrize(
    "settings", [{"learning_rate": 0.0}, {"learning_rate": np.inf}, {"momentum": 1.0}, {"momentum": -0.1}]
)
def test_values_out_of_range_are_refused(settings):
    with pytest.raises(ParameterError, match="give a"):
        sgd(**settings)


def run(optimizer, averages, dtype=np.float64):
    state, weights = optimizer.initialize(averages.shape[1], dtype), np.zeros(averages.shape[1], dtype)
    for average in averages.astype(dtype):
        state, weights = optimizer.update(state, weights, average)
        assert weights.dtype == dtype
        assert all(array.dtype == dtype or array.dtype == np.int64 for array in state.values())
    return weights


@pytest.mark.parametrize("name", ["adam", "yogi"])
def test_adam_and_yogi_are_optaxs(name):
    optax = pytest.importorskip("optax")
    jnp = pytest.importorskip("jax.numpy")
    averages = np.random.default_rng(2).normal(size=(6, 5)).astype(np.float32)
    rule = {
        "adam": optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-3),
        "yogi": optax.scale_by_yogi(b1=0.9, b2=0.99, eps=1e-3, initial_accumulator_value=0.0),
    }[name]
    weights = jnp.zeros(5)
    state = rule.init(weights)
    for average in averages:
        change, state = rule.update(jnp.asarray(average), state)
        weights = weights + 0.1 * change
    ours = run({"adam": adam, "yogi": yogi}[name](learning_rate=0.1), averages, np.float32)
    np.testing.assert_allclose(ours, np.asarray(weights), rtol=1e-5)


def test_adagrad_is_its_formula():
    averages = np.random.default_rng(3).normal(size=(4, 3))
    expected, squares = np.zeros(3), np.full(3, 0.1)
    for average in averages:
        squares = squares + average**2
        expected = expected + 0.2 * average / (np.sqrt(squares) + 1e-3)
    ours = run(adagrad(learning_rate=0.2, initial=0.1), averages)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_adagrad_is_optaxs():
    """optax adds its epsilon under the root, ours (the paper's) beside it: without either, they are one."""
    optax = pytest.importorskip("optax")
    averages = np.random.default_rng(3).normal(size=(6, 5)).astype(np.float32)
    rule = optax.scale_by_rss(initial_accumulator_value=0.1, eps=0.0)
    weights = np.zeros(5)
    state = rule.init(weights)
    for average in averages:
        change, state = rule.update(average, state)
        weights = weights + 0.2 * np.asarray(change)
    ours = run(adagrad(learning_rate=0.2, epsilon=1e-12, initial=0.1), averages, np.float32)
    np.testing.assert_allclose(ours, weights, rtol=1e-5)


def test_sgd_with_momentum_is_optaxs_along_a_schedule_of_optaxs():
    optax = pytest.importorskip("optax")
    schedule = optax.exponential_decay(0.5, transition_steps=2, decay_rate=0.5)
    averages = np.random.default_rng(4).normal(size=(6, 5)).astype(np.float32)
    rule = optax.sgd(schedule, momentum=0.9)
    weights = np.zeros(5)
    state = rule.init(weights)
    for average in averages:
        change, state = rule.update(-average, state)
        weights = weights + np.asarray(change)
    ours = run(sgd(learning_rate=schedule, momentum=0.9), averages, np.float32)
    np.testing.assert_allclose(ours, weights, rtol=1e-5)


SCHEDULED = [
    lambda rate: sgd(learning_rate=rate),
    lambda rate: adam(learning_rate=rate),
    lambda rate: yogi(learning_rate=rate),
    lambda rate: adagrad(learning_rate=rate),
]


@pytest.mark.parametrize("make", SCHEDULED, ids=["sgd", "adam", "yogi", "adagrad"])
def test_every_optimizer_follows_a_schedule_from_its_first_update(make):
    averages = np.ones((3, 2))
    asked = []

    def schedule(updates):
        asked.append(updates)
        return 0.25

    np.testing.assert_array_equal(run(make(schedule), averages), run(make(0.25), averages))
    assert asked == [0, 1, 2]
    assert not run(make(lambda updates: 0.0), averages).any()


@pytest.mark.parametrize("rate", [-1.0, np.nan, np.inf])
def test_a_schedule_that_leaves_its_range_is_refused_when_it_does(rate):
    optimizer = sgd(learning_rate=lambda updates: 1.0 if updates == 0 else rate)
    state, weights = optimizer.update(optimizer.initialize(1, np.float64), np.zeros(1), np.ones(1))
    with pytest.raises(ParameterError, match="learning rate"):
        optimizer.update(state, weights, np.ones(1))


def test_yogi_forgets_no_faster_than_it_learns():
    """After large updates, small ones shrink Adam's second moment geometrically and Yogi's by a bounded step."""
    averages = np.concatenate([np.full((5, 1), 10.0), np.full((300, 1), 0.1)])
    assert run(yogi(learning_rate=0.1), averages) < run(adam(learning_rate=0.1), averages) * 0.7


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (adam, {"learning_rate": -1.0}),
        (adam, {"learning_rate": 1.0, "beta1": 1.0}),
        (yogi, {"learning_rate": 1.0, "beta2": 1.5}),
        (adagrad, {"learning_rate": 1.0, "epsilon": 0.0}),
        (adagrad, {"learning_rate": 1.0, "initial": -1.0}),
    ],
)
def test_adaptive_optimizers_refuse_values_out_of_range(make, settings):
    with pytest.raises(ParameterError, match="give"):
        make(**settings)
