"""A private app in Flower's own simulation engine: `python simulated.py FOLDER ADVERSARY`; every node moves by one."""

import sys
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

import dp
from fedavg.flower import Deadlines, PrivateRounds, PrivateStrategy, make_folders, private_mod
from fedavg.secure_aggregation import SecureAggregation

NODES, ROUNDS = 4, 2


def main(folder, adversary):
    settings = PrivateRounds(
        task="simulated",
        nodes=NODES,
        rounds=ROUNDS,
        privacy=dp.Privacy(noise_multiplier=0.05, delta=1e-3, l2_clip_norm=2.0),
        secure=SecureAggregation(dropout=0.25, corruption=0.0, adversary=adversary),
    )
    make_folders(folder / "nodes", NODES)
    client, server = ClientApp(mods=[private_mod(settings, folders=folder / "nodes")]), ServerApp()

    @client.train()
    def train(message, context):
        arrays = {k: Array(a.numpy() + np.float32(1)) for k, a in message.content["arrays"].items()}
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)

    @server.main()
    def run(grid, context):
        strategy = PrivateStrategy(
            FedAvg(fraction_evaluate=0.0, min_available_nodes=NODES),
            settings,
            folder=folder / "server",
            roster=folder / "nodes" / "roster.json" if adversary == "malicious" else None,
            deadlines=Deadlines(stage=60, masked_input=60, pause=0),
        )
        start = ArrayRecord({"w": Array(np.zeros(4, np.float32))})
        result = strategy.start(grid, start, num_rounds=ROUNDS)
        np.save(folder / "model.npy", result.arrays["w"].numpy())

    run_simulation(
        server, client, NODES, backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
