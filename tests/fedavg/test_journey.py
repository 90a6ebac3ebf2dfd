"""The journey of TensorFlow Federated's users, step by step, from loading federated data to central evaluation.

The data lies in the SQLite file that their downloads are; the model is Keras', wrapped as it is compiled. One test a
step, in order; each goes on from what the last left.
"""

import math

import numpy as np
import pytest

import dp
import fedavg
from fedavg.datasets import iid, load, natural, read_tff_sqlite
from tests.fedavg.datasets.tensorflow_files import example, float_list, int64_list, write_sqlite

keras = pytest.importorskip("keras")
WRITERS, EACH, COHORT = 60, 12, 20
# So few clients: little noise, so that what is learnt shows, and epsilons to match. Seeded, so that it shows always.
PROMISE = dp.Privacy(noise_multiplier=0.1, delta=1e-3, l2_clip_norm=1.0)
SEEDED = fedavg.RunEntropy.seeded(4)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Digits by sixty writers, two splits, in the layout of TensorFlow Federated's EMNIST."""
    digits, rows = load("digits"), []
    for split, x, y, each in (
        ("train", digits.train_x, digits.train_y, EACH),
        ("test", digits.test_x, digits.test_y, 3),
    ):
        dealt = iid(len(y), clients=WRITERS, examples_per_client=each, seed=1)
        for writer, positions in enumerate(dealt):
            for i in positions:
                message = example(pixels=float_list(*x[i].tolist()), label=int64_list(int(y[i])))
                rows.append((split, f"f{writer:04d}", message))
    path = tmp_path_factory.mktemp("emnist") / "emnist.sqlite"
    write_sqlite(path, rows)
    return path


@pytest.fixture(scope="module")
def data(file):
    """Training and held-out part of the same clients, as pairs (flat pixels, label)."""

    def flat(client):
        return client["pixels"].reshape(len(client["label"]), 64), client["label"]

    shapes = {"label": (), "pixels": (8, 8)}
    return tuple(read_tff_sqlite(file, shapes=shapes, split=split).map(flat) for split in ("train", "test"))


@pytest.fixture(scope="module")
def step():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.InputLayer((64,)), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=loss, metrics=["accuracy"])
    wrapped = fedavg.from_keras(
        model, lambda model, data: model.fit(*data, epochs=2, batch_size=6, verbose=0)
    )
    return model, wrapped


@pytest.fixture(scope="module")
def process(step):
    return fedavg.build_weighted_fed_avg(
        step[1],
        metrics={"loss": 5.0, "accuracy": 1.0},
        model_aggregator=fedavg.private_sum(
            PROMISE, rounds=4, cohort_size=COHORT, population=WRITERS, most_examples=EACH, entropy=SEEDED
        ),
    )


@pytest.fixture(scope="module")
def outputs(process, data):
    state, made = process.initialize(), []
    for _ in range(4):
        made.append(process.next(state, data[0]))
        state = made[-1].state
    return made


def test_load_federated_data_and_list_clients(data):
    train, test = data
    assert train.client_ids == test.client_ids == [f"f{writer:04d}" for writer in range(WRITERS)]
    pixels, labels = train.for_client("f0007")
    assert pixels.shape == (EACH, 64)
    assert labels.dtype == np.int64


def test_preprocess_with_plain_functions(data):
    prepared = data[0].map(fedavg.batches(5, repeat=10, shuffle=0))
    sizes = [len(batch[1]) for batch in prepared.for_client("f0001")]
    assert sizes == [5, 5, 2] * 10
    first, second = (
        np.sort(np.concatenate([b[1] for b in prepared.for_client("f0001")[i : i + 3]])) for i in (0, 3)
    )
    np.testing.assert_array_equal(first, second)


def test_natural_users_and_dictionaries_are_populations_too():
    arrays = fedavg.ClientData.from_arrays(np.arange(4), users=["ada", "bob", "ada", "bob"])
    assert arrays.client_ids == list(natural(["ada", "bob", "ada", "bob"])) == ["ada", "bob"]
    assert fedavg.ClientData.of({"ada": [1]}).for_client("ada") == [1]


def test_cohorts_are_drawn_by_the_sampler_that_the_accountant_assumes(process, outputs):
    sampler = dp.PaddedPoisson(population=WRITERS, expected=COHORT)
    assert outputs[0].metrics["cohort"] == sampler.cohort_size
    assert "padded Poisson" in process.statement().readers.text


def test_look_at_types(process):
    signature = str(process.initialize.type_signature)
    assert signature.startswith("( -> <model=<trainable=<")
    assert "float32[64,10]" in signature
    assert signature.endswith("@SERVER)")


def test_run_and_see_metrics_with_their_epsilon(outputs):
    first, last = outputs[0].metrics, outputs[-1].metrics
    assert last["train"]["loss"] < first["train"]["loss"]
    assert last["train"]["accuracy"] > 0.5
    epsilons = [output.metrics["epsilon"] for output in outputs]
    assert all(0 < e.readers <= e.server < math.inf for e in epsilons)
    assert sorted(epsilons, key=lambda e: e.server) == epsilons
    assert outputs[0].metrics["bytes_up_per_client"] > 0


def test_a_custom_model_reports_sums_that_the_server_finalises(data):
    def chances(weights, x):
        powers = np.exp(x @ weights["w"])
        return powers / powers.sum(axis=1, keepdims=True)

    def loss_and_gradient(weights, batch):
        x, y = batch
        p = chances(weights, x)
        loss = -np.log(p[np.arange(len(y)), y]).mean()
        p[np.arange(len(y)), y] -= 1
        return loss, {"w": x.T @ p / len(y)}

    def metrics(weights, batch):
        x, y = batch
        p = chances(weights, x)
        return {"loss": -np.log(p[np.arange(len(y)), y]).sum(), "right": (p.argmax(axis=1) == y).sum()}

    custom = fedavg.FunctionalModel(
        weights={"w": np.zeros((64, 10))},
        loss_and_gradient=loss_and_gradient,
        metrics=metrics,
        bounds={"loss": 5.0, "right": 1.0},
        finalizers={"right": lambda sums: 100 * sums["right"] / sums["num_examples"]},
    )
    averaging = fedavg.build_unweighted_fed_avg(
        custom, fedavg.sgd(learning_rate=0.2), model_aggregator=fedavg.insecure_sum
    )
    state, prepared = averaging.initialize(), data[0].map(fedavg.batches(6))
    reports = []
    for _ in range(3):
        state, report = (output := averaging.next(state, prepared)).state, output.metrics["train"]
        reports.append(report)
    assert reports[0]["num_examples"] == WRITERS * EACH
    assert 0 < reports[0]["right"] < reports[-1]["right"] <= 100
    assert reports[-1]["loss"] < reports[0]["loss"] < math.log(10)


def test_evaluate_on_held_out_data_of_the_same_clients(step, process, outputs, data):
    evaluation = fedavg.build_fed_eval(
        step[1],
        metrics={"accuracy": 1.0},
        model_aggregator=fedavg.private_sum(
            PROMISE, rounds=1, cohort_size=COHORT, population=WRITERS, most_examples=3, entropy=SEEDED
        ),
    )
    weights = process.get_model_weights(outputs[-1].state)
    state = evaluation.set_model_weights(evaluation.initialize(), weights)
    output = evaluation.next(state, data[1])
    assert output.metrics["eval"]["accuracy"] > 0.5
    assert output.metrics["epsilon"].server > 0
    for name, value in evaluation.get_model_weights(output.state).items():
        np.testing.assert_array_equal(value, weights[name])


def test_central_evaluation_assigns_the_weights_to_keras(step, process, outputs):
    model, digits = step[0], load("digits")
    weights = process.get_model_weights(outputs[-1].state)
    for variable, value in zip(model.trainable_variables, weights.values(), strict=True):
        variable.assign(value)
    _, accuracy = model.evaluate(digits.test_x, digits.test_y, verbose=0)
    assert float(accuracy) > 0.4  # Chance is 0.1.
