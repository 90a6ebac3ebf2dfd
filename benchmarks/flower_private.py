"""The same Flower app plain and private: CPU-seconds a round of server and all nodes together, and bytes up a node.

    python -m benchmarks.flower_private --nodes 12

Flower's messages pass in memory, so that what is measured is the aggregation, not Flower's transport: in a deployment
each of a round's four or five stages also starts an interpreter on each node (1.5 CPU-seconds) and waits for polls.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

import dp
from fedavg.flower import PrivateRounds, PrivateStrategy, make_folders, private_mod
from fedavg.secure_aggregation import SecureAggregation
from tests.fedavg.flower.network import QUICK, LoopbackGrid

KINDS = ("plain", "semi_honest", "malicious")


def train(message, context):
    arrays = {k: Array(a.numpy() + np.float32(0.001)) for k, a in message.content["arrays"].items()}
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


def measure(kind, nodes, length, rounds):
    """CPU-seconds of each round after the first, and the most bytes of arrays that one node sent in the last."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folders = make_folders(root, nodes)
        app = ClientApp(mods=[] if kind == "plain" else [private_mod()])
        app.train()(train)
        grid = LoopbackGrid([app] * nodes, folders)
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=2)
        if kind != "plain":
            settings = PrivateRounds(
                task="benchmark",
                nodes=nodes,
                rounds=rounds + 1,
                privacy=dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0),
                secure=SecureAggregation(adversary=kind),
            )
            for folder in folders:
                settings.write(folder / "rounds.json")
            roster = root / "roster.json" if kind == "malicious" else None
            strategy = PrivateStrategy(
                strategy, settings, folder=root / "server", roster=roster, deadlines=QUICK
            )
        arrays, seconds = ArrayRecord({"w": Array(np.zeros(length, np.float32))}), []
        for _ in range(rounds + 1):
            grid.seen.clear()
            begun = time.process_time()
            strategy.start(grid, arrays, 1)
            seconds.append(time.process_time() - begun)
        sent = dict.fromkeys(grid.nodes, 0)
        for _, node, reply in grid.seen:
            sent[node] += sum(
                len(a.data) for record in reply.content.array_records.values() for a in record.values()
            )
    return min(seconds[1:]), max(sent.values())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=12)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    for length in options.lengths:
        for kind in KINDS:
            seconds, sent = measure(kind, options.nodes, length, options.rounds)
            row = {
                "nodes": options.nodes,
                "values": length,
                "kind": kind,
                "cpu_s": round(seconds, 3),
                "bytes_up": sent,
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
