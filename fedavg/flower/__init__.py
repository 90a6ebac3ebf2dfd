"""Flower (https://flower.ai) brings the network, this brings the privacy: one mod, and one strategy around yours.

    PrivateRounds(task="mnist", nodes=12, rounds=5, privacy=dp.Privacy(...)).write("rounds.json")  # once, for all
    app = ClientApp(mods=[private_mod()])                                                          # on the nodes
    PrivateStrategy(FedAvg(), "rounds.json", folder="/srv/run").start(grid, arrays, 5)             # on the server

Needs the extra `flower`. Everything here uses Flower's public surface only: `flwr.app`, `flwr.serverapp`.
"""

from __future__ import annotations

from fedavg.flower.errors import NodeRefusal, NodeSetupError, WireError
from fedavg.flower.keys import make_folders, make_identity, read_roster, write_roster
from fedavg.flower.mod import private_mod
from fedavg.flower.rounds import Deadlines
from fedavg.flower.settings import PrivateRounds
from fedavg.flower.strategy import PrivateStrategy

__all__ = [
    "Deadlines",
    "NodeRefusal",
    "NodeSetupError",
    "PrivateRounds",
    "PrivateStrategy",
    "WireError",
    "make_folders",
    "make_identity",
    "private_mod",
    "read_roster",
    "write_roster",
]
