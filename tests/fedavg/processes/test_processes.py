"""Processes: textbook averages under the plain sum; bounds, noise and honest words under the private one."""

import math

import numpy as np
import pytest

import dp
from fedavg import (
    ClientData,
    RoundAborted,
    RunEntropy,
    SecureAggregation,
    TreeError,
    sgd,
)
from fedavg.cli.ledgers import model_hashes
from fedavg.insecure import insecure_sum
from fedavg.model import batches
from fedavg.processes import (
    build_fed_sgd,
    build_unweighted_fed_avg,
    build_weighted_fed_avg,
    build_weighted_fed_prox,
    private_sum,
)
from tests.fedavg.processes.quiet import PRIVACY, WIDE, by_hand, chosen, linear, people, quiet, run


@pytest.mark.parametrize("weighted", [True, False])
def test_plain_federated_averaging_is_the_textbooks(weighted):
    clients = people(7)
    build = build_weighted_fed_avg if weighted else build_unweighted_fed_avg
    process = build(linear(), sgd(learning_rate=0.05), sgd(learning_rate=0.7), model_aggregator=insecure_sum)
    weights, _ = run(process, [batches(4)(client) for client in clients], 4)
    np.testing.assert_allclose(
        weights["w"], by_hand(clients, 4, 0.05, weighted=weighted, server=0.7), atol=1e-12
    )


def test_plain_fedprox_is_the_textbooks_and_zero_strength_is_fedavg():
    clients = people(5)
    data = [batches(4)(client) for client in clients]
    for mu in (0.0, 0.8):
        process = build_weighted_fed_prox(
            linear(), mu, sgd(learning_rate=0.05), model_aggregator=insecure_sum
        )
        weights, _ = run(process, data, 3)
        np.testing.assert_allclose(weights["w"], by_hand(clients, 3, 0.05, weighted=True, mu=mu), atol=1e-12)


def test_plain_fedsgd_is_gradient_descent_on_everybodys_examples():
    clients = people(6)
    process = build_fed_sgd(linear(), sgd(learning_rate=0.1), model_aggregator=insecure_sum)
    weights, _ = run(process, clients, 3)
    x, y = (np.concatenate(arrays) for arrays in zip(*clients, strict=True))
    w = np.zeros(3)
    for _ in range(3):
        w -= 0.1 * 2 * x.T @ (x @ w - y) / len(y)
    np.testing.assert_allclose(weights["w"], w, atol=1e-12)


def test_a_wrapped_loop_is_averaged_as_it_is():
    def step(weights, data):
        return {"w": weights["w"] + data.mean()}, {"mean": data.mean(), "undeclared": 1.0}

    process = build_weighted_fed_avg(
        step,
        weights={"w": np.zeros(2)},
        metrics={"mean": 5.0},
        examples=len,
        model_aggregator=insecure_sum,
    )
    weights, output = run(process, [np.array([1.0]), np.array([2.0, 2.0, 5.0])], 1)
    np.testing.assert_allclose(weights["w"], [2.5, 2.5])
    assert output.metrics["train"] == {"mean": 2.5, "num_examples": 4.0}


def test_the_plain_sum_says_so_in_every_result():
    process = build_unweighted_fed_avg(linear(), sgd(learning_rate=0.1), model_aggregator=insecure_sum)
    _, output = run(process, people(3), 1)
    assert output.metrics["epsilon"] == dp.Epsilons(math.inf, math.inf)
    assert "in the clear" in output.metrics["aggregation"]
    assert process.statement() is None


def test_next_is_pure_and_a_replay_is_charged_again():
    aggregator = private_sum(
        PRIVACY,
        rounds=5,
        cohort_size=20,
        most_examples=12,
        secure=SecureAggregation.ideal(),
        entropy=RunEntropy.seeded(3),
    )
    process = build_weighted_fed_avg(
        linear(), sgd(learning_rate=0.05), sgd(momentum=0.9), model_aggregator=aggregator
    )
    data = people(20)
    start = process.initialize()
    before = process.get_model_weights(start)["w"].copy()
    first, again = process.next(start, data), process.next(start, data)
    np.testing.assert_array_equal(process.get_model_weights(start)["w"], before)
    assert again.metrics["epsilon"].server > first.metrics["epsilon"].server
    assert not np.array_equal(first.state.model.trainable["w"], again.state.model.trainable["w"])
    assert "2 rounds are charged" in process.statement().server.text


def test_weights_are_bounded_and_the_weighted_clip_holds():
    """One client has a thousand times the others' examples and an enormous update: it moves the sum by its clip."""

    def step(weights, data):
        return {"w": weights["w"] + (1e6 if len(data) > 100 else 0.0)}

    process = build_weighted_fed_avg(
        step, weights=WIDE, examples=len, model_aggregator=quiet(cohort_size=40, most_examples=10)
    )
    weights, output = run(process, [*(np.zeros(5) for _ in range(39)), np.zeros(5000)], 1)
    # 39 weights of one half and one of 1 make 20.5; the outlier's clipped update has norm 1, each coordinate 1/20.
    np.testing.assert_allclose(weights["w"].mean(), 1 / 20 / 20.5, rtol=0.1)
    assert output.metrics["train"]["num_examples"] == pytest.approx(205, rel=0.02)


def test_an_update_is_clipped_before_it_is_weighted():
    """Clipping the product instead would let a client of small weight have an update as large as its clip."""
    process = build_weighted_fed_avg(
        lambda weights, data: {"w": weights["w"] + 1e6},
        weights=WIDE,
        examples=len,
        model_aggregator=quiet(most_examples=10),
    )
    weights, _ = run(process, [np.zeros(1) for _ in range(20)], 1)
    np.testing.assert_allclose(weights["w"].mean(), 1 / 20, rtol=0.1)


def test_a_small_noised_weight_sum_does_not_explode_the_average():
    process = build_weighted_fed_avg(
        lambda weights, data: {"w": weights["w"] + 1.0},
        weights=WIDE,
        examples=len,
        model_aggregator=quiet(most_examples=10**6, least_share=0.5, l2_clip_norm=100.0),
    )
    with pytest.warns(UserWarning, match="divided by the public floor of 10000000"):
        weights, _ = run(process, [np.zeros(1) for _ in range(20)], 1)
    assert np.abs(weights["w"]).max() < 5 * 0.01 * 100 / 10


def test_metrics_are_noised_with_everything_else_and_cut_to_their_bounds():
    process = build_unweighted_fed_avg(
        lambda weights, data: (weights, {"loss": 1e9}),
        weights=WIDE,
        metrics={"loss": 2.0},
        examples=len,
        model_aggregator=quiet(most_examples=10),
    )
    data = [np.zeros(5) for _ in range(20)]
    metrics = [process.next(process.initialize(), data).metrics for _ in range(2)]
    assert metrics[0]["train"]["loss"] == pytest.approx(2.0, rel=0.02)
    assert metrics[0]["clients"]["contributed"] == pytest.approx(20, abs=0.5)
    assert metrics[0]["clients"]["contributed"] != metrics[1]["clients"]["contributed"] != 20.0
    assert metrics[0]["train"]["num_examples"] != metrics[1]["train"]["num_examples"] != 100.0


def test_a_failing_client_contributes_zeros_and_is_counted():
    def step(weights, data):
        if data[0] > 0:
            raise OSError("no disk")
        return {"w": weights["w"] + 1.0}

    data = [np.array([float(i % 4 == 0)]) for i in range(20)]
    plain = build_unweighted_fed_avg(step, weights={"w": np.zeros(1)}, model_aggregator=insecure_sum)
    _, output = run(plain, data, 1)
    assert output.metrics["clients"] == {"contributed": 15.0, "failed": 5.0}
    private = build_unweighted_fed_avg(step, weights=WIDE, model_aggregator=quiet(l2_clip_norm=100.0))
    weights, output = run(private, data, 1)
    assert output.metrics["clients"]["failed"] == pytest.approx(5, abs=0.5)
    np.testing.assert_allclose(weights["w"].mean(), 15 / 20, atol=5 * 0.01 * 100 / 20 / 20)


def test_the_real_protocol_gives_the_ideal_sums_bits():
    def outcome(secure):
        aggregator = private_sum(
            PRIVACY,
            rounds=2,
            cohort_size=20,
            population=40,
            most_examples=12,
            secure=secure,
            entropy=RunEntropy.seeded(1),
        )
        process = build_weighted_fed_avg(linear(), sgd(learning_rate=0.05), model_aggregator=aggregator)
        weights, output = run(process, ClientData.of(people(40)), 2)
        return weights["w"], output.metrics

    (real, masked), (ideal, plain) = outcome(SecureAggregation()), outcome(SecureAggregation.ideal())
    np.testing.assert_array_equal(real, ideal)
    assert masked["bytes_up_per_client"] > 0
    assert masked["train"] == plain["train"]


def test_the_budget_stops_the_process_before_the_round():
    privacy = dp.Privacy(server_epsilon=5.0, delta=1e-5, l2_clip_norm=1.0)
    aggregator = private_sum(privacy, rounds=2, cohort_size=20, secure=SecureAggregation.ideal())
    process = build_unweighted_fed_avg(
        linear(metrics=None, bounds={}), sgd(learning_rate=0.1), model_aggregator=aggregator
    )
    data = people(20)
    _, output = run(process, data, 2)
    assert output.metrics["train"] == {}
    with pytest.raises(dp.BudgetExceeded):
        process.next(output.state, data)
    assert process.statement().server.epsilon <= 5.0


def test_a_ledger_names_the_models_that_were_released(tmp_path):
    path = tmp_path / "ledger.sqlite"
    process = build_unweighted_fed_avg(
        linear(),
        sgd(learning_rate=0.05),
        sgd(momentum=0.9),
        model_aggregator=quiet(rounds=3, ledger=path, most_examples=12),
    )
    state = process.initialize()
    for number in (1, 2):
        state = process.next(state, [batches(4)(client) for client in people(20)]).state
        np.savez(tmp_path / f"model-{number}.npz", **process.get_model_weights(state))
    assert dp.verify(path, models=model_hashes(tmp_path, path)).findings == ()


def test_a_ledger_file_goes_on_from_what_was_spent(tmp_path):
    def build():
        aggregator = chosen(ledger=tmp_path / "ledger.sqlite", population=100)
        return build_unweighted_fed_avg(linear(), sgd(learning_rate=0.1), model_aggregator=aggregator)

    population = ClientData.of(people(100))
    first = build()
    spent = first.next(first.initialize(), population).metrics["epsilon"]
    second = build()
    assert second.statement().server.epsilon == spent.server
    assert second.next(second.initialize(), population).metrics["epsilon"].server > spent.server


def test_masks_against_a_malicious_server_give_the_same_average():
    promise = dp.Privacy(noise_multiplier=0.01, delta=1e-5, l2_clip_norm=1.0)
    secure = SecureAggregation(dropout=0.0, corruption=0.0, adversary="malicious")
    process = build_unweighted_fed_avg(
        lambda weights, data: {"w": weights["w"] + data},
        weights={"w": np.zeros(2)},
        model_aggregator=private_sum(promise, rounds=1, cohort_size=12, secure=secure),
    )
    weights, _ = run(process, [np.full(2, 0.5) for _ in range(12)], 1)
    np.testing.assert_allclose(weights["w"], 0.5, atol=0.05)
    assert "may break the protocol" in process.statement().server.text


@pytest.mark.parametrize("other", [{"adversary": "malicious"}, {"key_agreement": "x25519-mlkem768"}])
def test_a_ledger_is_not_continued_under_masks_that_withstand_more(tmp_path, other):
    """Its statement would say of the rounds before what is true of the later ones alone."""

    def build(**secure):
        aggregator = private_sum(
            PRIVACY,
            rounds=4,
            cohort_size=20,
            most_examples=12,
            secure=SecureAggregation(graph="complete", **secure),
            ledger=tmp_path / "ledger.sqlite",
        )
        return build_unweighted_fed_avg(linear(), sgd(learning_rate=0.1), model_aggregator=aggregator)

    first = build()
    first.next(first.initialize(), people(20))
    assert build().statement().server.epsilon > 0
    with pytest.raises(dp.LedgerError, match="another run"):
        build(**other)


def test_a_client_that_returns_nan_counts_as_failed():
    process = build_unweighted_fed_avg(
        lambda weights, data: {"w": weights["w"] * np.nan if data[0] else weights["w"] + 1},
        weights={"w": np.zeros(1)},
        model_aggregator=insecure_sum,
    )
    weights, output = run(process, [np.zeros(1), np.ones(1)], 1)
    assert output.metrics["clients"] == {"contributed": 1.0, "failed": 1.0}
    np.testing.assert_array_equal(weights["w"], [1.0])


def test_learning_rates_may_follow_schedules():
    """The client's by round, the server's by update."""
    clients = people(3)
    data = [batches(4)(client) for client in clients]
    process = build_weighted_fed_avg(
        linear(),
        lambda done: sgd(learning_rate=0.05 / (1 + done)),
        sgd(learning_rate=lambda done: 1.0 if done == 0 else 0.5),
        model_aggregator=insecure_sum,
    )
    weights, _ = run(process, data, 2)
    w = by_hand(clients, 1, 0.05, weighted=True)
    total, count = np.zeros(3), 0
    for x, y in clients:
        local = w.copy()
        for at in range(0, len(y), 4):
            bx, by = x[at : at + 4], y[at : at + 4]
            local -= 0.025 * 2 * bx.T @ (bx @ local - by) / len(by)
        total, count = total + len(y) * (local - w), count + len(y)
    np.testing.assert_allclose(weights["w"], w + 0.5 * total / count, atol=1e-12)


def test_the_client_optimizers_state_begins_anew_with_every_client():
    one = people(1)
    process = build_weighted_fed_avg(
        linear(), sgd(learning_rate=0.05, momentum=0.9), model_aggregator=insecure_sum
    )
    alone, _ = run(process, [batches(3)(one[0])], 1)
    twins, _ = run(process, [batches(3)(one[0]), batches(3)(one[0])], 1)
    np.testing.assert_allclose(alone["w"], twins["w"], atol=1e-15)


def test_models_weights_go_in_and_out():
    process = build_unweighted_fed_avg(linear(), sgd(learning_rate=0.1), model_aggregator=insecure_sum)
    state = process.set_model_weights(process.initialize(), {"w": np.arange(3.0)})
    np.testing.assert_array_equal(process.get_model_weights(state)["w"], np.arange(3.0))
    with pytest.raises(TreeError):
        process.set_model_weights(state, {"v": np.arange(3.0)})


def test_type_signatures_are_in_tensorflow_federateds_notation():
    model = linear(
        weights=[np.zeros((784, 10), np.float32), np.zeros(10, np.float32)],
        metrics=None,
        bounds={},
        input_spec=(((None, 784), "float32"), ((None,), "int32")),
    )
    process = build_unweighted_fed_avg(
        model, sgd(learning_rate=0.1), sgd(momentum=0.9), model_aggregator=insecure_sum
    )
    state = (
        "<model=<trainable=<float32[784,10],float32[10]>,non_trainable=<>>,"
        "optimizer=<velocity=float32[7850]>,round=int64>@SERVER"
    )
    assert str(process.initialize.type_signature) == f"( -> {state})"
    assert str(process.next.type_signature).startswith(
        f"(<state={state},data={{<float32[?,784],int32[?]>*}}@CLIENTS> -> <state={state},metrics=<train=<>,"
    )


def test_a_cap_holds_over_a_population():
    """Everybody is drawn every round; after two rounds all are at their cap, and the third holds nobody's data."""
    process = build_unweighted_fed_avg(
        lambda w, d: {"w": w["w"] + 1},
        weights=WIDE,
        model_aggregator=quiet(rounds=3, population=20, max_participations=2),
    )
    state, population, counts = process.initialize(), ClientData.of(people(20)), []
    for _ in range(3):
        state, metrics = (output := process.next(state, population)).state, output.metrics
        counts.append(round(metrics["clients"]["contributed"]))
    assert counts == [20, 20, 0]


def test_a_population_of_a_million_costs_what_its_cohort_costs():
    fetched = []
    population = ClientData(range(10**6), lambda client: fetched.append(client) or np.zeros(1))
    process = build_unweighted_fed_avg(
        lambda w, d: w, weights={"w": np.zeros(4)}, model_aggregator=chosen(population=10**6, cohort_size=30)
    )
    output = process.next(process.initialize(), population)
    assert 5 < len(fetched) < 70
    assert output.metrics["cohort"] == dp.PaddedPoisson(10**6, 30).cohort_size


def test_a_round_without_a_sum_says_whether_it_is_charged():
    """Half the clients' devices vanish: nothing was unmasked, so the round is refunded, and the state is as it was."""
    process = build_unweighted_fed_avg(linear(), sgd(learning_rate=0.1), model_aggregator=chosen())
    plan = process._aggregator.plan

    def lossy(values, *, dropouts, **rest):
        return type(plan).sum_round(plan, values, dropouts={"share": list(range(10))}, **rest)

    object.__setattr__(plan, "sum_round", lossy)
    with pytest.raises(RoundAborted, match="was refunded") as aborted:
        process.next(process.initialize(), people(20))
    assert not aborted.value.charged
    assert process.statement().server.epsilon == 0


def test_a_trusted_server_is_named_and_nothing_is_promised_against_it():
    trusting = dp.Privacy(
        noise_multiplier=1.0, delta=1e-5, l2_clip_norm=1.0, mechanism="central_gaussian", trusted_server=True
    )
    aggregator = private_sum(
        trusting, rounds=1, cohort_size=20, population=200, secure=SecureAggregation.ideal()
    )
    process = build_unweighted_fed_avg(
        linear(metrics=None, bounds={}), sgd(learning_rate=0.1), model_aggregator=aggregator
    )
    _, output = run(process, ClientData.of(people(200)), 1)
    assert output.metrics["epsilon"].server == math.inf > output.metrics["epsilon"].readers
    assert "a server that is trusted with the sum" in output.metrics["aggregation"]
