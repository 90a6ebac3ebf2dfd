"""Where a round's clients are played: in this process, or elsewhere."""

from __future__ import annotations

from fedavg.backends.backend import Backend, Local

__all__ = ["Backend", "Local"]
