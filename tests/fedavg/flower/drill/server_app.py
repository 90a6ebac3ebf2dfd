"""The example's server with short deadlines, which at the end asks every node to take part in round 1 once more."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from private_app.model import start

from fedavg.flower import Deadlines, PrivateStrategy

app = ServerApp()


class Recorder:
    """Passes everything on, and keeps the first message to each node."""

    def __init__(self, grid):
        self._grid, self.first = grid, {}

    def __getattr__(self, name):
        return getattr(self._grid, name)

    def push_messages(self, messages):
        for message in messages:
            self.first.setdefault(message.metadata.dst_node_id, RecordDict(dict(message.content)))
        return self._grid.push_messages(messages)


@app.main()
def main(grid, context):
    folder = Path(str(context.run_config["folder"]))
    test = np.load(folder / "test.npz")
    deadlines = json.loads((folder / "deadlines.json").read_text())
    arrays = ArrayRecord({name: Array(w) for name, w in start(test["x"].shape[1]).items()})
    strategy = PrivateStrategy(
        FedAvg(fraction_evaluate=0.0, min_available_nodes=2),
        folder / "rounds.json",
        folder=folder,
        deadlines=Deadlines(**deadlines),
    )
    recorder = Recorder(grid)
    strategy.start(recorder, arrays, num_rounds=int(context.run_config["rounds"]))
    again = [
        Message(content, dst_node_id=node, message_type="train", ttl=60.0)
        for node, content in recorder.first.items()
    ]
    waiting, replies, deadline = set(grid.push_messages(again)), [], time.monotonic() + 60.0
    while waiting and time.monotonic() < deadline:
        for reply in grid.pull_messages(waiting):
            waiting.discard(reply.metadata.reply_to_message_id)
            replies.append(reply.error.reason if reply.has_error() else "ANSWERED")
        time.sleep(0.5)
    (folder / "evaluations.json").write_text(json.dumps({"probes": replies}))
