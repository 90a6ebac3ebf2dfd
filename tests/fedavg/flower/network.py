"""Flower's Grid in memory: real ClientApps with real mods, one at a time, and hooks that bend what passes."""

import itertools

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

import dp
from fedavg.flower import PrivateRounds, make_folders, private_mod
from fedavg.flower.rounds import Deadlines
from fedavg.flower.wire import HEADER
from fedavg.secure_aggregation import SecureAggregation

QUICK = Deadlines(stage=0.0, masked_input=0.0, pause=0.0)
PRIVACY = dp.Privacy(noise_multiplier=0.05, delta=1e-3, l2_clip_norm=10.0, metrics_share=0.5)
"""So little noise that a wrong sum shows: a count has deviation 0.15, a mean weight of four nodes 0.2."""


def rounds(nodes=4, *, privacy=PRIVACY, adversary="semi_honest", **settings):
    secure = SecureAggregation(dropout=0.25, corruption=0.0, adversary=adversary)
    defaults = {"task": "test", "rounds": 3, "metrics": {"loss": 10.0}, "secure": secure}
    return PrivateRounds(nodes=nodes, privacy=privacy, **(defaults | settings))


def start():
    return ArrayRecord({"w": Array(np.zeros((2, 3), np.float32)), "b": Array(np.zeros(3, np.float32))})


def train(message, context):
    """Every node moves every weight by its number, 1, 2, 3, ..., and reports it as its loss."""
    step = float(context.node_config["partition-id"] + 1)
    arrays = {
        name: Array(array.numpy() + np.float32(step)) for name, array in message.content["arrays"].items()
    }
    metrics = {"num-examples": 7, "loss": step, "secret": 123.0}
    return Message(
        RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord(metrics)}), reply_to=message
    )


def app_of(settings, *, body=train, **options):
    app = ClientApp()
    app.train(mods=[private_mod(settings, **options)])(body)
    app.evaluate(mods=[private_mod(settings, **options)])(body)
    return app


class LoopbackGrid:
    """Nodes in this process. `down` and `up` may change a message, or drop it by returning None.

    Attributes:
        seen: (stage, node, reply) of everything the server received.
    """

    def __init__(self, apps, folders, *, down=None, up=None):
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 3
        self.apps = dict(zip(itertools.count(1001), apps, strict=False))
        self.contexts = {
            node: Context(7, node, {"partition-id": i, "veilsum": str(folders[i])}, RecordDict(), {})
            for i, node in enumerate(self.apps)
        }
        self.down, self.up = down, up
        self.seen, self._replies, self._count = [], {}, itertools.count(1)

    @property
    def nodes(self):
        return list(self.apps)

    def get_node_ids(self):
        return list(self.apps)

    def restart(self, node):
        """What a SuperNode's memory held is gone; its folder is not."""
        self.contexts[node].state = RecordDict()

    def push_messages(self, messages):
        return [self._push(message) for message in messages]

    def pull_messages(self, identifiers):
        return [
            self._replies.pop(i) for i in sorted(identifiers, key=lambda i: int(i[1:])) if i in self._replies
        ]

    def send_and_receive(self, messages, *, timeout=None):
        return self.pull_messages(self.push_messages(messages))

    def ask(self, message):
        """What a node answers to a message."""
        node = message.metadata.dst_node_id
        return self.apps[node](message, self.contexts[node])

    def _push(self, message):
        identifier, node = f"m{next(self._count)}", message.metadata.dst_node_id
        message.metadata.__dict__["_message_id"] = identifier
        stage = message.content[HEADER]["stage"] if HEADER in message.content else "plain"
        message = message if self.down is None else self.down(stage, node, message)
        if message is None:
            return identifier
        reply = self.ask(message)
        reply = reply if self.up is None else self.up(stage, node, reply)
        if reply is not None:
            self._replies[identifier] = reply
            self.seen.append((stage, node, reply))
        return identifier


def network(tmp_path, settings, *, body=train, down=None, up=None):
    """A grid of as many nodes as planned, each with its own folder."""
    folders = make_folders(tmp_path / "nodes", settings.nodes)
    return LoopbackGrid([app_of(settings, body=body) for _ in folders], folders, down=down, up=up)


def silent(*nodes, at):
    """A hook that drops what goes down to some nodes from a stage on."""
    stages = ["advertise", "share", "masked_input", "consistency", "unmask"]

    def hook(stage, node, message):
        return None if node in nodes and stages.index(stage) >= stages.index(at) else message

    return hook


def config(**values):
    return ConfigRecord(values)
