"""What one client or one function of the user's does wrong costs no round, and no round is paid for in vain."""

import math

import numpy as np
import pytest

from fedavg import FedAvgError, ParameterError, sgd
from fedavg.insecure import insecure_sum
from fedavg.processes import build_unweighted_fed_avg, build_weighted_fed_avg
from tests.fedavg.processes.quiet import WIDE, chosen, linear, people, quiet

START = {"m": np.zeros(1)}


def towards(weights, data):
    return {"m": weights["m"] + data.mean()}


def plain(step, weights=START, **changes):
    return build_unweighted_fed_avg(step, weights=weights, model_aggregator=insecure_sum, **changes)


def private(step, **changes):
    return build_unweighted_fed_avg(
        step, **{"weights": START, "model_aggregator": chosen(cohort_size=20), **changes}
    )


def numbers(count=20):
    return [np.full(2, float(i)) for i in range(count)]


def trained(process, data):
    output = process.next(process.initialize(), data)
    return process.get_model_weights(output.state), output.metrics["clients"]


def test_an_interrupt_that_a_client_raises_itself_is_its_own_failure():
    """Whether a round ends must not depend on anybody's data."""

    def interrupting(weights, data):
        if data[0] == 1.0:
            raise KeyboardInterrupt
        return {**weights, "m": weights["m"] + data.mean()}

    assert trained(plain(interrupting), numbers(3))[1] == {"contributed": 2.0, "failed": 1.0}
    process = build_unweighted_fed_avg(interrupting, weights=WIDE | START, model_aggregator=quiet())
    assert trained(process, numbers())[1]["failed"] == pytest.approx(1.0, abs=0.4)


def test_a_step_that_takes_the_given_nest_apart_is_warned_about_and_counts():
    with pytest.warns(UserWarning, match="changes the nest of weights that it is given"):
        weights, clients = trained(
            plain(lambda weights, data: {"m": weights.pop("m") + data.mean()}), numbers(3)
        )
    assert clients == {"contributed": 3.0, "failed": 0.0}
    assert weights["m"] == pytest.approx(1.0)


def test_weights_that_are_a_pair_are_not_taken_for_weights_and_metrics():
    pair = (np.zeros(1), {"b": np.zeros(1)})
    process = plain(lambda weights, data: (weights[0] + 1, {"b": weights[1]["b"] + data.mean()}), pair)
    (first, second), clients = trained(process, numbers(3))
    assert clients["failed"] == 0
    assert (first[0], second["b"][0]) == (1.0, 1.0)


def test_examples_that_nobody_counts_need_no_length():
    weights, clients = trained(plain(lambda weights, data: {"m": weights["m"] + data}), [1.0, 3.0])
    assert clients["failed"] == 0
    assert weights["m"] == pytest.approx(2.0)


def test_a_finalizer_that_raises_loses_its_metric_and_not_the_round():
    model = linear(finalizers={"error": lambda sums: math.sqrt(-1.0)})
    process = build_unweighted_fed_avg(model, sgd(learning_rate=0.1), model_aggregator=insecure_sum)
    with pytest.warns(UserWarning, match="finalizer of error raised ValueError"):
        output = process.next(process.initialize(), people(3))
    assert math.isnan(output.metrics["train"]["error"])
    assert output.state.round == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused_before_anything_is_charged(bad):
    with pytest.raises(ParameterError, match="m holds NaN or infinity"):
        private(towards, weights={"m": np.array([bad])})
    process = private(towards)
    with pytest.raises(ParameterError, match="m holds NaN or infinity"):
        process.set_model_weights(process.initialize(), {"m": np.array([bad])})
    assert process.statement().server.epsilon == 0


def test_a_model_that_overflows_in_its_own_type_is_refused():
    """float16 ends at 65504; the flat float32 vector that the optimizer steps is finite still."""
    process = plain(
        lambda weights, data: {"m": weights["m"] + np.float16(1)},
        {"m": np.zeros(1, np.float16)},
        server_optimizer=sgd(learning_rate=1e6),
    )
    with pytest.raises(FedAvgError, match="would leave NaN or infinity"):
        process.next(process.initialize(), numbers(3))


def test_what_the_server_optimizer_cannot_go_on_from_is_refused_before_anything_is_charged():
    falling = private(towards, server_optimizer=sgd(learning_rate=lambda done: -1.0))
    with pytest.raises(ParameterError, match="the schedule gives the learning rate"):
        falling.next(falling.initialize(), numbers())
    momentum = private(towards, server_optimizer=sgd(momentum=0.9))
    with pytest.raises(ParameterError, match="needs 'velocity'; go on from a state of this process"):
        momentum.next(falling.initialize(), numbers())
    assert falling.statement().server.epsilon == momentum.statement().server.epsilon == 0


def test_what_is_no_client_optimizer_is_refused_before_anything_is_charged():
    with pytest.raises(ParameterError, match=r"the client optimizer is 0.1; give fedavg.sgd"):
        build_weighted_fed_avg(linear(), 0.1, model_aggregator=chosen())
    process = build_weighted_fed_avg(linear(), lambda done: 0.1, model_aggregator=chosen())
    with pytest.raises(ParameterError, match="the client optimizer of round 1 is a float"):
        process.next(process.initialize(), people(20))
    assert process.statement().server.epsilon == 0


@pytest.mark.parametrize("name", ["rounds", "cohort_size", "most_examples"])
@pytest.mark.parametrize("value", [2.5, math.nan, "3", 0])
def test_counts_are_whole_numbers(name, value):
    """A bound that is NaN would let the examples of one client through unbounded, or end the round at its vector."""
    with pytest.raises(ParameterError, match=f"{name} is .*; give a whole number, at least 1"):
        chosen(**{name: value})
