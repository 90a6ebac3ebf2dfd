"""One Flower app as real processes on loopback: plain, private, and under Flower's own SecAgg+.

    python -m benchmarks.flower_deployment --nodes 7 --rounds 3

TLS, node authentication, one SuperLink, SuperNodes that start an interpreter for every message, as Flower does. Seconds
of a round are between two evaluations on the server, all of Flower's waiting among them; bytes up are those of all
messages that a node sends in a round, as they are serialised. Prints rows as JSON.

SecAgg+ runs through Flower's legacy interface (`client_fn`, `SecAggPlusWorkflow`); it hides updates and adds no noise.
"""

import argparse
import itertools
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from examples.deployment.deploy import Deployment, deployed
from fedavg.secure_aggregation import SecureAggregation

KINDS = {
    "plain": "plain",
    "semi_honest": "private, semi-honest",
    "malicious": "private, malicious",
    "secaggplus": "SecAgg+",
}
APP = Path(__file__).parents[1] / "examples" / "deployment" / "app"

CLIENT = """
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

KIND = {kind!r}
if KIND == "secaggplus":
    from flwr.client import NumPyClient
    from flwr.client.mod import secaggplus_mod

    class Client(NumPyClient):
        def fit(self, parameters, config):
            return [a + np.float32(0.001) for a in parameters], 1, {{}}

    app = ClientApp(client_fn=lambda context: Client().to_client(), mods=[secaggplus_mod])
else:
    mods = []
    if KIND != "plain":
        from fedavg.flower import private_mod
        mods = [private_mod()]
    app = ClientApp(mods=mods)

    @app.train()
    def train(message, context):
        arrays = {{k: Array(a.numpy() + np.float32(0.001)) for k, a in message.content["arrays"].items()}}
        metrics = MetricRecord({{"num-examples": 1}})
        return Message(RecordDict({{"arrays": ArrayRecord(arrays), "metrics": metrics}}), reply_to=message)
"""

SERVER = """
import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.common.serde import message_to_proto
from flwr.serverapp import ServerApp

KIND, LENGTH, NODES = {kind!r}, {length}, {nodes}
app = ServerApp()


class Counting:
    def __init__(self, grid):
        self._grid, self.sent = grid, {{}}

    def __getattr__(self, name):
        return getattr(self._grid, name)

    def pull_messages(self, ids):
        return self._counted(self._grid.pull_messages(ids))

    def send_and_receive(self, messages, *, timeout=None):
        return self._counted(self._grid.send_and_receive(messages, timeout=timeout))

    def _counted(self, replies):
        replies = list(replies)
        for reply in replies:
            node = reply.metadata.src_node_id
            self.sent[node] = self.sent.get(node, 0) + message_to_proto(reply).ByteSize()
        return replies


@app.main()
def main(grid, context):
    folder, rounds = Path(str(context.run_config["folder"])), int(context.run_config["rounds"])
    grid, marks = Counting(grid), []

    def mark(*_):
        marks.append([time.time(), max(grid.sent.values(), default=0)])
        (folder / "marks.json").write_text(json.dumps(marks))
        grid.sent.clear()

    while len(list(grid.get_node_ids())) < NODES:
        time.sleep(0.5)
    start = np.zeros(LENGTH, np.float32)
    if KIND == "secaggplus":
        from flwr.common import ndarrays_to_parameters
        from flwr.server import LegacyContext, ServerConfig
        from flwr.server.strategy import FedAvg
        from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow

        strategy = FedAvg(
            fraction_evaluate=0.0, min_fit_clients=NODES, min_available_clients=NODES, evaluate_fn=mark,
            initial_parameters=ndarrays_to_parameters([start]),
        )
        legacy = LegacyContext(context, config=ServerConfig(num_rounds=rounds), strategy=strategy)
        workflow = SecAggPlusWorkflow(num_shares=NODES, reconstruction_threshold=NODES // 2 + 1, max_weight=1.0)
        DefaultWorkflow(fit_workflow=workflow)(grid, legacy)
        return
    from flwr.serverapp.strategy import FedAvg

    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=NODES, min_train_nodes=NODES)
    if KIND != "plain":
        from fedavg.flower import PrivateStrategy
        strategy = PrivateStrategy(strategy, folder / "rounds.json", folder=folder)
    strategy.start(grid, ArrayRecord({{"w": Array(start)}}), num_rounds=rounds, evaluate_fn=mark)
"""


def measure(kind, nodes, rounds, length):
    """Median seconds of a round, and the most bytes that one node sent in one."""
    adversary = "malicious" if kind == "malicious" else "semi_honest"
    with tempfile.TemporaryDirectory() as name:
        app = Path(name) / "app"
        shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
        for half, source in (("client_app.py", CLIENT), ("server_app.py", SERVER)):
            text = source.format(kind=kind, length=length, nodes=nodes)
            (app / "private_app" / half).write_text(text)
        deployment = Deployment(Path(name) / "run", nodes=nodes, rounds=rounds, adversary=adversary, app=app)
        secure = SecureAggregation(dropout=0.2, corruption=0.0, adversary=adversary)
        settings = replace(deployment.settings, secure=secure, metrics={})
        for folder in (*deployment.node_folders, deployment.server_folder):
            settings.write(folder / "rounds.json")
        with deployed(deployment):
            deployment.run()
        marks = json.loads((deployment.server_folder / "marks.json").read_text())
    seconds = [after[0] - before[0] for before, after in itertools.pairwise(marks)]
    if len(seconds) != rounds:
        raise SystemExit(f"{kind}: {len(seconds)} of {rounds} rounds gave a sum")
    return median(seconds), max(sent for _, sent in marks[1:])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=7, help="an odd number, as SecAgg+ wants it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--length", type=int, default=100_000)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args()
    found = {kind: measure(kind, options.nodes, options.rounds, options.length) for kind in options.kinds}
    rows, (peer_seconds, peer_bytes) = [], found.get("secaggplus", (None, None))
    for kind, (seconds, sent) in found.items():
        of = f"{options.nodes} nodes, {options.length:,} values, {KINDS[kind]}"
        beside = {"peer": "Flower SecAgg+"} if peer_seconds and kind in ("semi_honest", "malicious") else {}
        for what, figure, limit, unit in (
            ("seconds a round", seconds, peer_seconds, "s"),
            ("bytes up a node", sent, peer_bytes, "bytes"),
        ):
            limited = {"limit": round(limit, 2), **beside} if beside else {}
            rows.append({"what": f"{of}: {what}", "figure": round(figure, 2), "unit": unit, **limited})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
