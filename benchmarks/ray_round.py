"""One private round of many clients over two raylets on this machine: real masks, measured at the server's process.

    python benchmarks/ray_round.py --clients 10000 --length 1000 [--kill] [--compare masked] [--record]

Prints one JSON object. `--kill` ends one raylet while clients mask; `--compare` plays the same round in one process
afterwards, with masks or without (with the killed raylet's clients silent), and compares the weights; `--record`
keeps all that reached the server's process and searches it for what clients had. All on the loopback interface.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # off: every Ray process listens on 127.0.0.1 only

import numpy as np
import ray
from ray.cluster_utils import Cluster

import dp
import fedavg
from fedavg.backends import Local
from fedavg.backends.ray import Ray

STORE_MB = 512


def step(weights: Any, data: Any) -> Any:
    """A loop that costs nothing: what is measured is everything else."""
    return weights + np.float32(0.01) * data


def data_of(client: int) -> Any:
    """Made where the client is played: no client's data ever is in the server's process."""
    return np.random.default_rng(client).normal()


class Without(Local):
    """In one process, the clients of some workers silent from the masked inputs on."""

    def __init__(self, lost: set[int], workers: int) -> None:
        self.lost, self.workers = lost, workers

    def sum_round(self, plan: Any, work: Any, *, clients: Any, dropouts: Any, **rest: Any) -> Any:
        """As in one process, with more dropouts."""
        silent = [client for client in clients if client % self.workers in self.lost]
        dropouts = {**dropouts, "masked_input": [*dropouts.get("masked_input", ()), *silent]}
        return super().sum_round(plan, work, clients=clients, dropouts=dropouts, **rest)


def federation(
    options: argparse.Namespace, backend: Any, record: Any = None, *, ideal: bool = False
) -> fedavg.Federation:
    return fedavg.Federation(
        step,
        fedavg.ClientData(range(options.clients), data_of),
        weights=np.zeros(options.length, np.float32),
        rounds=1,
        cohort_size=options.clients,  # everybody
        privacy=dp.Privacy(noise_multiplier=1.0, delta=1e-6, l2_clip_norm=1.0),
        secure=(fedavg.SecureAggregation.ideal if ideal else fedavg.SecureAggregation)(
            dropout=options.dropout, corruption=0.05
        ),
        entropy=fedavg.RunEntropy.seeded(1),
        backend=backend,
        record=record,
    )


class Watch:
    """What reached this process and what each worker took; kills the second raylet while its clients mask."""

    def __init__(self, cluster: Cluster, victim: Any, kill: bool, keep: bool) -> None:
        self.cluster, self.victim, self.kill, self.keep = cluster, victim, kill, keep
        self.bytes: dict[str, int] = {}
        self.kept: list[bytes] = []
        self.figures: list[Any] = []

    def record(self, stage: str, sender: int, message: bytes) -> None:
        """Count what reached this process, and keep it where it is to be searched."""
        self.bytes[stage] = self.bytes.get(stage, 0) + len(message)
        if self.keep:
            self.kept.append(message)

    def progress(self, figures: Any) -> None:
        """Keep the workers' figures; a second after the last shares, end the raylet that is to die."""
        self.figures.append(figures)
        calls = [row.call for row in self.figures]
        if self.kill and self.victim is not None and calls.count("share") == calls.count("employ"):
            victim, self.victim = self.victim, None
            threading.Timer(1.0, self.cluster.remove_node, (victim,), {"allow_graceful": False}).start()


def searched(options: argparse.Namespace, run: fedavg.Federation, kept: list[bytes]) -> dict[str, int]:
    """Windows of what 50 clients had, floats, integers, noised integers, looked for in all that was received."""
    process, everything = run._process, b"\xff".join(kept)
    found = looked = 0
    for client in range(0, options.clients, max(1, options.clients // 50)):
        delta = step(process.initialize().weights, data_of(client))
        values = {"update": delta.astype(float), "scalars": np.array([1.0, 0.0])}
        noised = process.plan.encode(values, fedavg.RunEntropy.seeded(1).keystream("noise", 1, client))
        forms = [delta.astype(kind).tobytes() for kind in ("<f4", "<f8")]
        forms += [noised.astype(kind).tobytes() for kind in ("<u4", "<u8")]
        for form in forms:
            for start in (0, len(form) // 2, len(form) - 16):
                looked += 1
                found += form[start : start + 16] in everything
    return {"searched_mb": len(everything) // 2**20, "windows": looked, "found": found}


def resident_mb(entry: str) -> float:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return next(int(line[1]) for line in lines if line[0] == entry + ":") / 2**10


def measured(options: argparse.Namespace) -> dict[str, Any]:
    here = {"object_store_memory": STORE_MB * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": options.cpus[0], **here})
    try:
        victim = cluster.add_node(num_cpus=options.cpus[1], **here)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        watch = Watch(cluster, victim, options.kill, options.record)
        backend = Ray(progress=watch.progress, fan_in=2)
        run = federation(options, backend, watch.record)
        nodes = {figures.worker: figures.worker.split()[2] for figures in watch.figures}
        before, cpu, begun = resident_mb("VmRSS"), time.process_time(), time.perf_counter()
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        report = run.run_round()
        answer = {
            "clients": options.clients,
            "length": options.length,
            "workers_on_raylet": sorted([*nodes.values()].count(node) for node in {*nodes.values()}),
            "survivors": report.survivors,
            "bytes_up_per_client": report.bytes_up_per_client,
            "neighbours": run.plan.protocol(1, bytes(32)).neighbours,
            "seconds": round(time.perf_counter() - begun, 1),
            "server_cpu_seconds": round(time.process_time() - cpu, 1),
            "server_peak_growth_mb": round(resident_mb("VmHWM") - before, 1),
            "all_masked_vectors_mb": round(report.survivors * report.bytes_up_per_client / 2**20, 1),
            "received_mb": {stage: round(size / 2**20, 2) for stage, size in watch.bytes.items()},
            "stages": stages(watch.figures),
        }
        if options.record:
            answer |= searched(options, run, watch.kept)
        if options.compare:
            answer |= compared(options, run, nodes, watch)
        return answer
    finally:
        ray.shutdown()
        cluster.shutdown()


def stages(figures: list[Any]) -> dict[str, Any]:
    """By stage: seconds of the slowest worker, CPU seconds of all; the most memory of a worker."""
    table: dict[str, Any] = {}
    for call in dict.fromkeys(row.call for row in figures if row.round):
        rows = [row for row in figures if row.call == call]
        table[call] = {
            "seconds": round(max(row.seconds for row in rows), 2),
            "cpu_seconds": round(sum(row.cpu_seconds for row in rows), 2),
            "worker_peak_mb": round(max(row.peak_rss_mb for row in rows)),
        }
    return table


def compared(options: argparse.Namespace, run: Any, nodes: dict[str, str], watch: Watch) -> dict[str, Any]:
    """The same round in one process, with the killed workers' clients silent; whether the weights are the same."""
    order = [row.worker for row in watch.figures if row.call == "hold"]
    masked = {row.worker for row in watch.figures if row.call == "masked_input"}
    lost = {turn for turn, worker in enumerate(order) if worker not in masked}
    begun, cpu = time.perf_counter(), time.process_time()
    local = federation(options, Without(lost, len(order)), ideal=options.compare == "ideal")
    local.run_round()
    return {
        "lost_workers": len(lost),
        "equal_to_one_process": bool(np.array_equal(run.result().weights, local.result().weights)),
        "one_process_seconds": round(time.perf_counter() - begun, 1),
        "one_process_cpu_seconds": round(time.process_time() - cpu, 1),
        "one_process_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--length", type=int, default=1_000)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--cpus", type=int, nargs=2, default=(1, 1), help="workers on each raylet")
    parser.add_argument("--compare", choices=("masked", "ideal"))
    for flag in ("kill", "record"):
        parser.add_argument(f"--{flag}", action="store_true")
    print(json.dumps(measured(parser.parse_args())), flush=True)
