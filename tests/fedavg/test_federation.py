"""A federated run end to end: the same integers with and without masks, refusals, the budget."""

import json
from dataclasses import replace

import numpy as np
import pytest

import dp
import fedavg
import secagg
from fedavg import Federation, RunEntropy, SecureAggregation, train
from tests.fedavg.runs import CLIENTS, PRIVACY, assert_same_weights, settings, step


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("graph", ["complete", "auto"])
def test_ideal_and_real_aggregation_give_the_same_bits(dropout, graph):
    secure = SecureAggregation(dropout=0.2, corruption=0.0, graph=graph)
    real = train(step, CLIENTS, **settings(secure=secure, simulated_dropout=dropout))
    ideal = train(step, CLIENTS, **settings(secure=replace(secure, masked=False), simulated_dropout=dropout))
    assert_same_weights(real.weights, ideal.weights)
    for masked, plain in zip(real.rounds, ideal.rounds, strict=True):
        assert replace(masked, bytes_up_per_client=0) == replace(plain, bytes_up_per_client=0)
        assert masked.bytes_up_per_client > 0


def test_another_seed_gives_other_noise():
    one = train(step, CLIENTS, **settings(secure=SecureAggregation.ideal()))
    two = train(step, CLIENTS, **settings(secure=SecureAggregation.ideal(), entropy=RunEntropy.seeded(6)))
    assert not np.array_equal(one.weights["w"], two.weights["w"])


def test_without_a_seed_nothing_repeats_and_the_statement_does_not_call_itself_a_simulation():
    runs = [
        train(step, CLIENTS, **settings(entropy=None, secure=SecureAggregation.ideal())) for _ in range(2)
    ]
    assert not np.array_equal(runs[0].weights["w"], runs[1].weights["w"])
    assert "simulation, no guarantee" in train(step, CLIENTS, **settings()).statement.readers.text
    real = train(step, CLIENTS, **settings(entropy=None))
    assert "simulation, no guarantee" not in real.statement.readers.text


def test_too_many_dropouts_abort_the_round_and_refund_it(tmp_path):
    federation = Federation(step, CLIENTS, **settings(folder=tmp_path, secure=SecureAggregation(dropout=0.2)))
    federation._lost = federation.plan.cohort // 2
    with pytest.raises(fedavg.RoundAborted) as aborted:
        federation.run_round()
    assert not aborted.value.charged
    assert federation.ledger.spent().readers == 0
    federation._lost = 0
    assert federation.run_round().round == 1


def test_the_budget_ends_the_run(tmp_path):
    """Calibrated to exactly three rounds; one is lost in a crash, so the third would pass the budget."""
    privacy = dp.Privacy(readers_epsilon=3.0, delta=1e-3, l2_clip_norm=1.0)
    changes = {"rounds": 3, "privacy": privacy, "secure": SecureAggregation.ideal(), "folder": tmp_path}
    whole = train(step, CLIENTS, **settings(**{**changes, "folder": None}))
    assert whole.stopped is None
    assert 2.9 < whole.statement.readers.epsilon <= 3.0
    crashed = Federation(step, CLIENTS, **settings(**changes))
    crashed.ledger.reserve()
    del crashed
    federation = Federation(step, CLIENTS, **settings(**changes, resume=True))
    federation.run_round()
    federation.run_round()
    before = federation.ledger.path.read_bytes()
    with pytest.raises(dp.BudgetExceeded):
        federation.run_round()
    assert federation.ledger.path.read_bytes() == before
    stopped = train(step, CLIENTS, **settings(**changes, resume=True))
    assert len(stopped.rounds) == 2
    assert "budget" in stopped.stopped
    assert stopped.statement.readers.epsilon <= 3.0
    assert "1 of them without a result" in stopped.statement.readers.text


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"cohort_size": 61}, fedavg.ParameterError, "61 for 60 clients"),
        ({"cohort_size": 0}, fedavg.ParameterError, "cohort_size is 0"),
        ({"cohort_size": "20"}, fedavg.ParameterError, "cohort_size is '20'"),
        ({"rounds": 0}, fedavg.ParameterError, "rounds is 0"),
        ({"rounds": "3"}, fedavg.ParameterError, "rounds is '3'; give a whole number"),
        ({"rounds": 1.5}, fedavg.ParameterError, "rounds is 1.5; give a whole number"),
        (
            {"privacy": {"delta": 1e-5}},
            fedavg.ParameterError,
            r"privacy is \{'delta': 1e-05\}; give a dp.Privacy",
        ),
        ({"secure": True}, fedavg.ParameterError, "secure is True; give a fedavg.SecureAggregation"),
        ({"task": 5}, fedavg.ParameterError, "task is 5"),
        ({"backend": 5}, fedavg.ParameterError, "backend is 5; give"),
        ({"metrics": {"loss": "5"}}, fedavg.ParameterError, "metric loss has bound '5'; give"),
        (
            {"server_optimizer": "adam"},
            fedavg.ParameterError,
            "server_optimizer is 'adam'; give one that is made",
        ),
        (
            {"server_optimizer": fedavg.sgd},
            fedavg.ParameterError,
            "server_optimizer is <function sgd .*; give one that",
        ),
        (
            {"cohort_size": None, "sampler": "poisson"},
            fedavg.ParameterError,
            "sampler is 'poisson'; give one",
        ),
        (
            {"cohort_size": None, "sampler": dp.FixedSizeSample},
            fedavg.ParameterError,
            "sampler is <class .*; give one",
        ),
        ({"metrics": ["loss"]}, fedavg.ParameterError, r"metrics is \['loss'\]; give a mapping"),
        ({"simulated_dropout": 0.3}, fedavg.ParameterError, "simulated_dropout=0.3"),
        ({"simulated_dropout": "0.1"}, fedavg.ParameterError, "simulated_dropout is '0.1'; give a share"),
        ({"evaluate": 5}, fedavg.ParameterError, "evaluate is 5; give a function"),
        ({"entropy": 7}, fedavg.ParameterError, "entropy is 7; give fedavg.RunEntropy"),
        ({"secure": SecureAggregation(modulus_bits=12)}, dp.ParameterError, "12"),
        ({"secure": SecureAggregation(dropout=0.5, corruption=0.5)}, fedavg.ParameterError, "honest"),
        ({"secure": SecureAggregation(dropout=0.45, corruption=0.4)}, secagg.ParameterError, "dropout"),
        ({"metrics": {"loss": 0.0}}, fedavg.ParameterError, "loss"),
        ({"weights": {"w": np.zeros(2, np.int32)}}, fedavg.TreeError, "int32"),
    ],
)
def test_a_run_that_cannot_keep_its_promise_is_refused_before_anything_is_charged(
    changes, error, says, tmp_path
):
    with pytest.raises(error, match=says):
        Federation(step, CLIENTS, **settings(folder=tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_what_is_no_function_of_reports_is_refused_before_anything_is_charged(tmp_path):
    with pytest.raises(fedavg.ParameterError, match="on_round is 5; give a function"):
        train(step, CLIENTS, **settings(folder=tmp_path / "run"), on_round=5)
    assert not (tmp_path / "run").exists()


def test_a_share_that_is_no_number_is_refused():
    with pytest.raises(fedavg.ParameterError, match=r"dropout is '0.1'; give a share"):
        SecureAggregation(dropout="0.1")


async def waits(weights, data):
    return weights


def yields(weights, data):
    yield weights


@pytest.mark.parametrize("work", [5, waits, yields])
def test_what_is_no_step_is_refused_before_anything_is_charged(work, tmp_path):
    with pytest.raises(fedavg.ParameterError, match=r"step is .*; give a "):
        Federation(work, CLIENTS, **settings(folder=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_who_was_drawn_never_reaches_public_files(tmp_path):
    """Public outputs hold the padded size and the survivors; nothing in them changes with the number drawn."""
    result = train(step, CLIENTS, **settings(folder=tmp_path, secure=SecureAggregation.ideal()))
    names = {path.name for path in (tmp_path / "public").iterdir()}
    assert names == {"rounds.jsonl", "statement.json", "model.npz"}
    line = json.loads((tmp_path / "public" / "rounds.jsonl").read_text().splitlines()[0])
    assert set(line) == {
        "round", "rounds", "cohort", "survivors", "bytes_up_per_client", "epsilon", "metrics", "contributed", "failed",
        "evaluation", "l2_clip_norm",
    }  # fmt: skip
    assert {report.cohort for report in result.rounds} == {result.sampler.cohort_size}
    assert (tmp_path / "operator").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "ideal"])
def test_excess_noise_is_taken_off_and_what_is_left_has_the_stated_deviation(dropout, masked):
    """Steps that change nothing: the released sum is the noise. 6 rounds of 2,000: alpha 1e-4, power at 2/3 and 3/2."""
    from scipy import stats

    secure = SecureAggregation(dropout=0.4, corruption=0.1, excess_noise="remove", masked=masked)
    federation = Federation(
        lambda weights, data: weights,
        CLIENTS,
        **settings(
            weights={"w": np.zeros(2000)},
            rounds=6,
            metrics={},
            secure=secure,
            simulated_dropout=dropout,
            entropy=None,
        ),
    )
    plan = federation.plan
    scale = plan.encoding.scale("update") * federation.sampler.expected
    ratios = []
    before = np.zeros(2000)
    for report in federation:
        after = federation.result().weights["w"]
        stated = plan.mechanism.stddev_of_sum(report.survivors) / scale
        ratios.append((after - before) ** 2 / stated**2)
        before = after
        assert stated * scale < plan.mechanism.local_stddev * np.sqrt(report.survivors)
    low, high = stats.chi2.ppf([5e-5, 1 - 5e-5], 12_000) / 12_000
    ratio = np.mean(ratios)
    assert low < ratio < high
    assert not low < ratio * 9 / 4 < high
    assert not low < ratio * 4 / 9 < high


def test_with_excess_noise_removed_a_round_past_the_tolerance_is_given_up():
    secure = SecureAggregation(dropout=0.2, excess_noise="remove")
    federation = Federation(step, CLIENTS, **settings(secure=secure))
    federation._lost = federation.plan.cohort // 2
    with pytest.raises(fedavg.RoundAborted):
        federation.run_round()


@pytest.mark.parametrize(
    "given", [{"neighbours": 4, "threshold": 2}, {"threshold": 3}, {"graph": "complete", "threshold": 50}]
)
def test_neighbours_and_thresholds_that_do_not_keep_the_promise_are_refused(given):
    clients = CLIENTS * 10
    with pytest.raises(secagg.ParameterError, match="do not meet"):
        Federation(step, clients, **settings(cohort_size=100, secure=SecureAggregation(**given)))


def test_readers_never_cost_more_than_the_server():
    privacy = replace(PRIVACY, max_participations=1)
    result = train(step, CLIENTS, **settings(rounds=10, privacy=privacy, secure=SecureAggregation.ideal()))
    assert result.statement.readers.epsilon <= result.statement.server.epsilon


def test_against_a_malicious_server_the_sums_are_the_same_and_clients_check_each_other():
    """Five stages instead of four, signed keys, a complete graph; the released bits do not change."""
    stages = []
    settled = SecureAggregation(dropout=0.2, corruption=0.0, adversary="malicious")
    chosen = settings(rounds=1, simulated_dropout=0.1)
    checked = train(step, CLIENTS, **chosen, secure=settled, record=lambda stage, *_: stages.append(stage))
    plain = train(step, CLIENTS, **chosen, secure=SecureAggregation.ideal(dropout=0.2, corruption=0.0))
    assert_same_weights(checked.weights, plain.weights)
    assert set(stages) == {"advertise", "share", "masked_input", "consistency", "unmask"}
    with pytest.raises(fedavg.ParameterError, match="split the sum"):
        SecureAggregation(adversary="malicious", graph="sparse")


def test_weights_that_look_like_batch_norm_statistics_are_refused():
    with pytest.raises(fedavg.ParameterError, match="running_mean look like batch-norm"):
        train(step, CLIENTS, **settings(weights={"w": np.zeros(2), "running_mean": np.zeros(2)}))


def test_masks_that_withstand_a_later_quantum_computer_give_the_same_sums_and_are_named():
    settled = SecureAggregation(dropout=0.2, corruption=0.0, key_agreement="x25519-mlkem768")
    chosen = settings(rounds=1, simulated_dropout=0.1)
    hybrid = train(step, CLIENTS, **chosen, secure=settled)
    plain = train(step, CLIENTS, **chosen, secure=SecureAggregation.ideal(dropout=0.2, corruption=0.0))
    assert_same_weights(hybrid.weights, plain.weights)
    assert "quantum" not in hybrid.statement.server.text
