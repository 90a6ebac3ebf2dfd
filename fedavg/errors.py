"""Errors of `fedavg`: each names the value, the limit and the way out.

Errors of the rooms below keep their own types: `secagg.SecAggError` and `dp.DPError`. What goes wrong *inside* one
client is never an error of the run: it becomes zeros with that client's noise share (see `fedavg.step`).
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "CheckpointError",
    "FedAvgError",
    "ParameterError",
    "RoundAborted",
    "StepError",
    "TreeError",
]


class FedAvgError(Exception):
    """Root of every error that this package raises itself."""


class ParameterError(FedAvgError, ValueError):
    """The caller asked for a run that cannot keep its promise, or makes no sense; nothing was charged."""


class TreeError(FedAvgError, ValueError):
    """A nest of arrays is not what it must be: a leaf that is no float array, or another shape than agreed."""


class StepError(FedAvgError):
    """A client's step failed, or returned what cannot be used; stays on the client, which then sends zeros."""


class CheckpointError(FedAvgError):
    """A run folder cannot be written, read, or belongs to another run."""


class RoundAborted(FedAvgError):
    """A round ended without a sum; the ledger says whether it was charged. The next round may be tried.

    Args:
        message: What happened.
        charged: Whether the ledger still holds the round's cost.
    """

    def __init__(self, message: str, *, charged: bool) -> None:
        super().__init__(message)
        self.charged = charged


class BackendError(FedAvgError):
    """The machines that play the clients cannot be had, or not with this step and these data."""
