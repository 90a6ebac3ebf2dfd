"""Federated averaging whose server only ever receives masked vectors with noise already in their sum.

Wrap a training loop with `train`; keep the outer loop with `Federation`. This package is the only place where
`secagg` (masks) and `dp` (noise and its accounting) meet.
"""

from __future__ import annotations

from fedavg.adapters import (
    from_keras,
    from_sklearn,
    from_torch,
    model_from_jax,
    model_from_keras,
    model_from_sklearn,
    model_from_torch,
)
from fedavg.aggregation import SecureAggregation
from fedavg.check import Finding, check
from fedavg.client_data import ClientData
from fedavg.entropy import RunEntropy
from fedavg.errors import (
    CheckpointError,
    FedAvgError,
    ParameterError,
    RoundAborted,
    StepError,
    TreeError,
)
from fedavg.evaluation import build_fed_eval
from fedavg.federation import Federation, Result, RoundReport
from fedavg.insecure import insecure_sum
from fedavg.model import FunctionalModel, batches
from fedavg.personalisation import build_personalisation_eval, fine_tune
from fedavg.processes import (
    build_fed_sgd,
    build_unweighted_fed_avg,
    build_weighted_fed_avg,
    build_weighted_fed_prox,
    private_sum,
    spent_together,
)
from fedavg.server_optimizers import ServerOptimizer, adagrad, adam, sgd, yogi
from fedavg.training import train

__all__ = [
    "CheckpointError",
    "ClientData",
    "FedAvgError",
    "Federation",
    "Finding",
    "FunctionalModel",
    "ParameterError",
    "Result",
    "RoundAborted",
    "RoundReport",
    "RunEntropy",
    "SecureAggregation",
    "ServerOptimizer",
    "StepError",
    "TreeError",
    "adagrad",
    "adam",
    "batches",
    "build_fed_eval",
    "build_fed_sgd",
    "build_personalisation_eval",
    "build_unweighted_fed_avg",
    "build_weighted_fed_avg",
    "build_weighted_fed_prox",
    "check",
    "fine_tune",
    "from_keras",
    "from_sklearn",
    "from_torch",
    "insecure_sum",
    "model_from_jax",
    "model_from_keras",
    "model_from_sklearn",
    "model_from_torch",
    "private_sum",
    "sgd",
    "spent_together",
    "train",
    "yogi",
]
