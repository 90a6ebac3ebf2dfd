"""What can go wrong in `dp`, and whose fault it is.

Every message names the value, the limit and the way out. Nothing secret (a key, a drawn client, a noise
value) is ever put into one.

Not here: what `secagg` and `fedavg` raise.
"""

from __future__ import annotations

__all__ = [
    "BudgetExceeded",
    "CohortMismatch",
    "DPError",
    "LedgerError",
    "NonFiniteInput",
    "ParameterError",
    "UnsupportedEvent",
]


class DPError(Exception):
    """Root of everything `dp` raises on purpose."""


class ParameterError(DPError, ValueError):
    """The caller's parameter cannot be honoured; nothing was drawn, charged or released."""


class NonFiniteInput(DPError, ValueError):
    """A vector holds NaN or infinity; whoever holds the data must send zeros in its place."""


class UnsupportedEvent(DPError):
    """No accountant here covers this event; it is refused, never approximated."""


class CohortMismatch(UnsupportedEvent):
    """An accountant was paired with a sampler it does not describe."""


class BudgetExceeded(DPError):
    """The charge would pass a budget; nothing was written and nobody may be invited.

    Args:
        message: One sentence naming the observer, what the charge would reach, the budget and the way out.
        observer: `"readers"` or `"server"`.
        would_reach: Epsilon after the refused charge.
        budget: The epsilon that may not be passed.
    """

    def __init__(self, message: str, *, observer: str, would_reach: float, budget: float) -> None:
        super().__init__(message)
        self.observer = observer
        self.would_reach = would_reach
        self.budget = budget


class LedgerError(DPError):
    """A ledger cannot be read, written or trusted; the file is left as it was found."""
