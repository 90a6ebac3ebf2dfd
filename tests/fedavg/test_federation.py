"""A federated run end to end: the same integers with and without masks, failures, resuming, refusals, the budget."""

import json
import signal
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

import dp
import fedavg
import secagg
from fedavg import Federation, RunEntropy, SecureAggregation, train

PRIVACY = dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0)
CLIENTS = [np.full(4, float(i % 3)) for i in range(60)]


def step(weights, data):
    moved = {
        name: array + 0.1 * (data[: array.size].reshape(array.shape) - array)
        for name, array in weights.items()
    }
    return moved, {"loss": float(data.mean())}


def settings(**changes):
    return {
        "weights": {"w": np.zeros((2, 2)), "b": np.zeros(1)},
        "rounds": 2,
        "cohort_size": 20,
        "privacy": PRIVACY,
        "metrics": {"loss": 2.0},
        "entropy": RunEntropy.seeded(5),
        **changes,
    }


def assert_same_weights(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])


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


def raising(weights, data):
    raise RuntimeError("disk on fire")


def nan(weights, data):
    return {name: array * np.nan for name, array in weights.items()}, {"loss": 0.0}


def reshaped(weights, data):
    return {name: array.reshape(-1) for name, array in weights.items()}, {"loss": 0.0}


@pytest.mark.parametrize("bad", [raising, nan, reshaped], ids=["raises", "nan", "reshapes"])
def test_a_failing_client_sends_zeros_with_its_noise_and_nobody_learns_its_name(bad, tmp_path):
    """One client in three fails; the run equals one in which these clients' updates are zero."""
    transcript = []

    def sometimes(weights, data):
        return (bad if data[0] == 2.0 else step)(weights, data)

    result = train(
        sometimes,
        CLIENTS,
        **settings(
            rounds=3,
            folder=tmp_path,
            secure=SecureAggregation(dropout=0.2, corruption=0.0),
            record=lambda *entry: transcript.append(entry),
        ),
    )

    def zero(weights, data):
        return (weights, {"loss": 0.0}) if data[0] == 2.0 else step(weights, data)

    zeros = train(
        zero, CLIENTS, **settings(rounds=3, secure=SecureAggregation.ideal(dropout=0.2, corruption=0.0))
    )
    assert_same_weights(result.weights, zeros.weights)
    assert [report.survivors for report in result.rounds] == [report.survivors for report in zeros.rounds]
    failed = sum(report.failed for report in result.rounds)
    assert failed > sum(report.failed for report in zeros.rounds) + 5

    log = [json.loads(line) for line in (tmp_path / "clients" / "failures.jsonl").read_text().splitlines()]
    assert log
    assert all(int(entry["client"]) % 3 == 2 for entry in log)
    cause = {"raising": "disk on fire", "nan": "NaN", "reshaped": "w has shape (4,)"}[bad.__name__]
    assert all(cause in entry["cause"] for entry in log)
    public = b"".join(path.read_bytes() for path in (tmp_path / "public").iterdir())
    received = b"".join(message for _, _, message in transcript)
    assert cause.encode() not in public + received


def test_a_noised_count_reports_how_many_failed():
    """A quarter of a large cohort fails: the mean noised count of 20 rounds is near it, alpha below 1e-6 at 5 sd."""
    clients = [np.full(4, float(i % 4)) for i in range(400)]

    def quarter(weights, data):
        return step(weights, data) if data[0] else raising(weights, data)

    privacy = dp.Privacy(noise_multiplier=0.5, delta=1e-3, l2_clip_norm=1.0, metrics_share=0.1)
    result = train(
        quarter,
        clients,
        **settings(privacy=privacy, rounds=20, cohort_size=200, secure=SecureAggregation.ideal()),
    )
    sd = np.sqrt((result.plan.stddev_of_sum("scalars") ** 2 + 200 * 0.25) / 20)
    failed = np.mean([report.failed for report in result.rounds])
    assert abs(failed - 50) < 5 * sd
    assert abs(np.mean([report.contributed for report in result.rounds]) - 150) < 5 * sd


def test_a_run_goes_on_where_it_stopped(tmp_path):
    whole = train(step, CLIENTS, **settings(rounds=4, secure=SecureAggregation.ideal()))
    first = Federation(step, CLIENTS, **settings(rounds=4, secure=SecureAggregation.ideal(), folder=tmp_path))
    first.run_round()
    first.run_round()
    del first
    rest = train(
        step, CLIENTS, **settings(rounds=4, secure=SecureAggregation.ideal(), folder=tmp_path, resume=True)
    )
    assert_same_weights(rest.weights, whole.weights)
    assert rest.rounds == whole.rounds
    lines = [json.loads(line) for line in (tmp_path / "public" / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3, 4]


KILLED = """
    import os, signal, sys
    import numpy as np
    import dp, fedavg
    sys.path.insert(0, sys.argv[2])
    from test_federation import CLIENTS, settings, step

    seen = []
    def record(stage, sender, message):
        if sys.argv[3] == stage and len(fed.reports) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    fed = fedavg.Federation(step, CLIENTS, **settings(rounds=3, folder=sys.argv[1], record=record,
                            secure=fedavg.SecureAggregation(dropout=0.2, corruption=0.0)))
    for report in fed:
        pass
"""


@pytest.mark.parametrize("stage", ["advertise", "masked_input", "unmask"])
def test_killed_in_mid_round_the_run_resumes_and_the_lost_round_stays_charged(stage, tmp_path):
    script = textwrap.dedent(KILLED)
    here = str(__import__("pathlib").Path(__file__).parent)
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), here, stage], check=False, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    resumed = train(
        step,
        CLIENTS,
        **settings(
            rounds=3, folder=tmp_path, resume=True, secure=SecureAggregation(dropout=0.2, corruption=0.0)
        ),
    )
    assert [report.round for report in resumed.rounds] == [1, 2, 3]
    kinds = [(row.kind, row.round) for row in dp.Ledger.open(resumed.ledger).rows() if row.kind != "plan"]
    assert kinds == [
        ("reserve", 1),
        ("settle", 1),
        ("reserve", 2),
        ("reserve", 3),
        ("settle", 3),
        ("reserve", 4),
        ("settle", 4),
    ]
    never_lost = train(
        step, CLIENTS, **settings(rounds=4, secure=SecureAggregation.ideal(dropout=0.2, corruption=0.0))
    )
    assert resumed.statement.readers.epsilon == never_lost.statement.readers.epsilon


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
        ({"rounds": 0}, fedavg.ParameterError, "rounds is 0"),
        ({"simulated_dropout": 0.3}, fedavg.ParameterError, "simulated_dropout=0.3"),
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


def test_a_folder_is_only_ever_continued(tmp_path):
    train(step, CLIENTS, **settings(folder=tmp_path, secure=SecureAggregation.ideal()))
    with pytest.raises(fedavg.CheckpointError, match="already holds a run"):
        Federation(step, CLIENTS, **settings(folder=tmp_path, secure=SecureAggregation.ideal()))
    with pytest.raises(fedavg.CheckpointError, match="rounds"):
        Federation(
            step,
            CLIENTS,
            **settings(folder=tmp_path, resume=True, rounds=9, secure=SecureAggregation.ideal()),
        )


def test_a_ledger_of_another_run_is_refused(tmp_path):
    train(step, CLIENTS, **settings(folder=tmp_path / "one", secure=SecureAggregation.ideal()))
    ledger = tmp_path / "one" / "operator" / "ledger.sqlite"
    with pytest.raises(dp.LedgerError):
        Federation(
            step,
            CLIENTS,
            **settings(folder=tmp_path / "two", ledger=ledger, rounds=7, secure=SecureAggregation.ideal()),
        )


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


def test_a_capped_client_pads_from_then_on():
    """With a cap of one, nobody trains twice, however many rounds run."""
    trained = []

    def counting(weights, data):
        trained.append(int(data[3]))
        return step(weights, data)

    clients = [np.array([0.0, 0.0, 0.0, i]) for i in range(60)]
    train(
        counting,
        clients,
        **settings(
            rounds=8, privacy=replace(PRIVACY, max_participations=1), secure=SecureAggregation.ideal()
        ),
    )
    assert len(trained) == len(set(trained)) > 40


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


def run_two_of_four(folder, **changes):
    federation = Federation(
        step, CLIENTS, **settings(rounds=4, folder=folder, secure=SecureAggregation.ideal(), **changes)
    )
    federation.run_round()
    federation.run_round()
    return federation.ledger.path


@pytest.mark.parametrize("theft", ["another ledger", "ledger removed", "tail cut", "counts removed"])
def test_a_run_never_goes_on_with_less_than_it_has_spent(theft, tmp_path):
    ledger = run_two_of_four(tmp_path / "run")
    changes = {}
    if theft == "another ledger":
        changes["ledger"] = tmp_path / "fresh.sqlite"
    elif theft == "ledger removed":
        ledger.unlink()
    elif theft == "tail cut":
        with sqlite3.connect(ledger) as raw:
            raw.execute("DROP TRIGGER no_delete")
            raw.execute("DELETE FROM row WHERE sequence >= 3")
        raw.close()
    else:
        ledger.with_name("ledger.participations.sqlite").unlink()
    with pytest.raises(dp.LedgerError):
        Federation(
            step,
            CLIENTS,
            **settings(
                rounds=4, folder=tmp_path / "run", resume=True, secure=SecureAggregation.ideal(), **changes
            ),
        )
    assert not (tmp_path / "fresh.sqlite").exists()


@pytest.mark.parametrize("second", [None, "other"], ids=["no folder", "another folder"])
def test_the_cap_holds_over_everything_charged_to_one_ledger(second, tmp_path):
    """Two runs on one ledger, cap 2: nobody trains more than twice over both."""
    trained = []

    def counting(weights, data):
        trained.append(int(data[3]))
        return step(weights, data)

    clients = [np.array([0.0, 0.0, 0.0, i]) for i in range(60)]
    privacy = replace(PRIVACY, max_participations=2)
    for folder in (tmp_path / "one", tmp_path / second if second else None):
        train(
            counting,
            clients,
            **settings(
                rounds=6, privacy=privacy, folder=folder, ledger=tmp_path / "shared.sqlite", entropy=None,
                secure=SecureAggregation.ideal(),
            ),
        )  # fmt: skip
    assert max(trained.count(client) for client in trained) == 2


def test_counts_follow_a_client_by_its_name_wherever_it_stands(tmp_path):
    """Everybody contributes to the first round at a cap of one; turned round, nobody contributes again."""
    trained = []

    def counting(weights, data):
        trained.append(data[3])
        return step(weights, data)

    people = {f"client {i}": np.array([0.0, 0.0, 0.0, i]) for i in range(20)}
    chosen = settings(
        rounds=2, cohort_size=20, privacy=replace(PRIVACY, max_participations=1), folder=tmp_path,
        secure=SecureAggregation.ideal(),
    )  # fmt: skip
    Federation(counting, people, **chosen).run_round()
    assert len(trained) == 20
    Federation(counting, dict(reversed(people.items())), **chosen, resume=True).run_round()
    assert len(trained) == 20


class Unfetchable:
    def __array__(self, *_, **__):
        raise ValueError("cannot be an array")


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError


def unspeakable(weights, data):
    raise Unspeakable


def leaving(weights, data):
    sys.exit("bye")


def recursive(weights, data):
    nest = {}
    nest["w"] = nest
    return nest


@pytest.mark.parametrize(
    "bad",
    [
        leaving,
        recursive,
        unspeakable,
        lambda weights, data: ({**weights, "w": Unfetchable()}, {"loss": 0.0}),
        lambda weights, data: (weights, {"loss": 10**400}),
        lambda weights, data: (weights, {"loss": Unfetchable()}),
        lambda weights, data: ({**weights, "w": weights["w"].astype(np.longdouble)}, {"loss": 0.0}),
    ],
    ids=["exits", "recurses", "unspeakable", "unfetchable", "huge metric", "odd metric", "longdouble"],
)
def test_whatever_a_client_does_the_round_goes_on(bad):
    result = train(
        lambda weights, data: (bad if data[0] == 2.0 else step)(weights, data),
        CLIENTS,
        **settings(secure=SecureAggregation.ideal()),
    )
    assert len(result.rounds) == 2


def test_data_that_cannot_be_fetched_is_a_client_that_failed():
    def fetch(client):
        if client % 3 == 2:
            raise OSError("no such file")
        return CLIENTS[client]

    clients = fedavg.ClientData(range(60), fetch)
    result = train(step, clients, **settings(secure=SecureAggregation.ideal()))
    assert len(result.rounds) == 2


def test_a_failing_evaluation_loses_nothing(tmp_path):
    def evaluate(weights):
        raise OSError("the test set is gone")

    changes = {"folder": tmp_path, "secure": SecureAggregation.ideal()}
    with pytest.raises(OSError, match="test set"):
        train(step, CLIENTS, **settings(evaluate=evaluate, **changes))
    resumed = train(step, CLIENTS, **settings(resume=True, evaluate=lambda weights: {"size": 5.0}, **changes))
    assert [report.round for report in resumed.rounds] == [1, 2]
    assert [report.evaluation for report in resumed.rounds] == [{"size": 5.0}] * 2
    assert dp.Ledger.open(resumed.ledger).charged == 2


def test_no_name_of_a_failed_client_is_shown_unless_asked_for(capfd):
    train(
        raising,
        CLIENTS,
        **settings(privacy=replace(PRIVACY, noise_multiplier=8.0), secure=SecureAggregation.ideal()),
    )
    assert capfd.readouterr().err == ""


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


def test_two_runs_that_share_a_ledger_stop_at_its_budget(tmp_path):
    """The second run, whose noise was chosen after the first, stops early; its statement claims the shared budget."""
    path = tmp_path / "people.sqlite"
    dp.Ledger.share(path, budget=dp.SharedBudget(delta=1e-3, readers_epsilon=6.0, server_epsilon=20.0))
    first = train(step, CLIENTS, **settings(ledger=path, secure=SecureAggregation.ideal()))
    assert first.stopped is None
    again = settings(
        ledger=path,
        secure=SecureAggregation.ideal(),
        rounds=200,
        privacy=replace(PRIVACY, noise_multiplier=1.7),
    )
    second = train(step, CLIENTS, **again)
    assert "all runs that share the ledger" in second.stopped
    assert 0 < len(second.rounds) < 200
    assert second.statement.readers.epsilon <= 6.0
    assert second.statement.server.epsilon <= 20.0
    assert any("2 runs" in assumption for assumption in second.statement.readers.assumptions)
    with pytest.raises(dp.BudgetExceeded):
        Federation(
            step, CLIENTS, **settings(ledger=path, secure=SecureAggregation.ideal(), rounds=9)
        ).run_round()


def writing(weights, data):
    weights["w"] += 0.1
    return weights


def emptying(weights, data):
    return {"b": weights["b"], "w": weights.pop("w")}


@pytest.mark.parametrize(("bad", "words"), [(writing, "writes into"), (emptying, "changes the nest")])
def test_a_step_that_touches_what_it_is_given_is_named_once_a_round(bad, words):
    chosen = settings(rounds=1, metrics={}, secure=SecureAggregation.ideal())
    with pytest.warns(UserWarning, match=words):
        train(bad, CLIENTS, **chosen)


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
