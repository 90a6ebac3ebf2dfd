"""Differential privacy for sums of integer vectors: mechanisms, cohorts, accounting, ledger.

What a client's vector becomes before it is masked, what the sum of such vectors costs, and what was
already spent. Importing this package loads neither `dp_accounting` nor `scipy.stats`.
"""

from __future__ import annotations

from dp.accounting import RunAccountant, epsilon_of
from dp.adaptive_clipping import AdaptiveClip
from dp.blocks import per_layer
from dp.budget import plan
from dp.calibration import calibrate
from dp.central import CentralFloatGaussianNotFloatingPointSafe, CentralGaussian, CentralMatrix
from dp.clipping import clip_l2
from dp.cohorts import Draw, PaddedPoisson, Sampler, SelfSampling
from dp.compression import compressed
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
from dp.filters import GaussianFilter, RenyiFilter
from dp.fixed_cohorts import FixedOrder, FixedSizeSample
from dp.keystream import Keystream
from dp.ledger import Ledger, Row
from dp.mechanisms import DistributedDiscreteGaussian, DistributedSkellam, Mechanism, NarrowDiscreteGaussian
from dp.participation import ParticipationCounts
from dp.privacy import Epsilons, Privacy, delta_warning
from dp.removable_noise import RemovableDiscreteGaussian
from dp.shared_budget import SharedBudget, Sharing
from dp.skellam import Skellam
from dp.spending import RunSpending, Spending, accountant_of, spending
from dp.statements import Statement, Statements, epsilon_text, statements
from dp.verification import Verification, verify

__all__ = [
    "AdaptiveClip",
    "Block",
    "BudgetExceeded",
    "CentralFloatGaussianNotFloatingPointSafe",
    "CentralGaussian",
    "CentralMatrix",
    "CohortMismatch",
    "DPError",
    "DiscreteGaussian",
    "DistributedDiscreteGaussian",
    "DistributedSkellam",
    "Draw",
    "Encoding",
    "Epsilons",
    "FixedOrder",
    "FixedSizeSample",
    "GaussianFilter",
    "Keystream",
    "Ledger",
    "LedgerError",
    "Mechanism",
    "NarrowDiscreteGaussian",
    "NonFiniteInput",
    "PaddedPoisson",
    "ParameterError",
    "ParticipationCounts",
    "Privacy",
    "RemovableDiscreteGaussian",
    "RenyiFilter",
    "Row",
    "RunAccountant",
    "RunSpending",
    "Sampler",
    "SelfSampling",
    "SharedBudget",
    "Sharing",
    "Skellam",
    "Spending",
    "Statement",
    "Statements",
    "UnsupportedEvent",
    "Verification",
    "accountant_of",
    "calibrate",
    "clip_l2",
    "compressed",
    "delta_warning",
    "epsilon_of",
    "epsilon_text",
    "per_layer",
    "plan",
    "spending",
    "statements",
    "verify",
]
