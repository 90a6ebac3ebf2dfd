"""Single use on disk: nothing is claimed twice, and nothing is claimed that is not on disk."""

import multiprocessing
import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from secagg import LocalProtocolError, ParameterError, RecordError, Records
from tests.secagg.rounds import Round, choose


def test_a_round_is_claimed_once_per_data_set_and_task(tmp_path):
    records = Records(tmp_path, data_set="a")
    records.claim(task="t", round=5)
    with pytest.raises(RecordError, match="round 5 of task 't' is not above round 5"):
        records.claim(task="t", round=5)
    with pytest.raises(RecordError, match="not above"):
        records.claim(task="t", round=4)
    records.claim(task="t", round=6)
    records.claim(task="other", round=5)
    Records(tmp_path, data_set="b").claim(task="t", round=5)
    assert records.participations == 3


def test_a_new_object_on_the_same_folder_remembers(tmp_path):
    Records(tmp_path, data_set="a").claim(task="t", round=1)
    with pytest.raises(RecordError):
        Records(tmp_path, data_set="a").claim(task="t", round=1)


def test_participations_and_budget_are_limits_of_the_data_set_over_all_tasks(tmp_path):
    limited = Records(tmp_path, data_set="a", max_participations=2)
    limited.claim(task="t", round=1)
    limited.claim(task="u", round=1)
    with pytest.raises(RecordError, match="its limit is 2"):
        limited.claim(task="v", round=1)
    costly = Records(tmp_path, data_set="b", cost=0.4, budget=1.0)
    costly.claim(task="t", round=1)
    costly.claim(task="t", round=2)
    with pytest.raises(RecordError, match="of the budget"):
        costly.claim(task="t", round=3)
    assert costly.participations == 2


def test_settings_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ParameterError, match="no folder"):
        Records(tmp_path / "missing", data_set="a")
    for wrong in ({"cost": -1.0}, {"budget": -1.0}, {"max_participations": -1}, {"cost": float("nan")}):
        with pytest.raises(ParameterError, match="negative"):
            Records(tmp_path, data_set="a", **wrong)


def claim_and_report(folder, start, results):
    start.wait()
    try:
        Records(folder, data_set="a").claim(task="t", round=1)
    except RecordError:
        results.put("refused")
    else:
        results.put("claimed")


def test_of_many_processes_one_gets_the_round(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    workers = [context.Process(target=claim_and_report, args=(tmp_path, start, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    outcomes = sorted(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert outcomes == ["claimed", "refused", "refused", "refused"]


class Meets:
    """A connection that waits for another claim to come as far as it can before it inserts."""

    def __init__(self, connection, meeting):
        self.connection, self.meeting = connection, meeting

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def execute(self, sql, *rest):
        if sql.startswith("INSERT"):
            with suppress(threading.BrokenBarrierError):
                self.meeting.wait(timeout=0.3)
        return self.connection.execute(sql, *rest)


@pytest.mark.parametrize("limit", [None, 1])
def test_two_claims_at_once_wait_for_each_other(tmp_path, monkeypatch, limit):
    """Counting and inserting are one step: neither claim reads what the other is about to change.

    With a transaction that locks at its first write only, both would come to their inserts (the barrier opens)
    and one would be refused although there is room for it.
    """
    records = Records(tmp_path, data_set="a", max_participations=limit)
    Records(tmp_path, data_set="b").claim(task="t", round=1)
    meeting, connect = threading.Barrier(2), sqlite3.connect
    monkeypatch.setattr("secagg.records._BUSY_SECONDS", 2.0)
    monkeypatch.setattr("secagg.records.sqlite3.connect", lambda *a, **k: Meets(connect(*a, **k), meeting))
    with ThreadPoolExecutor(2) as pool:
        claims = [pool.submit(records.claim, task=task, round=1) for task in ("t", "u")]
        errors = [error for error in (claim.exception() for claim in claims) if error]
    assert meeting.broken
    assert records.participations == (limit or 2)
    assert len(errors) == 2 - (limit or 2)
    assert all("its limit is 1" in str(error) for error in errors)


def test_a_full_disk_refuses_the_round_and_claims_nothing(tmp_path):
    Records(tmp_path, data_set="filler").claim(task="t", round=0)
    script = f"""
        import resource, signal
        from secagg import RecordError, Records
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            Records({str(tmp_path)!r}, data_set="a").claim(task="t", round=1)
        except RecordError as error:
            print("refused", error)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert run.stdout.startswith("refused"), run.stderr
    assert Records(tmp_path, data_set="a").participations == 0


def test_a_damaged_or_locked_file_refuses_the_round(tmp_path, monkeypatch):
    records = Records(tmp_path, data_set="a")
    records.claim(task="t", round=1)
    monkeypatch.setattr("secagg.records._BUSY_SECONDS", 0.05)
    with sqlite3.connect(tmp_path / "single-use.sqlite3", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RecordError, match="cannot be written"):
            records.claim(task="t", round=2)
    other.close()
    (tmp_path / "single-use.sqlite3").write_bytes(b"not a database" * 100)
    with pytest.raises(RecordError, match="cannot be written"):
        records.claim(task="t", round=3)


CRASH = """
    import os, sys
    from secagg import records
    book = records.Records({folder!r}, data_set="a")
    class Dies:
        def __init__(self, connection): self.connection = connection
        def __getattr__(self, name): return getattr(self.connection, name)
        def execute(self, sql, *rest):
            if sql.startswith({point!r}): os.kill(os.getpid(), 9)
            return self.connection.execute(sql, *rest)
    connect = records.sqlite3.connect
    records.sqlite3.connect = lambda *a, **k: Dies(connect(*a, **k))
    book.claim(task="t", round=1)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    ("point", "spent"), [("BEGIN", 0), ("SELECT", 0), ("INSERT", 0), ("COMMIT", 0), ("never", 1)]
)
def test_kill_before_the_commit_is_free_and_after_it_spent(tmp_path, point, spent):
    script = textwrap.dedent(CRASH).format(folder=str(tmp_path), point=point)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == -9, run.stderr
    records = Records(tmp_path, data_set="a")
    assert records.participations == spent
    if spent:
        with pytest.raises(RecordError):
            records.claim(task="t", round=1)
    else:
        records.claim(task="t", round=1)


def test_a_client_claims_before_it_masks_and_refuses_when_it_cannot(tmp_path):
    records = Records(tmp_path, data_set="a")
    first = Round(choose(5), client_options={"single_use": None}).play_until("masked_input")
    first.clients[0]._single_use = records
    first.play()
    assert records.participations == 1
    again = Round(choose(5)).play_until("masked_input")
    again.clients[0]._single_use = records
    again.play()
    assert isinstance(again.errors[0], RecordError)
    assert 0 not in again.up["masked_input"]
    with pytest.raises(LocalProtocolError):
        again.clients[0].mask(again.inputs[0])


def test_inputs_that_do_not_fit_cost_nothing(tmp_path):
    records = Records(tmp_path, data_set="a")
    round_ = Round(choose(5), client_options={"single_use": records}).play_until("masked_input")
    client = round_.clients[0]
    client.receive(round_.server.message_for(0))
    with pytest.raises(ParameterError):
        client.mask({"v": round_.inputs[0]["v"][:-1]})
    assert records.participations == 0


def test_one_round_cannot_use_up_the_numbers_of_a_task(tmp_path):
    """A round of 2^63-1, taken once, would leave no number above it; the task goes on after the refusal."""
    records = Records(tmp_path, data_set="a")
    for far in (2**63 - 1, 2**32):
        with pytest.raises(RecordError, match="above the start; number rounds from 0 up"):
            records.claim(task="t", round=far)
    records.claim(task="t", round=7)
    with pytest.raises(RecordError, match=f"more than {2**32} above round 7"):
        records.claim(task="t", round=8 + 2**32)
    records.claim(task="t", round=7 + 2**32)
    assert records.participations == 2


def test_a_record_beside_another_refuses_no_step_and_nothing_else_less(tmp_path):
    """Which of two records a round stands in must not decide whether it is refused."""
    beside = Records(tmp_path, data_set="b", max_step=None)
    for far in (0, 2**32, 2**63 - 1):
        beside.claim(task="t", round=far)
        with pytest.raises(RecordError, match=f"not above round {far}"):
            beside.claim(task="t", round=far)
    assert beside.participations == 3


def test_a_task_driven_too_far_goes_on_under_another_name_and_spends_the_same_budget(tmp_path):
    records = Records(tmp_path, data_set="a", max_participations=2)
    records.claim(task="t", round=2**32 - 1)
    records.claim(task="t, anew", round=0)
    with pytest.raises(RecordError, match="its limit is 2"):
        records.claim(task="t, again", round=0)
