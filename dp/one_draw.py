"""Several sums over one drawn cohort, as the accountant sees them: one release.

Not here: how a program is cut into such sums (`fedavg.core`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dp.errors import ParameterError, UnsupportedEvent
from dp.events import Gaussian, together
from dp.mechanisms import Mechanism

__all__ = ["ONE_DRAW", "UnderOneDraw"]

ONE_DRAW = "stages under one draw"
"""Its kind, in a ledger's description."""


@dataclass(frozen=True)
class UnderOneDraw:
    """Mechanisms whose sums are taken over the same drawn cohort.

    Args:
        stages: Those of the sums, in their order; at least one.

    Raises:
        ParameterError: no stage.
    """

    stages: tuple[Mechanism, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ParameterError("A release of no sums costs nothing; name at least one stage.")

    @property
    def event(self) -> Gaussian:
        """What all sums together cost one client.

        Raises:
            UnsupportedEvent: a stage's noise is not Gaussian.
        """
        events = [stage.event for stage in self.stages]
        if not all(isinstance(event, Gaussian) for event in events):
            raise UnsupportedEvent(
                f"Only Gaussian events compose under one draw, and these are {events}; leave the mechanism at its"
                " default."
            )
        return together(*(event for event in events if isinstance(event, Gaussian)))

    @property
    def noise_multiplier(self) -> float:
        """Z of all sums together."""
        return self.event.noise_multiplier

    @property
    def honest_survivors(self) -> int:
        """Fewest honest shares that any of the sums can hold."""
        return min(stage.honest_survivors for stage in self.stages)

    @property
    def trusted_server(self) -> bool:
        """Whether any of the sums is seen without noise."""
        return any(stage.trusted_server for stage in self.stages)

    def describe(self) -> dict[str, Any]:
        """Canonical description for statements and ledgers."""
        return {"kind": ONE_DRAW, "stages": [dict(stage.describe()) for stage in self.stages]}
