"""Differential privacy for sums of integer vectors: mechanisms, cohorts, accounting, ledger.

What a client's vector becomes before it is masked, what the sum of such vectors costs, and what was
already spent. Importing this package loads neither `dp_accounting` nor `scipy.stats`.
"""

from __future__ import annotations

from dp.accounting import RunAccountant, epsilon_of
from dp.calibration import calibrate
from dp.cohorts import Draw, PaddedPoisson
from dp.discrete_gaussian import DiscreteGaussian
from dp.encoding import Block, Encoding
from dp.errors import (
    BudgetExceeded,
    CohortMismatch,
    DPError,
    LedgerError,
    NonFiniteInput,
    ParameterError,
    UnsupportedEvent,
)
from dp.keystream import Keystream
from dp.ledger import Ledger, Row
from dp.mechanisms import DistributedDiscreteGaussian
from dp.privacy import Epsilons, Privacy, delta_warning
from dp.statements import Statement, Statements, epsilon_text, statements

__all__ = [
    "Block",
    "BudgetExceeded",
    "CohortMismatch",
    "DPError",
    "DiscreteGaussian",
    "DistributedDiscreteGaussian",
    "Draw",
    "Encoding",
    "Epsilons",
    "Keystream",
    "Ledger",
    "LedgerError",
    "NonFiniteInput",
    "PaddedPoisson",
    "ParameterError",
    "Privacy",
    "Row",
    "RunAccountant",
    "Statement",
    "Statements",
    "UnsupportedEvent",
    "calibrate",
    "delta_warning",
    "epsilon_of",
    "epsilon_text",
    "statements",
]
