"""Runs that stop, are killed or share a ledger: they go on exactly, and never with less than was spent."""

import json
import signal
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dp
import fedavg
from fedavg import Federation, SecureAggregation, train
from tests.fedavg.runs import CLIENTS, PRIVACY, assert_same_weights, settings, step


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
    from tests.fedavg.runs import CLIENTS, settings, step

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
    here = str(Path(__file__).parents[2])
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
