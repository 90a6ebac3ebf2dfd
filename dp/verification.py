"""Checking a spent budget from its ledger alone: the rows, and both epsilons by a code path of its own.

The epsilons are recomputed by dp-accounting directly from the plan in the ledger's first row: neither the loss
distributions nor the closed form that charged the rounds are used.

Not here: charging (`dp.ledger`). A ledger that was replaced whole fits itself: keep its newest hash elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp.accounting import epsilon_of
from dp.central import CentralGaussian, CentralMatrix
from dp.cohorts import PaddedPoisson, Sampler, SelfSampling
from dp.errors import LedgerError
from dp.events import BandedGaussian, Composed, Gaussian, Poisson
from dp.fixed_cohorts import FixedOrder, FixedSizeSample
from dp.ledger import Ledger, Row
from dp.mechanisms import DistributedDiscreteGaussian, DistributedSkellam, Mechanism, NarrowDiscreteGaussian
from dp.privacy import Epsilons
from dp.removable_noise import RemovableDiscreteGaussian

__all__ = ["Verification", "verify"]

_TOLERANCE = 2e-3
"""Relative difference that two right accountants may show, their grids being different."""


@dataclass(frozen=True)
class Verification:
    """What a ledger says, and what does not fit.

    Args:
        path: The ledger.
        rows: Number of rows read.
        charged: Rounds reserved and not refunded.
        settled: Rounds that gave a sum.
        refunded: Rounds taken back.
        epsilons: Both epsilons by the accountant that charges; None if its plan is of another
            accountant.
        recomputed: Both by dp-accounting; an observer is None where dp-accounting does not cover the event.
        newest_hash: Hash of the last row, in hexadecimal.
        findings: What does not fit, one sentence each; empty if all does.
    """

    path: Path
    rows: int
    charged: int
    settled: int
    refunded: int
    epsilons: Epsilons | None
    recomputed: Mapping[str, float | None]
    newest_hash: str
    findings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON values; infinity is None."""

        def finite(value: float | None) -> float | None:
            return value if value is not None and math.isfinite(value) else None

        spent = self.epsilons
        return {
            "ledger": str(self.path),
            "rows": self.rows,
            "charged": self.charged,
            "settled": self.settled,
            "refunded": self.refunded,
            "epsilon": None
            if spent is None
            else {"readers": finite(spent.readers), "server": finite(spent.server)},
            "recomputed": {observer: finite(value) for observer, value in self.recomputed.items()},
            "newest_hash": self.newest_hash,
            "findings": list(self.findings),
        }


def verify(path: str | Path) -> Verification:
    """Read a ledger, recompute its chain and its epsilons, and name what does not fit.

    Args:
        path: The ledger's file; it is only read.

    Returns:
        What was found; `findings` is empty if everything fits.

    Raises:
        LedgerError: The file cannot be read as a ledger at all.
    """
    ledger = Ledger.open(path)
    try:
        ledger.verify()
    except LedgerError as error:
        return Verification(Path(path), 0, 0, 0, 0, None, {}, "", (str(error),))
    rows = list(ledger.rows())
    kinds = [row.kind for row in rows]
    charged, refunded = kinds.count("reserve") - kinds.count("refund"), kinds.count("refund")
    epsilons, recomputed, findings = _epsilons(rows[0].body["accountant"], charged)
    return Verification(
        Path(path),
        len(rows),
        charged,
        kinds.count("settle"),
        refunded,
        epsilons,
        recomputed,
        rows[-1].hash.hex(),
        (*_clock(rows), *findings),
    )


def _clock(rows: Iterable[Row]) -> list[str]:
    """Rows whose time lies before that of an earlier row."""
    latest, findings = -math.inf, []
    for row in rows:
        time = row.body.get("time")
        if time is not None and time < latest:
            findings.append(
                f"Row {row.sequence} is dated {latest - time:.3f} s before a row above it: a clock ran back."
            )
        latest = max(latest, -math.inf if time is None else time)
    return findings


def _epsilons(
    plan: Mapping[str, Any], charged: int
) -> tuple[Epsilons | None, Mapping[str, float | None], list[str]]:
    try:
        mechanism = _MECHANISMS[plan["mechanism"]["kind"]](_figures(plan["mechanism"]))
        sampler = _SAMPLERS[plan["sampler"]["kind"]](plan["sampler"])
        delta, cap = plan["delta"], plan["max_participations"]
    except KeyError:
        return None, {}, []
    ours = epsilon_of(mechanism, sampler, charged, delta, cap)
    costs = {
        "readers": sampler.readers_event(mechanism.event, charged, cap),
        "server": sampler.server_event(mechanism.event, charged, cap),
    }
    theirs: dict[str, float | None] = {}
    findings = []
    for observer, cost in costs.items():
        seen = observer == "server" and mechanism.trusted_server and charged > 0
        own, budget = getattr(ours, observer), plan[f"{observer}_epsilon"]
        other = math.inf if seen else independent_epsilon(cost, delta=delta, scale=own)
        theirs[observer] = other
        if other is not None and own != other and abs(own - other) > _TOLERANCE * max(1.0, own):
            findings.append(
                f"Epsilon against {observer} is {own:.6g} by this library and {other:.6g} by dp-accounting."
            )
        if budget is not None and own > budget:
            findings.append(
                f"Epsilon against {observer} is {own:.6g}, over the budget of {budget:g} in row 0."
            )
    return ours, theirs, findings


def independent_epsilon(cost: Composed, *, delta: float, scale: float) -> float | None:
    """Epsilon of a composed Gaussian event by dp-accounting alone.

    Args:
        cost: What was released, how often.
        delta: In (0, 1).
        scale: About how large the answer is: chooses the grid.

    Returns:
        Epsilon, or None for an event that dp-accounting does not cover.
    """
    from dp_accounting import get_epsilon_gaussian
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    step, rate = (cost.step.event, cost.step.rate) if isinstance(cost.step, Poisson) else (cost.step, 1.0)
    event = step.participation if isinstance(step, BandedGaussian) else step
    if not isinstance(event, Gaussian):
        return None
    if cost.count == 0:
        return 0.0
    slack = cost.count * event.slack
    delta *= math.exp(-slack)
    if rate == 1:
        return float(get_epsilon_gaussian(event.noise_multiplier / math.sqrt(cost.count), delta)) + 2 * slack
    grid = min(max(scale / 50_000, 1e-4), 1e-2)
    losses = from_gaussian_mechanism(
        event.noise_multiplier, sampling_prob=rate, value_discretization_interval=grid
    )
    return float(losses.self_compose(cost.count).get_epsilon_for_delta(delta)) + 2 * slack


def _figures(description: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in description.items() if name != "kind"}


_MECHANISMS: dict[str, Callable[[dict[str, Any]], Mechanism]] = {
    "distributed discrete Gaussian": lambda figures: DistributedDiscreteGaussian(**figures),
    "narrow discrete Gaussian": lambda figures: NarrowDiscreteGaussian(**figures),
    "distributed discrete Gaussian, excess removed": lambda figures: RemovableDiscreteGaussian(**figures),
    "distributed Skellam": lambda figures: DistributedSkellam(**figures),
    "central discrete Gaussian": lambda figures: CentralGaussian(**figures, trusted_server=True),
    "central banded matrix": lambda figures: CentralMatrix(**figures, trusted_server=True),
}
_SAMPLERS: dict[str, Callable[[Mapping[str, Any]], Sampler]] = {
    "padded Poisson": lambda plan: PaddedPoisson(plan["population"], plan["expected"]),
    "self-sampling": lambda plan: SelfSampling(
        PaddedPoisson(plan["population"], plan["expected"]), plan["coin"]
    ),
    "fixed size": lambda plan: FixedSizeSample(plan["population"], plan["expected"]),
    "fixed order": lambda plan: FixedOrder(plan["population"], plan["expected"]),
}
