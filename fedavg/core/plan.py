"""From a judged program to its privacy cost, before anything runs: stages, blocks, noise, events.

Aggregations that do not wait for each other are one *stage*: one vector per client, one masked sum, one block for each
bounded part. Stages of one program follow each other under *one* draw, and are one sampled event (rule 5). With noise
multipliers z_a of the single aggregations, against their own bounds, the event's is

    1/z^2 = sum over aggregations of 1/z_a^2,   z_a = z / sqrt(w_a),   sum of w_a = 1,

because a sampled mixture of adaptive Gaussians is dominated by the sampled mixture of one Gaussian of that shift.
Within a stage the blocks' weights are the w_a; an aggregation's share is split evenly over its bounded parts.

Not here: running a stage (`program`), charging it (`context`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import fsum, inf, sqrt
from typing import Any

import numpy as np

import dp
from dp.one_draw import UnderOneDraw
from fedavg.aggregation import AggregationPlan, SecureAggregation
from fedavg.core.errors import ExecutionError
from fedavg.core.graph import Node, Noise, upstream
from fedavg.core.types import TensorType, WithinType, leaves, parts, size, unbounded

__all__ = ["Aggregation", "Event", "Plan", "PrivacyReport", "Program", "Stage", "stages_of"]

_UP = 1 + 1e-9  # Noise multipliers are rounded up, so that dividing and composing them never falls short.
_MOST_DEVIATIONS = 40  # of the noise, for what a result may come to


@dataclass(frozen=True)
class Aggregation:
    """One `federated_sum` or `federated_mean` with its name on the wire."""

    node: Node
    name: str

    @property
    def parts(self) -> tuple[tuple[str, WithinType], ...]:
        """Name and type of each bounded part."""
        kind = self.node.inputs[0].type.member
        found = [part for _, part in parts(kind) if isinstance(part, WithinType)]
        if self.node.label == "raw":  # insecure: nothing is bounded
            found = [WithinType(unbounded(kind), inf)]  # type: ignore[arg-type]
        # Numbered: elements' names may hold anything.
        return tuple((f"{self.name}/{i}" if i else self.name, part) for i, part in enumerate(found))

    @property
    def weight_bound(self) -> float | None:
        """The largest weight, where the mean is weighted."""
        if len(self.node.inputs) < 2:
            return None
        kind = self.node.inputs[1].type.member
        return kind.l2 if isinstance(kind, WithinType) else None

    def blocks(self, share: float) -> list[dp.Block]:
        """Its blocks with their weights."""
        blocks = []
        for name, kind in self.parts:
            lengths, bound = {name: size(kind)}, kind.l2
            if self.weight_bound is not None:
                lengths[f"{name} weight"], bound = 1, kind.l2 * sqrt(2)
            blocks.append(dp.Block.joint(lengths, l2_bound=bound, weight=share / len(self.parts)))
        return blocks


Program = tuple[tuple[Aggregation, ...], ...]
"""The aggregations of each stage."""


@dataclass(frozen=True)
class Stage:
    """Aggregations that are summed at once, and how."""

    aggregations: tuple[Aggregation, ...]
    plan: AggregationPlan


@dataclass(frozen=True)
class Event:
    """One aggregation as the accountant sees it.

    Attributes:
        expression: Where it stands.
        stage: In which of the sums under the draw it is.
        bounds: The enforced L2 bound of each part, in its own unit.
        noise_multiplier: Deviation of its noise over its own sensitivity.
        stddev: Deviation of the noise in each coordinate of each part of the sum, with every share in, in its unit.
        threshold_delta: What an open domain's threshold costs; 0, because keys are coordinates here (rule 7).
    """

    expression: str
    stage: int
    bounds: tuple[float, ...]
    noise_multiplier: float
    stddev: tuple[float, ...]
    threshold_delta: float = 0.0


@dataclass(frozen=True)
class PrivacyReport:
    """What a computation costs in a context: both statements, and the events of one run of it."""

    statements: dp.Statements
    events: tuple[Event, ...]
    noise_multiplier: float
    """Of the one sampled event that all of them are."""
    runs: int | None
    """For how many runs the statements hold; None: for as many as a filter lets pass."""

    def __str__(self) -> str:
        lines = [self.statements.readers.text, self.statements.server.text]
        lines += [
            f"stage {e.stage}, noise multiplier {e.noise_multiplier:.4g}, bounds {e.bounds}: {e.expression}"
            for e in self.events
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Plan:
    """A program's stages with their noise, in one context."""

    stages: tuple[Stage, ...]

    @classmethod
    def choose(
        cls,
        roots: Sequence[Node],
        *,
        noise_multiplier: float,
        sampler: dp.Sampler,
        privacy: dp.Privacy,
        secure: SecureAggregation,
        task: str,
    ) -> Plan:
        """Divide the noise among a program's aggregations.

        Args:
            roots: The program's results.
            noise_multiplier: Least z of all aggregations together, as the context wants it.
            sampler: Who is drawn.
            privacy: The promise.
            secure: How sums are taken.
            task: What the sums are for.
        """
        stages = stages_of(roots)
        z, shares = _shares([a for stage in stages for a in stage], noise_multiplier)
        planned = []
        for stage in stages:
            weight = fsum(shares[a.name] for a in stage)
            own = z / sqrt(weight) * _UP
            blocks = [block for a in stage for block in a.blocks(shares[a.name] / weight)]
            plan = AggregationPlan.choose(
                blocks,
                cohort=sampler.cohort_size,
                privacy=privacy,
                noise_multiplier=own,
                secure=secure,
                task=task,
            )
            planned.append(Stage(stage, plan))
            for aggregation in stage:
                _require_room(aggregation, plan, sampler)
        return cls(tuple(planned))

    @property
    def mechanism(self) -> dp.Mechanism:
        """All stages as one release."""
        return UnderOneDraw(tuple(stage.plan.mechanism for stage in self.stages))

    @cached_property
    def program(self) -> Program:
        """What is summed, stage by stage."""
        return tuple(stage.aggregations for stage in self.stages)

    @property
    def minimum_survivors(self) -> int:
        """Fewest clients in any of the sums."""
        return min(stage.plan.minimum_survivors for stage in self.stages)

    @property
    def terms_of_statements(self) -> Mapping[str, Any]:
        """What `dp.statements` has to be told of how the sums are taken: in every stage alike, but for the noise."""
        one = self.stages[0].plan.terms_of_statements
        return {**one, "mechanism": self.mechanism, "minimum_survivors": self.minimum_survivors}

    def events(self) -> tuple[Event, ...]:
        """What one run releases, aggregation by aggregation."""
        return tuple(
            _event(aggregation, number, stage)
            for number, stage in enumerate(self.stages, start=1)
            for aggregation in stage.aggregations
        )


def stages_of(roots: Sequence[Node]) -> Program:
    """The aggregations in the order in which they can be taken."""
    depth: dict[Node, int] = {}
    stages: list[list[Aggregation]] = []
    for node in upstream(*roots):
        below = max((depth[before] for before in node.inputs), default=0)
        depth[node] = below + (node.op in ("sum", "mean"))
        if node.op in ("sum", "mean"):
            stages.extend([] for _ in range(depth[node] - len(stages)))
            stages[depth[node] - 1].append(Aggregation(node, f"{node.op} {sum(map(len, stages)) + 1}"))
    return tuple(map(tuple, stages))


def _shares(aggregations: Sequence[Aggregation], noise_multiplier: float) -> tuple[float, dict[str, float]]:
    """Z of all together, and each aggregation's share of 1/z^2."""
    noises: dict[str, Noise] = {a.name: a.node.detail for a in aggregations}
    fixed = {name: noise.multiplier**-2 for name, noise in noises.items() if noise.multiplier is not None}
    free = {name: noise.weight for name, noise in noises.items() if noise.multiplier is None}
    whole = noise_multiplier**-2
    left = whole - fsum(fixed.values())
    if left < -1e-12 * whole or (free and left <= 0):
        raise ExecutionError(
            f"the aggregations' own noise multipliers come to {fsum(fixed.values()) ** -0.5:.4g} together, and the"
            f" context wants {whole**-0.5:.4g}"
            + (" with others to share it" * bool(free))
            + "; raise them, or the budget"
        )
    if not free:
        whole = fsum(fixed.values())
    total = fsum(free.values())
    shares = {name: cost / whole for name, cost in fixed.items()}
    shares |= {name: left / whole * weight / total for name, weight in free.items()}
    return whole**-0.5, shares


def _require_room(aggregation: Aggregation, plan: AggregationPlan, sampler: dp.Sampler) -> None:
    """Refuse dtypes too narrow for what the cohort and its noise may come to: the result would be infinite."""
    kinds = {leaf.dtype for _, leaf in leaves(aggregation.node.type.member) if isinstance(leaf, TensorType)}
    divisor = sampler.expected if aggregation.node.op == "mean" else 1.0
    for name, part in aggregation.parts:
        most = (sampler.cohort_size * part.l2 + _MOST_DEVIATIONS * plan.stddev_of_sum(name)) / divisor
        for dtype in kinds:
            if most > (end := float(np.finfo(dtype).max)):
                raise ExecutionError(
                    f"{aggregation.node.where}: with the bound {part.l2} its result may come to {most:.3g}, and {dtype}"
                    f" ends at {end:.3g}; make it float64 before the sum, or lower the bound"
                )


def _event(aggregation: Aggregation, number: int, stage: Stage) -> Event:
    plan = stage.plan
    names = [name for name, _ in aggregation.parts]
    share = fsum(
        block.weight for block in plan.encoding.blocks if any(part in names for part, _ in block.parts)
    )
    return Event(
        aggregation.node.where,
        number,
        tuple(kind.l2 for _, kind in aggregation.parts),
        plan.mechanism.noise_multiplier / sqrt(share),
        tuple(plan.stddev_of_sum(name) for name in names),
    )
