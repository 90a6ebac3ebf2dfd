"""A run on one self-contained page, and the wording of figures that the command line shares with it."""

from __future__ import annotations

from fedavg.report.page import MissingLibrary, rewrite, write
from fedavg.report.view import View
from fedavg.report.wording import bytes_text, epsilon_text, is_simulation, promises

__all__ = [
    "MissingLibrary",
    "View",
    "bytes_text",
    "epsilon_text",
    "is_simulation",
    "promises",
    "rewrite",
    "write",
]
