"""Processes refuse what they cannot keep, before anything is charged, and tell what a step does wrong."""

import warnings

import numpy as np
import pytest

import dp
from fedavg import (
    ClientData,
    FedAvgError,
    ParameterError,
    sgd,
)
from fedavg.evaluation import build_fed_eval
from fedavg.insecure import insecure_sum
from fedavg.processes import (
    build_unweighted_fed_avg,
    build_weighted_fed_avg,
    private_sum,
)
from tests.fedavg.processes.quiet import PRIVACY, WIDE, chosen, linear, people, quiet, run


def test_silence_is_no_choice_of_an_aggregator():
    with pytest.raises(ParameterError, match="insecure_sum for a plain sum that protects nobody"):
        build_unweighted_fed_avg(linear(), sgd(learning_rate=0.1))


def test_readers_of_a_chosen_cohort_get_no_amplification_and_of_a_drawn_one_they_do():
    listed = build_unweighted_fed_avg(linear(), sgd(learning_rate=0.05), model_aggregator=chosen())
    _, output = run(listed, people(20), 4)
    spent = output.metrics["epsilon"]
    assert spent.readers == spent.server
    assert spent.server == pytest.approx(
        dp.epsilon_of(listed._aggregator.plan.mechanism, dp.FixedOrder(20, 20), 4, PRIVACY.delta).server
    )
    assert "caller chose" in output.metrics["aggregation"]
    assert "the caller chose the 20 clients" in listed.statement().readers.text
    assert "padded Poisson" not in listed.statement().readers.text

    population = ClientData.of(people(200))
    drawn = build_unweighted_fed_avg(
        linear(), sgd(learning_rate=0.05), model_aggregator=chosen(population=200)
    )
    _, output = run(drawn, population, 4)
    assert output.metrics["epsilon"].readers < output.metrics["epsilon"].server / 2
    assert output.metrics["cohort"] == dp.PaddedPoisson(200, 20).cohort_size
    assert "padded Poisson" in drawn.statement().readers.text


@pytest.mark.parametrize(
    ("population", "data", "complaint"),
    [
        (None, people(19), "list of 19; the plan is for a list of 20"),
        (None, people(21), "list of 21; the plan is for a list of 20"),
        (None, ClientData.of(people(20)), "ClientData of 20; the plan is for a list of 20"),
        (None, people(1) * 20, "stands twice"),
        (200, people(200), "list of 200; the plan draws from a ClientData"),
        (200, ClientData.of(people(199)), "ClientData of 199; the plan draws from a ClientData of all 200"),
    ],
)
def test_other_clients_than_planned_are_refused_before_anything_is_charged(population, data, complaint):
    process = build_unweighted_fed_avg(
        linear(), sgd(learning_rate=0.05), model_aggregator=chosen(population=population)
    )
    with pytest.raises(ParameterError, match=complaint):
        process.next(process.initialize(), data)
    assert process.statement().server.epsilon == 0


def test_examples_are_not_counted_without_a_bound():
    with pytest.raises(ParameterError, match="most_examples=M"):
        build_weighted_fed_avg(
            linear(), sgd(learning_rate=0.1), model_aggregator=private_sum(PRIVACY, rounds=1, cohort_size=20)
        )


def test_an_update_that_would_leave_nan_in_the_model_is_refused():
    process = build_unweighted_fed_avg(
        lambda weights, data: {"w": weights["w"] + data},
        server_optimizer=sgd(learning_rate=1e300),
        weights={"w": np.zeros(1)},
        model_aggregator=insecure_sum,
    )
    with pytest.raises(FedAvgError, match="lower the server's learning rate"):
        process.next(process.initialize(), [np.full(1, 1e300)])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"model": linear()}, "client_optimizer="),
        ({"model": lambda w, d: w}, "give weights="),
        ({"model": lambda w, d: w, "client_optimizer": sgd(), "weights": {}}, "own optimizer"),
        ({"model": linear(), "client_optimizer": sgd(), "metrics": {"a": 1.0}}, "leave these out"),
        ({"model": lambda w, d: w, "weights": {"w": np.zeros(1)}, "metrics": {"a": -1.0}}, "bound -1"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, complaint):
    with pytest.raises(ParameterError, match=complaint):
        build_unweighted_fed_avg(model_aggregator=insecure_sum, **arguments)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"cohort_size": 0}, "cohort_size is 0"),
        ({"weight_share": 1.0}, "weight_share"),
        ({"most_examples": 0}, "at least 1"),
        ({"least_share": 0.0}, "floor"),
    ],
)
def test_settings_of_the_private_sum_are_checked(changes, complaint):
    with pytest.raises(ParameterError, match=complaint):
        chosen(**changes)


def test_a_cap_cannot_be_counted_over_lists():
    capped = dp.Privacy(noise_multiplier=1.0, delta=1e-5, l2_clip_norm=1.0, max_participations=2)
    with pytest.raises(ParameterError, match="nobody can count"):
        private_sum(capped, rounds=1, cohort_size=10)


def spoil(weights, data):
    weights["w"] += 1.0
    return weights


def failing(weights, data):
    return {"v": weights["w"]}


def drifting(weights, data):
    return {"w": weights["w"].astype(np.float32)}


def test_a_step_that_writes_into_its_input_is_told_and_harms_nobody():
    process = build_unweighted_fed_avg(spoil, weights=WIDE, model_aggregator=insecure_sum)
    with pytest.warns(UserWarning, match="writes into the weights it is given") as told:
        weights, _ = run(process, [np.zeros(1), np.zeros(1)], 1)
    assert len(told) == 1
    np.testing.assert_array_equal(weights["w"], WIDE["w"] + 1.0)
    assert not WIDE["w"].any()


@pytest.mark.parametrize(
    ("step", "cause"), [(failing, "other paths than the weights"), (drifting, "dtype float32, not float64")]
)
def test_another_tree_or_dtype_from_everybody_is_told(step, cause):
    plain = build_unweighted_fed_avg(step, weights=WIDE, model_aggregator=insecure_sum)
    with pytest.warns(UserWarning, match=f"2 of 2 clients failed, one with: .*{cause}"):
        run(plain, [np.zeros(1), np.zeros(1)], 1)
    private = build_unweighted_fed_avg(step, weights=WIDE, model_aggregator=quiet())
    with pytest.warns(UserWarning, match="about 20 of 20 clients failed and sent zeros"):
        run(private, [np.zeros(1) for _ in range(20)], 1)


def test_batch_norm_statistics_among_a_plain_steps_weights_are_refused():
    weights = {"layer": {"kernel": np.zeros(2), "running_mean": np.zeros(2)}}
    with pytest.raises(ParameterError, match="layer/running_mean look like batch-norm statistics"):
        build_unweighted_fed_avg(lambda w, d: w, weights=weights, model_aggregator=insecure_sum)


def test_ids_that_cannot_be_counted_are_refused_before_anything_is_charged():
    process = build_unweighted_fed_avg(
        lambda w, d: w, weights=WIDE, model_aggregator=chosen(population=200, cohort_size=30)
    )
    with pytest.raises(dp.ParameterError, match="of type tuple"):
        process.next(
            process.initialize(), ClientData([("ward", i) for i in range(200)], lambda client: client)
        )
    assert process.statement().server.epsilon == 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"clip_quantile": 0.5}, "one fixed l2_clip_norm"),
        ({"l2_clip_norm": {"w": 1.0}}, "one fixed l2_clip_norm"),
        ({"mechanism": "central_matrix", "trusted_server": True}, "fresh noise every round"),
        ({"mechanism": "skellam"}, "fedavg.train has skellam"),
    ],
)
def test_promises_that_processes_cannot_keep_are_refused(changes, complaint):
    promise = dp.Privacy(**{"noise_multiplier": 1.0, "delta": 1e-5, "l2_clip_norm": 1.0, **changes})
    with pytest.raises(ParameterError, match=complaint):
        build_unweighted_fed_avg(
            linear(metrics=None, bounds={}),
            sgd(learning_rate=0.1),
            model_aggregator=private_sum(promise, rounds=1, cohort_size=20),
        )


def told(process, data):
    """What a round warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(process, data, 1)
    return [str(warning.message) for warning in caught]


def test_averages_that_the_public_floor_makes_too_small_are_told():
    """Clients with two examples each, where one with a thousand would count fully."""

    def trained(most, data):
        aggregator = quiet(most_examples=most)
        return told(build_weighted_fed_avg(lambda w, d: w, weights=WIDE, model_aggregator=aggregator), data)

    def evaluated(most, data):
        return told(
            build_fed_eval(
                lambda w, d: {"mean": d.mean()},
                weights=WIDE,
                metrics={"mean": 5.0},
                model_aggregator=chosen(cohort_size=len(data), most_examples=most),
            ),
            data,
        )

    for rounds, clients in ((trained, 20), (evaluated, 2000)):
        data = [np.full((2, 1), 3.0) for _ in range(clients)]
        (warning,) = rounds(1000, data)
        assert f"divided by the public floor of {100 * clients}: they come out too small; lower" in warning
        assert rounds(4, data) == []
