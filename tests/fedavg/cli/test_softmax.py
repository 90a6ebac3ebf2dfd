"""The demo's training loop."""

from __future__ import annotations

import numpy as np
import pytest

from fedavg.cli.softmax import SoftmaxRegression
from fedavg.errors import ParameterError


def model(**changes):
    settings = {"features": 3, "classes": 4, "local_epochs": 1, "learning_rate": 1.0}
    return SoftmaxRegression(**(settings | changes))


@pytest.fixture
def examples():
    generator = np.random.default_rng(0)
    return generator.normal(size=(7, 3)).astype(np.float32), generator.integers(0, 4, 7)


def random_weights():
    generator = np.random.default_rng(1)
    return {
        "bias": generator.normal(size=4).astype(np.float32),
        "kernel": generator.normal(size=(3, 4)).astype(np.float32),
    }


def loss(weights, examples):
    images, labels = examples
    scores = images.astype(np.float64) @ weights["kernel"] + weights["bias"]
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]))


def test_one_step_goes_down_the_gradient_of_the_mean_loss(examples):
    start = random_weights()
    trained, reported = model().step(start, examples)
    assert reported["loss"] == pytest.approx(loss(start, examples), rel=1e-5)
    for name, values in start.items():
        for place in np.ndindex(values.shape):
            ends = []
            for nudge in (1e-4, -1e-4):
                moved = {key: value.astype(np.float64) for key, value in start.items()}
                moved[name][place] += nudge
                ends.append(loss(moved, examples))
            gradient = (ends[0] - ends[1]) / 2e-4
            assert start[name][place] - trained[name][place] == pytest.approx(gradient, abs=2e-5)


def test_epochs_are_steps_after_each_other(examples):
    twice, _ = model(local_epochs=2).step(random_weights(), examples)
    once, _ = model().step(random_weights(), examples)
    again, _ = model().step(once, examples)
    np.testing.assert_array_equal(twice["kernel"], again["kernel"])
    np.testing.assert_array_equal(twice["bias"], again["bias"])


def test_a_step_leaves_its_input_alone_and_keeps_form(examples):
    start = random_weights()
    before = {name: values.copy() for name, values in start.items()}
    trained, _ = model(local_epochs=3).step(start, examples)
    for name, values in start.items():
        np.testing.assert_array_equal(values, before[name])
        assert trained[name].shape == values.shape
        assert trained[name].dtype == values.dtype == np.float32


def test_scores_too_large_for_an_exponential_stay_finite(examples):
    huge = {name: values * np.float32(1e4) for name, values in random_weights().items()}
    trained, reported = model().step(huge, examples)
    assert np.isfinite(trained["kernel"]).all()
    assert np.isfinite(reported["loss"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"local_epochs": 0}, "local epochs is 0"),
        ({"learning_rate": 0.0}, "learning rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning rate is nan"),
        ({"learning_rate": float("inf")}, "learning rate is inf"),
    ],
)
def test_settings_that_cannot_train_are_refused(changes, sentence):
    with pytest.raises(ParameterError, match=sentence):
        model(**changes)
