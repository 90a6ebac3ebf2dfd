"""Errors of the Flower adapter: one line each, with nothing secret in it, because it may cross to the other side."""

from __future__ import annotations

from fedavg.errors import FedAvgError

__all__ = ["NodeRefusal", "NodeSetupError", "WireError"]


class NodeRefusal(FedAvgError):
    """This node does not answer: the request does not fit its own settings, its records or the state of the round."""


class NodeSetupError(FedAvgError):
    """This node's folder is missing, damaged or does not belong to the roster."""


class WireError(FedAvgError, ValueError):
    """A record from the other side has another form, version or length than agreed."""
