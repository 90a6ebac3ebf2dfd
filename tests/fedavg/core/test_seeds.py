"""The programs that users of TensorFlow Federated know, by their names and types, insecure and private."""

import numpy as np
import pytest

from examples import core_sensors
from fedavg import RunEntropy, SecureAggregation
from fedavg.core import (
    Context,
    InsecureWarning,
    at_clients,
    at_server,
    federated_broadcast,
    federated_clip,
    federated_computation,
    federated_map,
    federated_mean,
    federated_sum,
    federated_zip,
    local_computation,
    within,
)
from fedavg.insecure import insecure_sum
from fedavg.processes import build_weighted_fed_avg

IDEAL = SecureAggregation.ideal()
READINGS = [68.5, 70.3, 69.8]


@federated_computation(at_clients(np.float32))
def get_average_temperature(sensor_readings):
    return federated_mean(federated_clip(sensor_readings, l2=100.0))


@local_computation(np.float32, np.float32, returns=within(np.float32, l2=1.0))
def exceeds(reading, threshold):
    return np.float32(reading > threshold)


@federated_computation(at_clients(np.float32), at_server(np.float32))
def get_fraction_over_threshold(readings, threshold):
    return federated_mean(federated_map(exceeds, (readings, federated_broadcast(threshold))))


def insecurely(computation, *arguments):
    with Context(insecure=True), pytest.warns(InsecureWarning):
        return computation(*arguments)


def test_hello():
    hello = federated_computation(lambda: "Hello, World!")
    assert hello() == "Hello, World!"
    assert str(hello.type_signature) == "( -> str)"


def test_average_temperature_in_an_insecure_context():
    assert str(get_average_temperature.type_signature) == "({float32}@CLIENTS -> float32@SERVER)"
    assert insecurely(get_average_temperature, READINGS) == pytest.approx(69.53333, abs=1e-5)


def test_the_unbounded_program_of_the_tutorial_runs_insecurely_and_nowhere_else():
    @federated_computation(at_clients(np.float32), insecure=True)
    def average(sensor_readings):
        return federated_mean(sensor_readings)

    assert str(average.type_signature) == "({float32}@CLIENTS -> float32@SERVER)"
    assert insecurely(average, READINGS) == pytest.approx(69.53333, abs=1e-5)


def test_average_temperature_is_private_within_its_stated_error():
    """10,000 sensors, everybody asked, epsilon 1: runs stay within four stated deviations; two thirds of one would
    not hold for all of them."""
    readings = np.random.default_rng(5).normal(69.5, 1.0, 10_000).astype(np.float32).tolist()
    errors = []
    for seed in range(2):
        context = Context(
            population=10_000,
            delta=1e-6,
            readers_epsilon=1.0,
            secure=SecureAggregation.ideal(one_draw=True),
            entropy=RunEntropy.seeded(seed),
        )
        (event,) = context.privacy(get_average_temperature).events
        with context:
            errors.append(
                (get_average_temperature(readings) - np.mean(readings)) / (event.stddev[0] / 10_000)
            )
    assert event.stddev[0] / 10_000 < 0.06  # degrees
    assert max(map(abs, errors)) < 4
    assert max(map(abs, errors)) > 2 / 3


def test_the_example_of_the_sensors_says_what_it_costs_and_rejects_the_leak(capsys):
    found, errors, readings = core_sensors.main(sensors=500, epsilon=4.0)
    printed = capsys.readouterr().out
    assert "(<readings={float32}@CLIENTS,threshold=float32@SERVER> -> <average=float32@SERVER" in printed
    assert "epsilon 4.000" in printed
    assert "rejected: core_sensors.py, line" in printed
    assert abs(found["average"] - readings.mean()) < 5 * errors[0]
    assert abs(found["share_over"] - (readings > 70).mean()) < 5 * errors[1]


def test_fraction_over_a_broadcast_threshold():
    assert str(get_fraction_over_threshold.type_signature) == (
        "(<readings={float32}@CLIENTS,threshold=float32@SERVER> -> float32@SERVER)"
    )
    assert insecurely(get_fraction_over_threshold, READINGS, 70.0) == pytest.approx(1 / 3, abs=1e-6)
    readings = [60.0 + i % 20 for i in range(1000)]
    with Context(population=1000, delta=1e-5, noise_multiplier=2.0, secure=IDEAL):
        assert get_fraction_over_threshold(readings, 70.0) == pytest.approx(0.45, abs=0.02)


WEIGHTS = {"w": (np.float64, (3,)), "b": np.float64}
EXAMPLES = {"x": (np.float64, (None, 3)), "y": (np.float64, (None,))}


def gradient_step(weights, batch):
    error = batch["x"] @ weights["w"] + weights["b"] - batch["y"]
    gradient = {"w": batch["x"].T @ error / len(error), "b": error.mean()}
    return {name: weights[name] - 0.1 * gradient[name] for name in ("w", "b")}


def federated_averaging(clip):
    """A round of FedAvg, by hand: train from the broadcast model, average the clipped change, weigh by examples."""

    @local_computation
    def train(weights, batch):
        trained = weights
        for _ in range(5):
            trained = gradient_step(trained, batch)
        return {name: trained[name] - weights[name] for name in ("w", "b")}

    @local_computation
    def count(batch):
        return np.float64(len(batch["y"]))

    @local_computation
    def apply(weights, change):
        return {name: weights[name] + change[name] for name in ("w", "b")}

    @federated_computation(at_server(WEIGHTS), at_clients(EXAMPLES))
    def next_round(server_weights, data):
        change = federated_map(train, (federated_broadcast(server_weights), data))
        examples = federated_clip(federated_map(count, data), l2=20.0)
        average = federated_mean(federated_clip(change, l2=clip), examples)
        return federated_map(apply, (server_weights, average))

    return next_round


def population(clients, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 20, clients)
    features = [rng.normal(size=(n, 3)) for n in sizes]
    return [{"x": x, "y": x @ np.array([1.0, -2.0, 0.5]) + 0.3} for x in features]


def plain_fedavg(weights, data):
    changes, sizes = [], []
    for batch in data:
        trained = weights
        for _ in range(5):
            trained = gradient_step(trained, batch)
        changes.append({name: trained[name] - weights[name] for name in weights})
        sizes.append(len(batch["y"]))
    return {
        name: weights[name] + sum(n * c[name] for n, c in zip(sizes, changes, strict=True)) / sum(sizes)
        for name in weights
    }


def test_a_round_of_fedavg_by_hand_is_plain_fedavg():
    data, weights = population(12), {"w": np.zeros(3), "b": np.float64(0)}
    next_round = federated_averaging(clip=100.0)
    assert str(next_round.type_signature) == (
        "(<server_weights=<w=float64[3],b=float64>@SERVER,data={<x=float64[?,3],y=float64[?]>}@CLIENTS>"
        " -> <w=float64[3],b=float64>@SERVER)"
    )
    ours, plain = insecurely(next_round, weights, data), plain_fedavg(weights, data)
    np.testing.assert_allclose(ours["w"], plain["w"], rtol=1e-12)
    np.testing.assert_allclose(ours["b"], plain["b"], rtol=1e-12)


def test_a_round_of_fedavg_by_hand_is_the_built_one():
    """The same step, weighted by examples: three rounds of `build_weighted_fed_avg`, and of the program above."""

    def step(weights, batch):
        for _ in range(5):
            weights = gradient_step(weights, batch)
        return weights

    data, weights = population(12), {"w": np.zeros(3), "b": np.zeros(())}
    process = build_weighted_fed_avg(
        step, weights=weights, examples=lambda batch: len(batch["y"]), model_aggregator=insecure_sum
    )
    state, next_round = process.initialize(), federated_averaging(clip=100.0)
    for _ in range(3):
        state = process.next(state, data).state
        weights = insecurely(next_round, weights, data)
    built = process.get_model_weights(state)
    np.testing.assert_allclose(weights["w"], built["w"], rtol=1e-12)
    np.testing.assert_allclose(weights["b"], built["b"], rtol=1e-12)
    assert str(process.next.type_signature).startswith("(<state=<model=<trainable=<w=float64[3],b=float64>")


def test_fedavg_by_hand_learns_privately_round_after_round():
    data, weights = population(500), {"w": np.zeros(3), "b": np.float64(0)}
    next_round = federated_averaging(clip=2.0)
    context = Context(
        population=500, delta=1e-5, readers_epsilon=8.0, rounds=6, secure=IDEAL, entropy=RunEntropy.seeded(1)
    )
    with context:
        for _ in range(6):
            weights = next_round(weights, data)
    assert np.linalg.norm(weights["w"] - [1.0, -2.0, 0.5]) < 0.5
    assert context.ledger(next_round).spent().readers <= 8.0


def test_federated_evaluation_sums_what_it_divides():
    @local_computation
    def evaluate(weights, batch):
        error = batch["x"] @ weights["w"] + weights["b"] - batch["y"]
        return {"loss": np.float64((error**2).sum()), "examples": np.float64(len(error))}

    @local_computation
    def finish(sums):
        return {"loss": sums["loss"] / max(sums["examples"], 1.0), "examples": sums["examples"]}

    @federated_computation(at_server(WEIGHTS), at_clients(EXAMPLES))
    def evaluation(server_weights, data):
        values = federated_map(evaluate, (federated_broadcast(server_weights), data))
        bounded = federated_zip(
            {
                "loss": federated_clip(values.loss, l2=200.0),
                "examples": federated_clip(values.examples, l2=20.0),
            }
        )
        return federated_map(finish, federated_sum(bounded))

    data, weights = population(400), {"w": np.zeros(3), "b": np.float64(0)}
    assert str(evaluation.type_signature).endswith("-> <loss=float64,examples=float64>@SERVER)")
    exact = insecurely(evaluation, weights, data)
    examples = sum(len(batch["y"]) for batch in data)
    assert exact["examples"] == examples
    assert exact["loss"] == pytest.approx(sum(((b["y"] - 0) ** 2).sum() for b in data) / examples, rel=1e-12)
    with Context(population=400, delta=1e-5, noise_multiplier=0.8, secure=IDEAL):
        noised = evaluation(weights, data)
    assert noised["loss"] == pytest.approx(exact["loss"], rel=0.35)
    assert noised["loss"] != exact["loss"]
