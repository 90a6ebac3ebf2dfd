"""Where a round's clients are played: in this process, or elsewhere.

`fedavg.backends.processes` and `fedavg.backends.ray` are imported on use.
"""

from __future__ import annotations

from fedavg.backends.backend import Backend, Local
from fedavg.backends.choice import of

__all__ = ["Backend", "Local", "of"]
