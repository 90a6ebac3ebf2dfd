"""Evaluation over clients: sums finalised on the server, bounded, noised and charged like training."""

import numpy as np
import pytest

import dp
from fedavg import ClientData, ParameterError, RunEntropy, SecureAggregation, sgd
from fedavg.evaluation import build_fed_eval
from fedavg.insecure import insecure_sum
from fedavg.model import FunctionalModel
from fedavg.processes import build_unweighted_fed_avg, private_sum, spent_together

MODEL = FunctionalModel(
    weights={"w": np.zeros(1)},
    loss_and_gradient=lambda weights, batch: (0.0, {"w": np.zeros(1)}),
    metrics=lambda weights, batch: {"error": float(np.abs(batch[0] - weights["w"]).sum())},
    bounds={"error": 10.0},
    finalizers={"error": lambda sums: 100 * sums["error"] / sums["num_examples"]},
)
CLIENTS = [(np.full(n, float(n)),) for n in range(1, 21)]


def private(**changes):
    promise = dp.Privacy(noise_multiplier=0.1, delta=1e-5, l2_clip_norm=1.0)
    settings = {"rounds": 2, "cohort_size": 20, "most_examples": 20, "entropy": RunEntropy.seeded(1)}
    return private_sum(promise, **{**settings, "secure": SecureAggregation.ideal(), **changes})


def test_a_plain_evaluation_is_the_mean_over_all_examples_finalised_on_the_server():
    evaluation = build_fed_eval(MODEL, model_aggregator=insecure_sum)
    state = evaluation.set_model_weights(evaluation.initialize(), {"w": np.ones(1)})
    output = evaluation.next(state, CLIENTS)
    errors = np.concatenate([client[0] - 1 for client in CLIENTS])
    assert output.metrics["eval"] == {"error": pytest.approx(100 * errors.mean()), "num_examples": 210.0}
    np.testing.assert_array_equal(evaluation.get_model_weights(output.state)["w"], np.ones(1))


def test_a_private_evaluation_is_noised_and_charged():
    evaluation = build_fed_eval(MODEL, model_aggregator=private())
    state = evaluation.initialize()
    first, second = (evaluation.next(state, CLIENTS).metrics for _ in range(2))
    exact = sum(min(float(n), 10.0) * n for n in range(1, 21)) / 210  # each client's sum is cut to its bound
    for metrics in (first, second):
        assert metrics["eval"]["num_examples"] == pytest.approx(210, abs=40)
        assert metrics["eval"]["error"] == pytest.approx(100 * exact, rel=0.2)
    assert first["eval"] != second["eval"]
    assert second["epsilon"].server > first["epsilon"].server > 0


def test_the_real_protocol_gives_the_ideal_evaluation():
    def metrics(secure):
        evaluation = build_fed_eval(
            MODEL, model_aggregator=private(secure=secure, population=60, cohort_size=20)
        )
        return evaluation.next(evaluation.initialize(), ClientData.of(CLIENTS * 3)).metrics

    masked, plain = metrics(SecureAggregation()), metrics(SecureAggregation.ideal())
    assert masked["eval"] == plain["eval"]
    assert masked["bytes_up_per_client"] > 0


def test_one_client_cannot_decide_the_mean_by_the_number_of_its_examples():
    """A client of a million examples counts as one of `most_examples`."""
    evaluation = build_fed_eval(
        lambda weights, data: {"score": data.mean()},
        weights={"w": np.zeros(1)},
        metrics={"score": 1.0},
        model_aggregator=private(most_examples=10),
    )
    crowd = [*(np.zeros(10) for _ in range(19)), np.ones(10**6)]
    output = evaluation.next(evaluation.initialize(), crowd)
    assert output.metrics["eval"]["score"] == pytest.approx(1 / 20, abs=0.05)


def test_clients_past_the_bound_on_examples_keep_their_mean():
    evaluation = build_fed_eval(
        lambda weights, data: {"score": data.mean()},
        weights={"w": np.zeros(1)},
        metrics={"score": 1.0},
        model_aggregator=private(most_examples=10),
    )
    output = evaluation.next(evaluation.initialize(), [np.full(1000, 0.5) for _ in range(20)])
    assert output.metrics["eval"]["score"] == pytest.approx(0.5, abs=0.1)


def test_training_and_evaluating_the_same_clients_adds_up():
    training = build_unweighted_fed_avg(MODEL, sgd(learning_rate=0.1), model_aggregator=private())
    evaluation = build_fed_eval(MODEL, model_aggregator=private())
    state = training.next(training.initialize(), CLIENTS).state
    held = evaluation.set_model_weights(evaluation.initialize(), training.get_model_weights(state))
    evaluation.next(held, CLIENTS)
    epsilon, delta = spent_together(training, evaluation)
    single = training.statement().server.epsilon
    assert epsilon.server == pytest.approx(single + evaluation.statement().server.epsilon)
    assert delta == 2e-5
    plain = build_fed_eval(MODEL, model_aggregator=insecure_sum)
    assert spent_together(training, plain)[0].readers == np.inf


def test_training_and_evaluation_may_spend_one_budget(tmp_path):
    """A shared ledger holds both; once training has spent it, evaluation is refused, and the other way round."""
    path = tmp_path / "shared.sqlite"
    single = build_unweighted_fed_avg(MODEL, sgd(learning_rate=0.1), model_aggregator=private())
    single.next(single.initialize(), CLIENTS)
    budget = dp.SharedBudget(delta=1e-5, server_epsilon=1.5 * single.statement().server.epsilon)
    dp.Ledger.share(path, budget=budget)
    training = build_unweighted_fed_avg(MODEL, sgd(learning_rate=0.1), model_aggregator=private(ledger=path))
    evaluation = build_fed_eval(MODEL, model_aggregator=private(ledger=path))
    training.next(training.initialize(), CLIENTS)
    # What was spent so far is no promise: how far the others go may follow from it. The budget is.
    for process in (training, evaluation):
        promised = process.statement()
        assert promised.server.epsilon == promised.readers.epsilon == budget.server_epsilon
        assert "shared by 2 runs" in promised.server.text
        assert "not chosen by looking" not in promised.readers.text + promised.server.text
    state, rounds = evaluation.initialize(), iter(range(9))

    def spend():
        for _ in rounds:
            evaluation.next(state, CLIENTS)

    with pytest.raises(dp.BudgetExceeded):
        spend()
    assert next(rounds) < 4


def test_a_step_that_can_evaluate_is_taken_as_it_is():
    class Step:
        weights = {"w": np.zeros(1)}  # noqa: RUF012

        def evaluate(self, weights, data):
            return {"mean": data.mean()}

    evaluation = build_fed_eval(Step(), metrics={"mean": 5.0}, model_aggregator=insecure_sum)
    assert evaluation.next(evaluation.initialize(), [np.full(4, 2.0)]).metrics["eval"]["mean"] == 2.0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"model": MODEL}, "insecure_sum for a plain sum"),
        ({"model": MODEL, "metrics": {"a": 1.0}, "model_aggregator": insecure_sum}, "leave these out"),
        ({"model": lambda w, d: {}, "model_aggregator": insecure_sum}, "give weights="),
        (
            {"model": lambda w, d: {}, "weights": {"w": np.zeros(1)}, "model_aggregator": insecure_sum},
            "nothing to",
        ),
    ],
)
def test_evaluations_that_make_no_sense_are_refused(arguments, complaint):
    with pytest.raises(ParameterError, match=complaint):
        build_fed_eval(**arguments)


def test_models_of_any_size_are_evaluated_in_the_open():
    def error(weights, data):
        return {"error": np.abs(data - weights["w"]).mean()}

    evaluation = build_fed_eval(
        error, weights={"w": np.zeros((2, 3))}, metrics={"error": 9.0}, model_aggregator=insecure_sum
    )
    state = evaluation.set_model_weights(evaluation.initialize(), {"w": np.ones((2, 3))})
    seen = evaluation.next(state, [np.full((1, 2, 3), 3.0), np.full((3, 2, 3), 2.0)])
    assert seen.metrics["eval"] == {"error": (2 + 3 * 1) / 4, "num_examples": 4}
