"""The command line: `veilsum simulate`, `budget`, `bench`, `data`."""

from __future__ import annotations

from fedavg.cli.app import main

__all__ = ["main"]
