"""Differential privacy for sums of integer vectors: mechanisms, cohorts, accounting, ledger.

What a client's vector becomes before it is masked, what the sum of such vectors costs, and what was
already spent. Importing this package loads neither `dp_accounting` nor `scipy.stats`.
"""

from __future__ import annotations

from dp.errors import (
    BudgetExceeded,
    CohortMismatch,
    DPError,
    LedgerError,
    NonFiniteInput,
    ParameterError,
    UnsupportedEvent,
)

__all__ = [
    "BudgetExceeded",
    "CohortMismatch",
    "DPError",
    "LedgerError",
    "NonFiniteInput",
    "ParameterError",
    "UnsupportedEvent",
]
