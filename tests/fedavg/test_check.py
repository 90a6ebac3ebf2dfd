"""What `check` finds, each by a step that has just that fault."""

import numpy as np
import pytest

from fedavg import FunctionalModel, ParameterError, TreeError, check

WEIGHTS = {"w": np.zeros(3)}
CLIENTS = [np.ones(3), np.full(3, 2.0)]


def kinds(step, **settings):
    return [finding.kind for finding in check(step, CLIENTS, **{"weights": WEIGHTS, **settings})]


def pure(weights, data):
    return {"w": weights["w"] + data}


def test_a_pure_step_has_no_findings():
    assert kinds(pure) == []


def test_optimizer_state_kept_between_clients_is_found():
    velocity = np.zeros(3)

    def step(weights, data):
        velocity[:] = 0.9 * velocity + data
        return {"w": weights["w"] + velocity}

    assert kinds(step) == ["impurity"]


def test_metrics_that_depend_on_who_came_before_are_found():
    seen = []

    def step(weights, data):
        seen.append(data)
        return pure(weights, data), {"norm": np.mean(seen)}

    assert kinds(step, metrics={"norm": 9.0}) == ["impurity"]
    assert kinds(step) == []


def test_a_shared_generator_is_found():
    rng = np.random.default_rng(0)
    assert kinds(lambda weights, data: {"w": rng.normal(size=3)}) == ["impurity"]


def test_writing_into_the_given_weights_is_found():
    def step(weights, data):
        weights["w"] += data
        return weights

    assert kinds(step) == ["mutation"]


@pytest.mark.parametrize(
    "step",
    [
        lambda weights, data: {"v": weights["w"]},
        lambda weights, data: {"w": weights["w"].astype(np.float32)},
        lambda weights, data: {"w": weights["w"][:2]},
        lambda weights, data: {"w": weights["w"] * np.inf},
        lambda weights, data: {"w": weights["w"] / data[7]},
    ],
    ids=["tree", "dtype", "shape", "nan", "raises"],
)
def test_what_would_become_zeros_is_a_failure(step):
    assert kinds(step) == ["failure"]


def test_a_metric_past_its_bound_is_found():
    assert kinds(lambda w, d: (pure(w, d), {"loss": 9.0}), metrics={"loss": 1.0}) == ["metric-bound"]
    assert kinds(lambda w, d: (pure(w, d), {"loss": 0.5}), metrics={"loss": 1.0}) == []


def test_weights_that_cannot_be_averaged_are_refused():
    with pytest.raises(TreeError, match="int"):
        check(pure, CLIENTS, weights={"w": np.zeros(3, int)})


def test_batch_norm_statistics_are_found():
    weights = {"layer": {"kernel": np.zeros(2), "running_var": np.ones(2)}}
    (finding,) = check(lambda weights, data: weights, CLIENTS, weights=weights)
    assert finding.kind == "buffers"
    assert "layer/running_var look like batch-norm statistics" in finding.message


def test_fewer_clients_than_the_cohort_are_found():
    assert kinds(pure, cohort_size=2) == []
    (finding,) = check(pure, CLIENTS, weights=WEIGHTS, cohort_size=3)
    assert str(finding) == "cohort: cohort_size is 3 for 2 clients; give a number from 1 to the population"


def test_all_that_is_wrong_is_found_at_once():
    weights = {"w": np.zeros(3), "moving_mean": np.zeros(3)}
    found = check(lambda weights, data: None, CLIENTS, weights=weights, cohort_size=9)
    assert [finding.kind for finding in found] == ["cohort", "buffers", "failure"]


def test_a_plain_step_needs_weights():
    with pytest.raises(ParameterError, match="give weights="):
        check(pure, CLIENTS)


def functional(**changes):
    made = {
        "weights": WEIGHTS,
        "loss_and_gradient": lambda weights, batch: (0.0, {"w": weights["w"] - batch[0].mean(axis=0)}),
        "metrics": lambda weights, batch: {"norm": np.abs(batch[0]).sum()},
        "bounds": {"norm": 10.0},
    }
    return FunctionalModel(**{**made, **changes})


def test_a_functional_model_is_checked_by_training_it():
    clients = [(np.ones((4, 3)),), (np.zeros((2, 3)),)]
    assert check(functional(), clients) == []
    bad = functional(loss_and_gradient=lambda weights, batch: (0.0, {"v": weights["w"]}))
    (finding,) = check(bad, clients)
    assert finding.kind == "failure"
    (finding,) = check(functional(bounds={"norm": 2.0}), clients)
    assert str(finding) == "metric-bound: metric norm is 3, cut to its bound 2"
