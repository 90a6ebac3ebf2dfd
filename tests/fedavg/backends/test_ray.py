"""Clients on a Ray cluster of two raylets on this machine's loopback interface; one cluster for the file."""

import importlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.cluster_utils import Cluster

import fedavg
from fedavg import Federation
from fedavg.backends import of
from fedavg.backends.ray import Ray, _Node, _taken
from fedavg.core import (
    at_clients,
    at_server,
    federated_broadcast,
    federated_clip,
    federated_computation,
    federated_map,
    federated_sum,
)
from fedavg.errors import BackendError, ParameterError
from tests.fedavg.backends import programs
from tests.fedavg.backends.steps import (
    LocalWithout,
    Unreadable,
    abrupt,
    assert_same,
    clients,
    deadly,
    run,
    settings,
    step,
    telling,
    writing,
)

STORE = {"object_store_memory": 100 * 2**20}


@pytest.fixture(scope="module")
def cluster():
    """Room for two workers on the first raylet and one on the second; a user's cluster, connected to before."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **STORE})
    try:
        cluster.add_node(num_cpus=1, num_gpus=1, **STORE)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_round_over_two_raylets_is_that_of_one_process_bit_for_bit(cluster):
    """With a tree of two sums at a time: three workers' sums come to this process as one or two."""
    told, shown = [], []
    with Ray(fan_in=2, progress=told.append) as backend:
        ours = run(backend, record=lambda *row: shown.append(row), simulated_dropout=0.2)
        assert_same(ours, run(None, simulated_dropout=0.2))
        assert len({figures.worker for figures in told}) == 3
        assert len({figures.worker.split()[2] for figures in told}) == 2
        assert [sender for stage, sender, _ in shown if stage == "masked_input"] == [-1, -2]
        assert_same(run(backend, writing), run(None, writing))
        # The same workers, a step that kills one of them: its clients drop out where they mask.
        silent = LocalWithout(lambda client: client % 3 == 1, "masked_input")
        assert_same(run(backend, deadly, cohort_size=60), run(silent, cohort_size=60))
        after = run(backend, cohort_size=60)
        assert after.rounds[0].survivors == 60
    assert ray.is_initialized(), "a cluster that the user connected to is left alone"


def test_a_program_of_the_core_gives_the_numbers_of_one_process(cluster):
    """By name, with functions that no module holds, which travel to Ray all the same."""
    offset = 0.25

    @federated_computation(at_clients(float), at_clients((float, (3,))), at_server(float))
    def closures(readings, vectors, threshold):
        over = federated_map(lambda x, t: x - t + offset, (readings, federated_broadcast(threshold)))
        first = federated_sum(federated_clip(over, l2=5.0))
        after = federated_map(lambda v, s: v * s, (vectors, federated_broadcast(first)))
        return first, federated_sum(federated_clip(after, l2=1.0))

    with Ray(workers=2) as backend:
        for program in (programs.two_stages, closures):
            programs.assert_same(programs.run(backend, program=program), programs.run(None, program=program))
    named = programs.run("ray", runs=1)
    programs.assert_same(named, programs.run(None, runs=1))


def test_a_step_that_cannot_travel_is_refused_before_anything_is_charged(cluster, tmp_path):
    lock = threading.Lock()

    def holding(weights, data):
        with lock:
            return weights

    with Ray(workers=1) as backend, pytest.raises(BackendError, match="cannot be sent") as told:
        Federation(holding, clients(), **settings(folder=tmp_path), backend=backend)
    assert "to another machine: cannot pickle '_thread.lock' object; load the data" in str(told.value)
    assert Federation(step, clients(), **settings(folder=tmp_path, resume=True)).ledger.charged == 0


def test_an_address_where_nobody_listens_is_one_sentence_at_once(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(BackendError, match=r"no Ray cluster answers at 127.0.0.1:1: .*; start one with"):
        of("127.0.0.1:1")


def test_an_errors_words_are_in_no_log(cluster, capfd, caplog):
    """Neither in what the process of the run shows, nor in any file that Ray keeps of its workers."""
    with Ray() as backend:
        assert_same(run(backend, telling, cohort_size=60), run(None, telling, cohort_size=60))
        assert_same(run(backend, abrupt, cohort_size=60), run(None, abrupt, cohort_size=60))
        with pytest.raises(BackendError, match="no worker is left: it met a Beyond; see"):
            fedavg.train(step, [Unreadable()] * 60, **settings(), backend=backend)
    logs = b"".join(
        path.read_bytes() for path in Path(cluster.head_node.get_logs_dir_path()).rglob("*") if path.is_file()
    )
    assert "it met a Beyond" in caplog.text
    assert b"patient" not in logs + "".join((*capfd.readouterr(), caplog.text)).encode()


def test_workers_are_where_the_gpus_of_their_step_are(cluster):
    """The second raylet says that it has a GPU (none is there): it is where the workers go, and how many fit."""

    def on_gpu(weights, data):
        return weights

    on_gpu.num_gpus = 1
    told = []
    with Ray(progress=told.append) as backend:
        Federation(on_gpu, clients(), **settings(), backend=backend)
    (worker,) = {figures.worker for figures in told}
    (node,) = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU")]
    assert worker.split()[2] == node[:8]
    with Ray(workers=1, num_gpus=2) as backend, pytest.raises(BackendError, match="no worker"):
        Federation(step, clients(), **settings(), backend=backend)


def test_settings_out_of_range_are_refused(cluster):
    for wrong in ({"workers": 0}, {"num_cpus": 0}, {"fan_in": 1}):
        with pytest.raises(ParameterError, match="workers is"):
            Ray(**wrong)


def test_by_name_and_by_address(cluster):
    assert isinstance(of("ray"), Ray)
    assert isinstance(of(cluster.address), Ray)


class Losses:
    """Stands for a crew: notes who was lost."""

    def __init__(self):
        self.lost = []

    def lose(self, worker, cause):
        self.lost.append(worker)


def test_a_merged_sum_that_is_lost_is_made_good_from_its_parts(cluster):
    """A tree of two levels whose top and one leaf are gone: the other leaves come, the lost one's worker goes."""

    @ray.remote(num_cpus=0, max_retries=0)
    def gone():
        raise OSError

    gone = gone.remote()
    crew, worker = Losses(), SimpleNamespace(timeout=60)
    a, b, c = (_Node(worker, ray.put(name.encode())) for name in "abc")
    lost = _Node(SimpleNamespace(timeout=60, name="d"), gone)
    top = _Node(worker, gone, (_Node(worker, gone, (a, lost)), _Node(worker, ray.put(b"b+c"), (b, c))))
    assert [part for _, part in _taken(crew, top)] == [b"a", b"b+c"]
    assert crew.lost == [lost.worker]
    assert list(top.workers) == [worker, lost.worker, worker, worker]


def test_the_example_runs(cluster, capsys):
    pytest.importorskip("sklearn")
    example = importlib.import_module("examples.ray_digits")
    result = example.main(clients=40, rounds=1, expected=20)
    assert result.weights.any()
    assert "round 1: 40 of 40 answered" in capsys.readouterr().out


def drilled(*options):
    """One run of `benchmarks/ray_round.py`, in a process of its own."""
    script = Path(__file__).parents[3] / "benchmarks" / "ray_round.py"
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.drill
def test_ten_thousand_clients_over_two_raylets():
    """Equal to one process without masks (which gives the masked one's bits); memory far below clients times length."""
    figures = drilled("--clients", "10000", "--length", "1000", "--compare", "ideal")
    assert figures["survivors"] == 10_000
    assert figures["workers_on_raylet"] == [1, 1]
    assert figures["equal_to_one_process"]


@pytest.mark.drill
def test_memory_of_the_servers_process_is_that_of_the_vector():
    """500 clients of 300,000 values: 500 MB of masked vectors, of which two come here."""
    figures = drilled("--clients", "500", "--length", "300000", "--compare", "ideal")
    assert figures["equal_to_one_process"]
    assert figures["all_masked_vectors_mb"] > 400
    assert figures["server_peak_growth_mb"] < 60
    assert figures["received_mb"]["masked_input"] < 4


@pytest.mark.drill
def test_a_killed_raylet_in_mid_round_costs_its_clients_and_nothing_else():
    """One of four workers is alone on the second raylet, which is killed while clients mask."""
    options = (
        "--clients",
        "1000",
        "--length",
        "20000",
        "--dropout",
        "0.3",
        "--cpus",
        "3",
        "1",
        "--kill",
        "--record",
    )
    figures = drilled(*options, "--compare", "masked")
    assert figures["lost_workers"] == 1
    assert figures["survivors"] == 750
    assert figures["equal_to_one_process"]
    assert figures["found"] == 0
