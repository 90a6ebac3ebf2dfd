"""Federated Core: computations whose types carry placement and privacy."""

from __future__ import annotations

from fedavg.core.errors import CoreError, ExecutionError, PrivacyTypeError, TypeMismatch
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
    "CoreError",
    "ExecutionError",
    "FederatedType",
    "FunctionType",
    "Placement",
    "PrivacyTypeError",
    "SequenceType",
    "StructType",
    "TensorType",
    "Type",
    "TypeMismatch",
    "WithinType",
    "at_clients",
    "at_server",
    "to_type",
    "type_of",
    "within",
]
