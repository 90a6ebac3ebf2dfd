"""The nodes' half: trains on the data that its SuperNode's own configuration names."""

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedavg.flower import private_mod  # private
from private_app.model import fit

app = ClientApp(mods=[private_mod()])  # private


@app.train()
def train(message, context):
    data = np.load(str(context.node_config["data"]))
    weights = {name: array.numpy() for name, array in message.content["arrays"].items()}
    weights, loss = fit(weights, data["x"], data["y"])
    arrays = ArrayRecord({name: Array(weight) for name, weight in weights.items()})
    metrics = MetricRecord({"num-examples": len(data["y"]), "loss": loss})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
