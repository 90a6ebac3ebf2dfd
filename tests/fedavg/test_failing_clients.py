"""Clients whose loop raises, lies about shapes, or cannot be read: the round goes on and names nobody."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import dp
import fedavg
from fedavg import SecureAggregation, train
from tests.fedavg.runs import CLIENTS, PRIVACY, assert_same_weights, settings, step


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
