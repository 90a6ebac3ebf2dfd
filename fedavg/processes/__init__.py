"""Federated processes shaped like TensorFlow Federated's: pure `initialize` and `next`, one file for each concern."""

from __future__ import annotations

from fedavg.processes.builders import (
    build_fed_sgd,
    build_unweighted_fed_avg,
    build_weighted_fed_avg,
    build_weighted_fed_prox,
)
from fedavg.processes.private_sum import PrivateSum, private_sum
from fedavg.processes.process import (
    FederatedProcess,
    ModelWeights,
    ProcessState,
    RoundOutput,
    Rounds,
    spent_together,
)

__all__ = [
    "FederatedProcess",
    "ModelWeights",
    "PrivateSum",
    "ProcessState",
    "RoundOutput",
    "Rounds",
    "build_fed_sgd",
    "build_unweighted_fed_avg",
    "build_weighted_fed_avg",
    "build_weighted_fed_prox",
    "private_sum",
    "spent_together",
]
