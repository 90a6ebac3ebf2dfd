"""Personalisation: what fine-tuning on a client's own data gains, as private sums, and nothing personal leaves."""

from dataclasses import replace

import numpy as np
import pytest

import dp
from fedavg import ParameterError, RunEntropy, SecureAggregation, sgd
from fedavg.insecure import insecure_sum
from fedavg.model import FunctionalModel
from fedavg.personalisation import build_personalisation_eval, fine_tune
from fedavg.processes import private_sum

# Every client has its own mean; one global number fits nobody, one step towards its own mean fits it exactly.
MODEL = FunctionalModel(
    weights={"mean": np.zeros(1)},
    loss_and_gradient=lambda weights, batch: (0.0, {"mean": weights["mean"] - batch[0].mean(keepdims=True)}),
    metrics=lambda weights, batch: {"error": float(np.abs(batch[0] - weights["mean"]).sum())},
    bounds={"error": 10.0},
)
CLIENTS = [([(np.full(3, mean),)], (np.full(2, mean),)) for mean in np.linspace(-4, 4, 20)]
STRATEGIES = {
    "half": fine_tune(MODEL, sgd(learning_rate=0.5)),
    "whole": fine_tune(MODEL, sgd(learning_rate=1.0)),
    "loop": lambda weights, data: ({"mean": weights["mean"] + 1.0}, {"private": 1.0}),
}
EXACT = np.abs(np.linspace(-4, 4, 20)).mean()


def test_plain_sums_show_what_each_strategy_gains():
    evaluation = build_personalisation_eval(MODEL, STRATEGIES, model_aggregator=insecure_sum)
    eval_ = evaluation.next(evaluation.initialize(), CLIENTS).metrics["eval"]
    assert eval_["num_examples"] == 40
    assert eval_["baseline/error"] == pytest.approx(EXACT)
    assert eval_["half/error"] == pytest.approx(EXACT / 2)
    assert eval_["whole/error"] == pytest.approx(0, abs=1e-12)
    assert set(eval_) == {"num_examples", *(f"{name}/error" for name in ("baseline", *STRATEGIES))}


def test_more_epochs_go_further():
    more = {"half": fine_tune(MODEL, sgd(learning_rate=0.5), epochs=3)}
    evaluation = build_personalisation_eval(MODEL, more, model_aggregator=insecure_sum)
    metrics = evaluation.next(evaluation.initialize(), CLIENTS).metrics
    assert metrics["eval"]["half/error"] == pytest.approx(EXACT / 8)


def test_private_sums_are_charged_and_close():
    aggregator = private_sum(
        dp.Privacy(noise_multiplier=0.1, delta=1e-5, l2_clip_norm=1.0),
        rounds=1,
        cohort_size=20,
        most_examples=2,
        secure=SecureAggregation.ideal(),
        entropy=RunEntropy.seeded(1),
    )
    evaluation = build_personalisation_eval(MODEL, STRATEGIES, model_aggregator=aggregator)
    metrics = evaluation.next(evaluation.initialize(), CLIENTS).metrics
    assert metrics["eval"]["baseline/error"] == pytest.approx(EXACT, abs=1.0)
    assert metrics["eval"]["whole/error"] == pytest.approx(0, abs=1.0)
    assert metrics["eval"]["whole/error"] != 0
    assert metrics["epsilon"].server > 0


def test_a_plain_function_may_evaluate():
    evaluation = build_personalisation_eval(
        lambda weights, data: {"error": np.abs(data - weights["mean"]).mean()},
        {"own": lambda weights, data: {"mean": data.mean(keepdims=True)}},
        weights={"mean": np.zeros(1)},
        metrics={"error": 10.0},
        model_aggregator=insecure_sum,
    )
    metrics = evaluation.next(evaluation.initialize(), [(np.full(3, 2.0), np.full(5, 2.5))]).metrics["eval"]
    assert metrics == {"baseline/error": 2.5, "own/error": 0.5, "num_examples": 5.0}


@pytest.mark.parametrize("name", [None, "baseline", "a/b"])
def test_strategies_must_be_there_and_hide_nothing(name):
    strategies = {} if name is None else {name: lambda weights, data: weights}
    with pytest.raises(ParameterError, match="at least one, none called baseline"):
        build_personalisation_eval(MODEL, strategies, model_aggregator=insecure_sum)


def test_a_step_without_an_evaluation_is_refused():
    class Step:
        weights = {"w": np.zeros(1)}  # noqa: RUF012
        evaluate = None

    with pytest.raises(ParameterError, match="a way to evaluate"):
        build_personalisation_eval(Step(), STRATEGIES, model_aggregator=insecure_sum)
    with pytest.raises(ParameterError, match="0 epochs"):
        fine_tune(MODEL, sgd(), epochs=0)


def test_strategies_that_train_in_place_do_not_build_on_each_other():
    def in_place(weights, data):
        weights["mean"] += 1.0
        return weights

    evaluation = build_personalisation_eval(
        lambda weights, data: {"at": float(weights["mean"][0])},
        {"one": in_place, "two": in_place},
        weights={"mean": np.zeros(1)},
        metrics={"at": 5.0},
        model_aggregator=insecure_sum,
    )
    eval_ = evaluation.next(evaluation.initialize(), CLIENTS).metrics["eval"]
    assert (eval_["baseline/at"], eval_["one/at"], eval_["two/at"]) == (0.0, 1.0, 1.0)


def test_weights_that_are_a_pair_are_personalised_whole():
    evaluation = build_personalisation_eval(
        lambda weights, data: {"at": float(weights[0][0])},
        {"one": lambda weights, data: (weights[0] + 1.0, weights[1])},
        weights=(np.zeros(1), {"b": np.zeros(1)}),
        metrics={"at": 5.0},
        model_aggregator=insecure_sum,
    )
    assert evaluation.next(evaluation.initialize(), CLIENTS).metrics["eval"]["one/at"] == 1.0


def test_the_models_finalizers_are_applied_to_each_strategy():
    model = replace(MODEL, finalizers={"error": lambda sums: 100 * sums["error"] / sums["num_examples"]})
    evaluation = build_personalisation_eval(
        model, {"half": fine_tune(model, sgd(learning_rate=0.5))}, model_aggregator=insecure_sum
    )
    eval_ = evaluation.next(evaluation.initialize(), CLIENTS).metrics["eval"]
    assert eval_["baseline/error"] == pytest.approx(100 * EXACT)
    assert eval_["half/error"] == pytest.approx(50 * EXACT)
