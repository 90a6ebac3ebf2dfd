"""The command line: `veilsum simulate`, `veilsum data`."""

from __future__ import annotations

from fedavg.cli.app import main

__all__ = ["main"]
