"""A run on one self-contained page, and the wording of figures that the command line shares with it."""

from __future__ import annotations

from fedavg.report.page import MissingLibrary, write
from fedavg.report.wording import bytes_text, epsilon_text, is_simulation, promises

__all__ = ["MissingLibrary", "bytes_text", "epsilon_text", "is_simulation", "promises", "write"]
