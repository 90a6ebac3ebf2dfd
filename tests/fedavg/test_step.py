"""One client's work: its own copy in, a checked update out, every failure typed."""

import asyncio

import numpy as np
import pytest

from fedavg.errors import StepError
from fedavg.pytree import TreeSpec
from fedavg.step import run_step

WEIGHTS = {"w": np.arange(3.0), "b": np.zeros(1)}
SPEC = TreeSpec.of(WEIGHTS)
FLAT = SPEC.flatten(WEIGHTS)


def run(step, metrics=None):
    return run_step(step, SPEC, FLAT, 2.0, metrics=metrics or {})


def plus(weights, data):
    return {name: array + data for name, array in weights.items()}


def test_the_update_is_the_change_of_the_weights():
    np.testing.assert_array_equal(run(plus).delta, np.full(4, 2.0))


def test_a_step_that_writes_into_its_input_harms_nobody_else():
    def in_place(weights, data):
        for array in weights.values():
            array += data
        return weights

    before = FLAT.copy()
    np.testing.assert_array_equal(run(in_place).delta, np.full(4, 2.0))
    np.testing.assert_array_equal(FLAT, before)


def test_declared_metrics_travel_and_undeclared_ones_stay():
    def step(weights, data):
        return plus(weights, data), {"loss": np.float32(0.5), "secret": 3.0}

    assert run(step, {"loss": 1.0}).metrics == {"loss": 0.5}


def test_weights_that_are_a_pair_are_not_taken_for_weights_and_metrics():
    pair = (np.zeros(2), {"scale": np.zeros(1)})
    spec = TreeSpec.of(pair)
    trained = run_step(lambda weights, _: weights, spec, spec.flatten(pair), None, metrics={})
    np.testing.assert_array_equal(trained.delta, np.zeros(3))


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (lambda w, d: 1 / 0, "ZeroDivisionError"),
        (lambda w, d: None, "unusable nest"),
        (lambda w, d: {**w, "w": np.zeros(4)}, "shape"),
        (lambda w, d: {**w, "w": w["w"].astype(np.float32)}, "float32"),
        (lambda w, d: {**w, "w": w["w"] * np.nan}, "NaN"),
        (lambda w, d: {**w, "w": w["w"] + np.inf}, "infinity"),
        (lambda w, d: {"w": w["w"]}, "other paths"),
        (lambda w, d: w, "loss"),
        (lambda w, d: (w, {"loss": np.nan}), "loss is nan"),
        (lambda w, d: (w, {"loss": "high"}), "not a number"),
        (lambda w, d: (w, {"loss": None}), "not a number"),
    ],
)
def test_every_failure_is_a_step_error_with_its_cause(step, says):
    with pytest.raises(StepError, match=says):
        run(step, {"loss": 1.0})


def cancelled(weights, data):
    raise asyncio.CancelledError("by a time limit of the step's own")


def unspeakable(weights, data):
    class Unspeakable(Exception):
        def __str__(self):
            raise SystemExit

    raise Unspeakable


@pytest.mark.parametrize(("step", "says"), [(cancelled, "CancelledError: by a"), (unspeakable, "no words")])
def test_no_kind_of_error_gets_out_of_a_client(step, says):
    """Not even one that is no `Exception`, such as asyncio's cancellation, or whose words raise another."""
    with pytest.raises(StepError, match=says):
        run(step)


def test_an_interrupt_is_not_swallowed():
    def step(weights, data):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(step)
