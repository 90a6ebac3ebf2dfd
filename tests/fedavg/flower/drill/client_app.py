"""The example's client, whose node may be told to die, dawdle or note down what it is about to hide."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from private_app.model import fit

from fedavg.flower import private_mod


def obey(message, context, app):
    """Follow `orders.json` in the folder: {"stage": "share", "do": "die", "cut", "stuff" or seconds of sleep}."""
    folder, header = Path(str(context.node_config["veilsum"])), message.content.get("veilsum")
    orders = folder / "orders.json"
    if header is not None and orders.exists():
        order = json.loads(orders.read_text())
        if order["stage"] == header["stage"]:
            orders.rename(folder / "orders.obeyed")
            if order["do"] == "die":
                os.killpg(os.getpgid(0), signal.SIGKILL)
            if order["do"] in ("cut", "stuff"):
                return bent(app(message, context), order["do"])
            time.sleep(order["do"])
    return app(message, context)


def bent(reply, how):
    """The reply with too little or too much protocol data."""
    data = reply.content["veilsum.data"]["bytes"].numpy()
    data = data[:-7] if how == "cut" else np.concatenate([data, np.zeros(10**6, np.uint8)])
    reply.content["veilsum.data"] = ArrayRecord({"bytes": Array(data)})
    return reply


app = ClientApp(mods=[obey, private_mod()])


@app.train()
def train(message, context):
    data = np.load(str(context.node_config["data"]))
    weights = {name: array.numpy() for name, array in message.content["arrays"].items()}
    trained, loss = fit(weights, data["x"], data["y"])
    note = Path(str(context.node_config["veilsum"])) / f"secret-{time.time_ns()}.npz"
    np.savez(note, **trained, **{f"delta_{k}": trained[k] - weights[k] for k in trained})
    arrays = ArrayRecord({name: Array(weight) for name, weight in trained.items()})
    metrics = MetricRecord({"num-examples": len(data["y"]), "loss": loss})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
