"""One SecAgg+ round of Flower in memory: its own client mod and server workflow, real serialisation, no network.

Run with a Python that has flwr and not with Veilsum's (`secagg_against_flower.py` does). Prints one JSON object.
The model is not sent down (Veilsum's figure has none in it either); weights are equal; the clients' updates are
made before the clock runs.
"""

import argparse
import json
import logging
import statistics
import time

import numpy as np
from flwr.client.mod import secaggplus_mod
from flwr.common import (
    Code,
    ConfigRecord,
    Context,
    FitIns,
    FitRes,
    Message,
    RecordDict,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.compat.common import recorddict_compat as compat
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow
from flwr.supercore.task_identity import TaskIdentity

STAGES = ("setup", "share_keys", "collect_masked_vectors", "unmask")


class Proxy:
    """A client as the strategy names it."""

    def __init__(self, node_id):
        self.node_id = node_id


class Strategy:
    """Samples every client, keeps what the workflow hands over."""

    def __init__(self, clients):
        self.clients = clients
        self.total = None

    def configure_fit(self, server_round, parameters, client_manager):
        """Sample every client."""
        nothing = FitIns(ndarrays_to_parameters([]), {})
        return [(Proxy(node_id), nothing) for node_id in self.clients]

    def aggregate_fit(self, server_round, results, failures):
        """Keep the mean."""
        self.total = parameters_to_ndarrays(results[0][1].parameters)[0] if results else None
        return None, {}


class Clients:
    """A client manager that is asked for its size only."""

    def num_available(self):
        """Return what only a log line shows."""
        return 0


class MemoryGrid:
    """Carries messages as bytes to the client mod, drops by stage, counts CPU seconds and bytes per client."""

    def __init__(self, clients, length, dropped):
        self.contexts = {c: Context(0, c, {}, RecordDict(), {}) for c in clients}
        self.dropped = dropped
        self.cpu = dict.fromkeys(clients, 0.0)
        self.up = dict.fromkeys(clients, 0)
        self.making = 0.0
        self.stage = 0
        self.length = length
        self.update = np.zeros(0, np.float32)

    def fit(self, message, context):
        """Return the update of the client whose turn it is."""
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.update]), 1, {})
        return Message(compat.fitres_to_recorddict(result, False), reply_to=message)

    def send_and_receive(self, messages, *, timeout=None):
        """Let every client that is still there answer its message."""
        gone = set().union(*(self.dropped.get(stage, set()) for stage in STAGES[: self.stage + 1]))
        self.stage += 1
        replies = []
        for message in messages:
            client = message.metadata.dst_node_id
            if client in gone:
                continue
            request = message_to_proto(message).SerializeToString()
            begin = time.process_time()
            self.update = update(client, self.length)
            self.making += time.process_time() - begin
            begin = time.process_time()
            received = message_from_proto(ProtoMessage.FromString(request))
            reply = secaggplus_mod(received, self.contexts[client], self.fit)
            sent = message_to_proto(reply).SerializeToString()
            self.cpu[client] += time.process_time() - begin
            self.up[client] += len(sent)
            replies.append(message_from_proto(ProtoMessage.FromString(sent)))
        return replies


def update(client, length):
    """The float update of a client."""
    return np.random.default_rng(client).normal(0, 1, length).astype(np.float32)


def run(clients, length, shares, threshold, quantization_bits, dropped):
    """Run one round; None for the total where Flower halted."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    ids = list(range(1, clients + 1))
    state = RecordDict({MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: 1})})
    state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(
        ndarrays_to_parameters([]), True
    )
    strategy = Strategy(ids)
    context = LegacyContext(Context(1, 0, {}, state, {}), None, strategy, Clients())
    grid = MemoryGrid(ids, length, dropped)
    workflow = SecAggPlusWorkflow(shares, threshold, max_weight=1.0, quantization_range=2**quantization_bits)
    begin = time.process_time()
    workflow(grid, context)
    whole = time.process_time() - begin
    gone = set().union(*dropped.values()) if dropped else set()
    staying = [client for client in ids if client not in gone]
    result = {
        "client_cpu_s": statistics.median(grid.cpu[client] for client in staying),
        "server_cpu_s": whole - sum(grid.cpu.values()) - grid.making,
        "client_bytes_up": max(grid.up[client] for client in staying),
        "finished": strategy.total is not None,
    }
    if strategy.total is not None:
        mean = np.mean([update(client, length) for client in staying], axis=0)
        result["max_abs_error"] = float(np.abs(strategy.total - mean).max())
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--length", type=int, default=10**6)
    parser.add_argument("--shares", type=int, default=21)
    parser.add_argument("--threshold", type=int, default=11)
    parser.add_argument("--quantization-bits", type=int, default=19)
    parser.add_argument("--dropped", type=int, default=10, help="clients that send no masked vector")
    parser.add_argument("--survival-only", action="store_true", help="try one dropout at each stage instead")
    settings = parser.parse_args()
    logging.disable(logging.CRITICAL)
    protocol = (settings.shares, settings.threshold, settings.quantization_bits)
    if settings.survival_only:
        small = (settings.clients, 1000, *protocol)
        print(json.dumps({"survives_one_dropout_at": {stage: survives(small, stage) for stage in STAGES}}))
        return
    gone = np.random.default_rng(0).choice(settings.clients, settings.dropped, replace=False) + 1
    dropped = {"collect_masked_vectors": set(gone.tolist())}
    print(json.dumps(run(settings.clients, settings.length, *protocol, dropped)))


def survives(settings, stage):
    """Whether a round in which one client goes silent at that stage still gives a total."""
    try:
        return run(*settings, {stage: {1}})["finished"]
    except (KeyError, ValueError):
        return False


if __name__ == "__main__":
    main()
