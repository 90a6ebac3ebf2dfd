"""All audits of one run's pipeline together: two attacks, five detectors, and the promise beside them.

The rounds that an audit takes hold canaries and nobody's data, so they cost no budget and touch no ledger. One of them
is under the run's own masks; the others sum the same integers without, after that one has shown that it makes no
difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dp
from dp.accounting import epsilon
from dp.auditing import Membership, OneRun, OneShot
from dp.events import Composed
from fedavg.aggregation import AggregationPlan
from fedavg.auditing.canaries import one_run, one_shot
from fedavg.auditing.detectors import (
    clip_applied,
    cohort_fits,
    draw_rounds,
    fresh_noise,
    masks_cancel,
    noise_in_full,
    without_masks,
)
from fedavg.auditing.findings import Finding
from fedavg.entropy import RunEntropy
from fedavg.errors import ParameterError

__all__ = ["Audit", "audit"]

_DRAWN_AT_RANDOM = (dp.PaddedPoisson, dp.SelfSampling)


@dataclass(frozen=True)
class Audit:
    """What the audits found.

    Args:
        promised: Epsilon of `participations` releases towards one client, against whoever knows the cohort.
        delta: Of all three epsilons.
        participations: Releases that a canary is in.
        bound: Lower bound, at its significance.
        estimate: Neither a lower nor an upper bound.
        findings: One for each detector.
        included: Scores of canaries that took part.
        excluded: Scores of canaries that did not.
        membership: An attack on the released model, where there is one.
        most_allowed: Most true alarms that the readers' statement allows at its share of false alarms, if there is.
    """

    promised: float
    delta: float
    participations: int
    bound: OneRun
    estimate: OneShot
    findings: tuple[Finding, ...]
    included: NDArray[np.float64] = field(repr=False)
    excluded: NDArray[np.float64] = field(repr=False)
    membership: Membership | None = None
    most_allowed: float | None = None

    @property
    def flagged(self) -> tuple[str, ...]:
        """What speaks against the promise, a sentence each."""
        said = [finding.says for finding in self.findings if finding.flagged]
        if self.bound.epsilon > self.promised:
            said.insert(
                0,
                f"Canaries prove an epsilon above {self.bound.epsilon:.4g}, over the promised {self.promised:.4g}.",
            )
        return tuple(said)

    def as_dict(self) -> dict[str, Any]:
        """JSON values; infinity is None."""
        member = self.membership
        return {
            "epsilon": {
                "lower_bound": self.bound.epsilon,
                "estimate": self.estimate.epsilon,
                "promised": self.promised if math.isfinite(self.promised) else None,
            },
            "delta": self.delta,
            "participations": self.participations,
            "canaries": len(self.included) + len(self.excluded),
            "guesses": self.bound.guesses,
            "right": self.bound.right,
            "significance": self.bound.significance,
            "findings": [finding.as_dict() for finding in self.findings],
            "flagged": [*self.flagged],
            "membership": None
            if member is None
            else {
                "area": member.area,
                "advantage": member.advantage,
                "true_alarms": member.true_alarms,
                "false_alarms": member.false_alarms,
                "most_true_alarms": self.most_allowed,
                "members": member.members,
                "others": member.others,
            },
        }


def audit(
    plan: AggregationPlan,
    sampler: dp.Sampler,
    *,
    delta: float,
    canaries: int = 1000,
    participations: int = 1,
    draws: int = 200,
    level: float = 0.001,
    significance: float = 0.05,
    entropy: RunEntropy | None = None,
    on_step: Callable[[str], object] | None = None,
) -> Audit:
    """Attack a run's own pipeline with canaries, and look for each failure by itself.

    Guarantee: if nothing is wrong, the lower bound is above `promised` with probability at most `significance`, and
    each detector flags with probability at most `level`.

    Args:
        plan: How rounds are summed: `Federation.plan`.
        sampler: How cohorts are drawn: `Federation.sampler`.
        delta: In (0, 1).
        canaries: At least so many, two or more; rounded up to whole cohorts.
        participations: Releases that a canary is in, such as the cap on a client's participations; at least 1.
        draws: Cohorts drawn to test the sampler, at least 2.
        level: Of each detector.
        significance: Of the lower bound.
        entropy: Randomness of everything; from the operating system when None.
        on_step: Called with the name of what is done next.

    Returns:
        Lower bound, estimate, and a finding for each detector.

    Raises:
        ParameterError, dp.ParameterError: a number out of range.
    """
    for name, value, least in (
        ("canaries", canaries, 2),
        ("participations", participations, 1),
        ("draws", draws, 2),
    ):
        if not (isinstance(value, Integral) and value >= least):
            raise ParameterError(f"{name} is {value!r}; give a whole number, at least {least}")
    for name, share in (("delta", delta), ("level", level), ("significance", significance)):
        if not 0 < share < 1:
            raise ParameterError(f"{name} is {share!r}; give a number between 0 and 1")
    entropy, tell = entropy or RunEntropy(), on_step or (lambda step: None)
    findings = []
    if plan.secure.masked:
        tell("masks")
        findings.append(
            masks_cancel(plan, seed=int.from_bytes(entropy.secret("masks")[:7], "big"), level=level)
        )
        plan = without_masks(plan)
    groups = -(-int(canaries) // plan.cohort)
    tell("one-run bound")
    bound, scores, coins = one_run(
        plan,
        delta=delta,
        groups=groups,
        entropy=_own(entropy, 1),
        participations=participations,
        significance=significance,
    )
    tell("one-shot estimate")
    estimate, _ = one_shot(
        plan, delta=delta, groups=groups, entropy=_own(entropy, 2), participations=participations
    )
    detectors: Mapping[str, Callable[..., Finding]] = {
        "noise": noise_in_full,
        "clip": clip_applied,
        "fresh noise": fresh_noise,
    }
    for number, (name, detector) in enumerate(detectors.items(), start=3):
        tell(name)
        findings.append(detector(plan, entropy=_own(entropy, number), level=level))
    if isinstance(sampler, _DRAWN_AT_RANDOM) and sampler.sampling_rate < 1:
        tell("cohorts")
        contributed = draw_rounds(sampler, draws, entropy=_own(entropy, 6))
        findings.append(cohort_fits(contributed, sampling_rate=sampler.sampling_rate, level=level))
    promised = epsilon(Composed(plan.mechanism.event, participations), delta=delta)
    spread = plan.stddev_of_sum(plan.encoding.blocks[0].parts[0][0]) * plan.encoding.scales[0]
    return Audit(
        promised,
        delta,
        participations,
        bound,
        estimate,
        tuple(findings),
        scores[coins] / spread,
        scores[~coins] / spread,
    )


def _own(entropy: RunEntropy, part: int) -> RunEntropy:
    """Randomness of one part of an audit, apart from the others'."""
    if not entropy.is_seeded:
        return entropy
    return RunEntropy.seeded(int(entropy.dice("audit", part).integers(2**62)))
