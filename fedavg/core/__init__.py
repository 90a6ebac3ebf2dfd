"""Federated Core: typed computations over values at clients and at the server, whose privacy is part of their type.

A program that type-checks moves nothing from the clients to the server but noised sums of bounded values, and its cost
is known before it runs (`computation.privacy(context)`). The rules stand in `fedavg.core.judgement`.

>>> import numpy as np
>>> from fedavg import SecureAggregation
>>> @federated_computation(at_clients(np.float32), at_server(np.float32))
... def share_over(readings, threshold):
...     over = local_computation(returns=within(np.float32, l2=1.0))(lambda x, t: np.float32(x > t))
...     return federated_mean(federated_map(over, (readings, federated_broadcast(threshold))))
>>> str(share_over.type_signature)
'(<readings={float32}@CLIENTS,threshold=float32@SERVER> -> float32@SERVER)'
>>> with Context(population=2000, delta=1e-5, readers_epsilon=1.0, secure=SecureAggregation.ideal()):
...     share = share_over([20.0 + i % 20 for i in range(2000)], 30.0)
>>> bool(abs(share - 0.45) < 0.02)
True
"""

from __future__ import annotations

from fedavg.core.computation import FederatedComputation, Value, federated_computation
from fedavg.core.context import Context, InsecureWarning, RunResult
from fedavg.core.errors import CoreError, ExecutionError, PrivacyTypeError, TypeMismatch
from fedavg.core.graph import Noise
from fedavg.core.intrinsics import (
    federated_broadcast,
    federated_clip,
    federated_eval,
    federated_filter,
    federated_map,
    federated_mean,
    federated_sum,
    federated_value,
    federated_zip,
)
from fedavg.core.local import LocalComputation, local_computation
from fedavg.core.plan import Event, PrivacyReport
from fedavg.core.types import (
    CLIENTS,
    SERVER,
    FederatedType,
    FunctionType,
    Placement,
    SequenceType,
    StructType,
    TensorType,
    Type,
    WithinType,
    at_clients,
    at_server,
    to_type,
    type_of,
    within,
)

__all__ = [
    "CLIENTS",
    "SERVER",
    "Context",
    "CoreError",
    "Event",
    "ExecutionError",
    "FederatedComputation",
    "FederatedType",
    "FunctionType",
    "InsecureWarning",
    "LocalComputation",
    "Noise",
    "Placement",
    "PrivacyReport",
    "PrivacyTypeError",
    "RunResult",
    "SequenceType",
    "StructType",
    "TensorType",
    "Type",
    "TypeMismatch",
    "Value",
    "WithinType",
    "at_clients",
    "at_server",
    "federated_broadcast",
    "federated_clip",
    "federated_computation",
    "federated_eval",
    "federated_filter",
    "federated_map",
    "federated_mean",
    "federated_sum",
    "federated_value",
    "federated_zip",
    "local_computation",
    "to_type",
    "type_of",
    "within",
]
