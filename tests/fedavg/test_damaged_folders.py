"""A run folder with a wrong byte, a missing ledger or a failing function of the user's: said clearly, nothing lost."""

import os
import shutil
from unittest.mock import patch

import numpy as np
import pytest

import dp
import fedavg
from fedavg import CheckpointError, FedAvgError, Federation, ParameterError, SecureAggregation, sgd, train
from fedavg.checkpoint import RunFolder
from tests.fedavg.runs import CLIENTS, settings, step


def ideal(**changes):
    return settings(secure=SecureAggregation.ideal(), **changes)


@pytest.fixture
def stopped(tmp_path):
    """A folder whose run of four rounds finished two."""
    federation = Federation(step, CLIENTS, **ideal(rounds=4, folder=tmp_path))
    federation.run_round()
    federation.run_round()
    return tmp_path


def resume(folder):
    return Federation(step, CLIENTS, **ideal(rounds=4, folder=folder, resume=True))


@pytest.mark.parametrize("kept", [0, 1, 10, 200, -1, -300])
def test_a_checkpoint_cut_short_is_named(stopped, kept):
    path = stopped / "operator" / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"checkpoint.npz is damaged .* restore it from a backup"):
        resume(stopped)


def test_a_checkpoint_with_a_wrong_byte_is_named_or_harmless(stopped):
    path = stopped / "operator" / "checkpoint.npz"
    folder, whole = resume(stopped)._folder, path.read_bytes()
    named = 0
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert folder.load()[0].rounds == 2
        except CheckpointError:
            named += 1
    assert named > 5


@pytest.mark.parametrize("name", ["run.json", "ledger.json"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_file_of_settings_is_named(stopped, name, content):
    (stopped / "operator" / name).write_text(content)
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        resume(stopped)


def test_a_checkpoint_does_not_go_on_with_a_ledger_that_has_charged_less(stopped):
    for path in stopped.glob("operator/ledger*"):
        path.unlink()
    with pytest.raises(dp.LedgerError, match=r"holds 2 rounds and the ledger .* has charged 0"):
        resume(stopped)


def test_numbers_of_any_kind_are_kept_as_an_evaluation(tmp_path):
    result = train(step, CLIENTS, **ideal(folder=tmp_path, evaluate=lambda weights: {"a": np.float32(0.5)}))
    assert [report.evaluation for report in result.rounds] == [{"a": 0.5}] * 2


@pytest.mark.parametrize("returned", [None, {"a": "b"}, {"a": None}])
def test_an_evaluation_of_no_numbers_is_said_and_the_round_kept(tmp_path, returned):
    federation = Federation(step, CLIENTS, **ideal(folder=tmp_path, evaluate=lambda weights: returned))
    with pytest.raises(FedAvgError, match="return a mapping of names to numbers"):
        federation.run_round()
    resumed = train(step, CLIENTS, **ideal(folder=tmp_path, resume=True))
    assert [report.round for report in resumed.rounds] == [1, 2]


def test_a_clients_log_that_cannot_be_written_costs_no_round(tmp_path):
    federation = Federation(lambda weights, data: 1 / 0, CLIENTS, **ideal(folder=tmp_path))
    shutil.rmtree(tmp_path / "clients")
    assert federation.run_round().round == 1


def test_a_bad_schedule_is_refused_before_its_round_is_charged():
    rates = [1.0, -1.0]
    federation = Federation(
        step, CLIENTS, **ideal(server_optimizer=sgd(learning_rate=lambda done: rates[done]))
    )
    federation.run_round()
    with pytest.raises(ParameterError, match="the schedule gives the learning rate"):
        federation.run_round()
    assert federation.ledger.charged == 1


def test_weights_that_are_no_numbers_are_refused():
    with pytest.raises(ParameterError, match="b holds NaN or infinity"):
        Federation(step, CLIENTS, **ideal(weights={"w": np.zeros((2, 2)), "b": np.full(1, np.nan)}))


def test_a_round_that_would_overflow_the_model_leaves_the_last_one():
    federation = Federation(
        lambda weights, data: {"w": weights["w"] + np.float16(1)},
        CLIENTS,
        **ideal(
            weights={"w": np.zeros(4, np.float16)},
            metrics=None,
            server_optimizer=fedavg.sgd(learning_rate=1e8),
        ),
    )
    with pytest.raises(FedAvgError, match="would leave NaN or infinity in w; the round stays charged"):
        federation.run_round()
    np.testing.assert_array_equal(federation.result().weights["w"], np.zeros(4))
    assert federation.ledger.charged == 1
    assert federation.reports == []


def test_a_step_may_change_the_working_directory(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)

    def leaving(weights, data):
        os.chdir(elsewhere)
        return step(weights, data)

    train(leaving, CLIENTS, **ideal(folder="run", ledger="spent.sqlite"))
    assert not any(elsewhere.iterdir())
    monkeypatch.chdir(tmp_path)
    resumed = train(leaving, CLIENTS, **ideal(folder="run", ledger="spent.sqlite", resume=True))
    assert len(resumed.rounds) == 2


def test_a_run_in_a_copied_folder_does_not_go_on(stopped, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copies") / "copy"
    shutil.copytree(stopped, copy)
    with pytest.raises(dp.LedgerError, match="resume it with that ledger, where it was"):
        resume(copy)


def test_two_processes_may_write_one_folder(tmp_path):
    """Each writes beside the file, then puts it there whole: neither takes the other's half-written one."""
    folders = [RunFolder(tmp_path, fingerprint={}, resume=True) for _ in range(2)]
    path = tmp_path / "public" / "file"

    def fill(file):
        file.write(b"one")
        with patch("os.getpid", lambda: 1):
            folders[1].write(path, lambda other: other.write(b"other"))

    folders[0].write(path, fill)
    assert path.read_bytes() == b"one"
