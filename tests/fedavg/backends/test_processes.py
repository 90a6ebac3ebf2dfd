"""Clients in processes of this machine: the same bits, and what becomes of a process that is killed or hangs."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fedavg
from fedavg import Federation
from fedavg.backends.crew import WorkerLost
from fedavg.backends.processes import Processes, _Process
from fedavg.errors import BackendError, ParameterError
from tests.fedavg.backends.steps import (
    LocalWithout,
    Unreadable,
    abrupt,
    assert_same,
    clients,
    deadly,
    failing,
    hanging,
    run,
    settings,
    step,
    telling,
)


@pytest.fixture(scope="module")
def backend():
    """Three processes, begun once for all tests of this file; who was killed is replaced."""
    with Processes(3) as backend:
        yield backend


def test_the_sums_are_those_of_one_process_bit_for_bit(backend):
    assert_same(run(backend, simulated_dropout=0.2), run(None, simulated_dropout=0.2))


def test_clients_are_played_elsewhere(backend):
    """The processes are children of this one and fresh: nothing of it was forked into them."""
    assert len(multiprocessing.active_children()) == 3
    assert os.getpid() not in {child.pid for child in multiprocessing.active_children()}
    assert multiprocessing.active_children()[0].__class__.__name__ == "SpawnProcess"


def test_a_killed_process_costs_its_clients_and_nothing_else(backend):
    """Client 1's step kills its process with SIGKILL: positions 1, 4, 7, ... drop out where they mask."""
    silent = LocalWithout(lambda client: client % 3 == 1, "masked_input")
    assert_same(run(backend, deadly, cohort_size=60), run(silent, cohort_size=60))
    after = run(backend, cohort_size=60)
    assert after.rounds[0].survivors == 60
    assert_same(after, run(None, cohort_size=60))


def test_a_run_that_is_broken_off_leaves_no_answer_for_the_next(backend):
    """The caller's own record raises while other processes still answer the same stage."""

    def broken(stage, sender, message):
        if stage == "share":
            raise KeyError("disk full")

    with pytest.raises(KeyError):
        run(backend, record=broken)
    assert_same(run(backend), run(None))


def test_an_errors_words_are_in_nothing_that_the_process_of_the_run_shows(capfd, caplog):
    """Steps that raise whatever there is, in processes whose standard error is this one's."""
    with caplog.at_level(logging.DEBUG), Processes(3) as backend:
        run(backend, telling, cohort_size=60)
        with pytest.raises(BackendError, match="no worker is left: it met a Beyond"):
            fedavg.train(step, [Unreadable()] * 60, **settings(), backend=backend)
    shown = "".join(capfd.readouterr()) + caplog.text
    assert "a worker met a Beyond at" in shown
    assert "patient" not in shown


def test_a_run_that_cannot_begin_leaves_no_process_behind():
    before = {child.pid for child in multiprocessing.active_children()}
    with pytest.raises(BackendError, match="cannot be sent to another process") as told:
        fedavg.train(lambda weights, data: weights, clients(), **settings(), backend="processes")
    assert told.value.__traceback__ is not None  # As a notebook keeps it, with all that its frames hold.
    assert {child.pid for child in multiprocessing.active_children()} == before


TYPED_IN = """
import numpy as np
import dp, fedavg

def step(weights, data):
    return weights

fedavg.train(
    step, [1.0] * 20, weights={"w": np.zeros(3)}, rounds=1, cohort_size=5, backend="processes",
    privacy=dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0),
)
"""


def test_a_step_of_a_notebook_is_refused_with_the_way_out():
    """Its module is no file that another process could import."""
    done = subprocess.run([sys.executable, "-c", TYPED_IN], capture_output=True, text=True)
    assert (
        "refused: a function or class of the run cannot be imported in another process; move it"
        in done.stderr
    )


def test_however_a_client_fails_its_neighbours_in_the_process_are_in_the_sum(backend):
    one = run(backend, abrupt, cohort_size=60)
    assert one.rounds[0].survivors == 60
    assert_same(one, run(None, abrupt, cohort_size=60))


def test_a_clients_log_that_cannot_be_written_costs_nobody(tmp_path):
    """A full disk, say: here a folder stands where each process would write."""
    for number in (1, 2):
        (tmp_path / f"worker-{number}.jsonl").mkdir()
    with Processes(2, client_log=tmp_path) as backend:
        assert_same(run(backend, failing, cohort_size=60), run(None, failing, cohort_size=60))


def test_a_folder_for_the_clients_log_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ParameterError, match="cannot be made: Not a directory"):
        Processes(1, client_log=tmp_path / "file" / "log")


def test_ctrl_c_does_not_reach_the_processes(backend):
    """A terminal sends it to all of them; what becomes of the run is decided in the run's own process."""
    backend.prepare((step, "layout"), fedavg.ClientData.of(clients()))
    before = {child.pid for child in multiprocessing.active_children()}
    for child in before:
        os.kill(child, signal.SIGINT)
    assert_same(run(backend), run(None))
    assert {child.pid for child in multiprocessing.active_children()} == before


@pytest.mark.drill
def test_a_process_that_hangs_is_given_up_after_its_time():
    silent = LocalWithout(lambda client: client % 3 == 1, "masked_input")
    with Processes(3, timeout=20) as backend:
        assert_same(run(backend, hanging, cohort_size=60), run(silent, cohort_size=60))


class Slow:
    """Takes a minute to arrive."""

    def __reduce__(self):
        return time.sleep, (60,)


def test_waiting_for_a_process_ends_after_its_time():
    worker = _Process("slow", None, 0.3)
    try:
        assert worker.ready()
        worker.send("hold", 0, Slow())
        with pytest.raises(WorkerLost, match=r"more than 0\.3 seconds"):
            worker.receive()
    finally:
        worker.stop()
    with pytest.raises(WorkerLost, match="it ended"):
        worker.send("hold", 0, 1)


def test_a_step_that_cannot_travel_is_refused_before_anything_is_charged(backend, tmp_path):
    def local(weights, data):
        return weights

    with pytest.raises(BackendError, match="functions and classes of a module"):
        Federation(local, clients(), **settings(folder=tmp_path), backend=backend)
    again = Federation(step, clients(), **settings(folder=tmp_path, resume=True), backend=backend)
    assert again.ledger.charged == 0


def test_processes_end_with_their_backend():
    backend = Processes(1)
    backend.prepare((step, "layout"), fedavg.ClientData.of(clients()))
    (child,) = set(multiprocessing.active_children()) - before_of(backend)
    del backend
    child.join(30)
    assert not child.is_alive()


def before_of(backend):
    ours = {worker._process.pid for worker in backend._crew._workers}
    return {child for child in multiprocessing.active_children() if child.pid not in ours}


def test_no_workers_are_refused():
    with pytest.raises(ParameterError, match="workers is 0"):
        Processes(0)


def test_data_are_fetched_where_the_client_is_played(backend):
    """A population that fetches its own data: what is fetched never is in this process."""
    population = fedavg.ClientData(range(60), fetched)
    result = fedavg.train(where, population, **{**settings(), "metrics": {"here": 1.0}}, backend=backend)
    assert np.isfinite(result.weights["b"]).all()
    assert FETCHED == []


FETCHED = []


def fetched(client):
    FETCHED.append(client)
    return np.full(4, float(client))


def where(weights, data):
    return weights, {"here": 1.0}
