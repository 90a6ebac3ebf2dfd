"""Errors of the layer: a program that does not type-check, and one that cannot be run as it was asked to.

Both are raised before any data is touched; each names the expression and the way out.
"""

from __future__ import annotations

from fedavg.errors import FedAvgError

__all__ = ["CoreError", "ExecutionError", "PrivacyTypeError", "TypeMismatch"]


class CoreError(FedAvgError):
    """Root of this layer's errors."""


class TypeMismatch(CoreError, TypeError):
    """A type is malformed, or a value or function does not have the type that stands where it is used."""


class PrivacyTypeError(TypeMismatch):
    """The program could move something from the clients to the server un-noised: it does not type-check."""


class ExecutionError(CoreError):
    """The context cannot run this program on these arguments; nothing was charged."""
