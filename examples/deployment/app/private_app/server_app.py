"""The server's half: FedAvg, evaluated on people who take no part."""

import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from fedavg.flower import PrivateStrategy  # private
from private_app.model import accuracy, start

app = ServerApp()


@app.main()
def main(grid, context):
    folder = Path(str(context.run_config["folder"]))
    test = np.load(folder / "test.npz")

    def evaluate(_, arrays):
        weights = {name: array.numpy() for name, array in arrays.items()}
        return MetricRecord({"accuracy": accuracy(weights, test["x"], test["y"])})

    arrays = ArrayRecord({name: Array(w) for name, w in start(test["x"].shape[1]).items()})
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=2)
    strategy = PrivateStrategy(strategy, folder / "rounds.json", folder=folder)  # private
    result = strategy.start(grid, arrays, num_rounds=int(context.run_config["rounds"]), evaluate_fn=evaluate)
    history = {n: dict(metrics) for n, metrics in result.evaluate_metrics_serverapp.items()}
    (folder / "evaluations.json").write_text(json.dumps(history))
