"""Federated averaging as a process: two pure functions over a state that can be kept, looked at and resumed.

`initialize() -> state`; `next(state, cohort) -> (state, outcome)` (McMahan et al. 2017, Algorithm 1, with the sum of
the clients' updates replaced by a masked and noised one, and the divisor by a public constant).

What is not here: who is drawn and what it costs (`fedavg.federation`), how values are summed (`fedavg.aggregation`),
what a client's vector holds (`fedavg.layout`).
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dp
from fedavg.aggregation import AggregationPlan, Record, RoundSum
from fedavg.backends import Backend
from fedavg.client_data import ClientData
from fedavg.client_work import ClientLog, ClientWork
from fedavg.entropy import RunEntropy
from fedavg.errors import ParameterError
from fedavg.interrupts import told_apart
from fedavg.layout import Layout
from fedavg.pytree import Tree
from fedavg.server_optimizers import OptimizerState, ServerOptimizer
from fedavg.step import Step

__all__ = ["FederatedAveraging", "RoundOutcome", "ServerState"]


@dataclass(frozen=True)
class ServerState:
    """The server's state between rounds.

    Attributes:
        weights: Flat weights of the released model.
        optimizer: The optimizer's own arrays.
        rounds: Rounds finished.
        clip: The next round's clip where it is adaptive, else None.
        memory: What a trusted server's correlated noise needs of the last rounds: secret, empty otherwise.
    """

    weights: NDArray[Any]
    optimizer: OptimizerState
    rounds: int = 0
    clip: float | None = None
    memory: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class RoundOutcome:
    """What a round released, every number of it noised, and who answered (survivors of the padded cohort)."""

    metrics: Mapping[str, float]
    contributed: float
    failed: float
    survivors: int
    bytes_up_per_client: int
    clip: float | None = None


@dataclass(frozen=True)
class FederatedAveraging:
    """The pure pair. `expected_contributors` (population times sampling rate) is the public divisor."""

    step: Step
    layout: Layout
    initial: NDArray[Any]
    plan: AggregationPlan
    optimizer: ServerOptimizer
    expected_contributors: float
    client_log: ClientLog
    backend: Backend

    def __post_init__(self) -> None:
        # Else every client would fail alike, and a run would be paid for that trains nothing.
        if not callable(self.step):
            raise ParameterError(f"step is {self.step!r}; give a function of weights and one client's data")
        if inspect.iscoroutinefunction(self.step) or inspect.isgeneratorfunction(self.step):
            raise ParameterError(
                f"step is {self.step!r}, an async function or a generator, which returns no weights; give a plain one"
            )
        if not isinstance(self.optimizer, ServerOptimizer):
            raise ParameterError(
                f"server_optimizer is {self.optimizer!r}; give one that is made, such as fedavg.sgd(momentum=0.9)"
            )

    def initialize(self) -> ServerState:
        """The state before the first round."""
        spec = self.layout.spec
        optimizer = self.optimizer.initialize(spec.size, spec.dtype)
        return ServerState(self.initial.copy(), optimizer, clip=self.layout.first_clip)

    def weights(self, state: ServerState) -> Tree:
        """The released model as the nest of arrays the user gave."""
        return self.layout.spec.unflatten(state.weights)

    def model_hash(self, state: ServerState) -> bytes:
        """What a round binds its masks to: clients sent another model cannot be summed with the rest."""
        return hashlib.sha256(self.layout.spec.describe().encode() + b"\0" + state.weights.tobytes()).digest()

    def next(
        self,
        state: ServerState,
        clients: ClientData,
        draw: dp.Draw,
        *,
        number: int,
        dropouts: Mapping[str, Collection[int]],
        entropy: RunEntropy,
        record: Record | None = None,
    ) -> tuple[ServerState, RoundOutcome]:
        """One round: train on those drawn, sum under masks and noise, step the server's optimizer.

        Args:
            state: The state the last round returned.
            clients: The population; positions in `clients.client_ids` are the protocol's ids.
            draw: The padded cohort.
            number: Round number for the masks, never used before.
            dropouts: Stage to the positions silent from it on.
            entropy: Where keys, masks, rounding and noise come from.
            record: Called with what the server receives.

        Raises:
            secagg.TooFewClients: more dropped out than tolerated; nothing was released.
        """
        contributes = dict(zip(draw.invited.tolist(), draw.contributes.tolist(), strict=True))
        work = ClientWork(
            self.step, self.layout, clients, state.weights, state.clip, contributes, self.client_log
        )
        plan = self.plan if state.clip is None else self.plan.rescaled({"update": state.clip})
        with told_apart():
            result = self.backend.sum_round(
                plan,
                work,
                clients=list(contributes),
                number=number,
                model_hash=self.model_hash(state),
                dropouts=dropouts,
                entropy=entropy,
                record=record,
                memory=state.memory,
            )
        average = (self.layout.update(result.sums) / self.expected_contributors).astype(
            self.layout.spec.dtype
        )
        optimizer, weights = self.optimizer.update(state.optimizer, state.weights, average)
        clip = self.layout.next_clip(state.clip, result.sums)
        after = ServerState(weights, optimizer, state.rounds + 1, clip, result.memory)
        return after, self._outcome(result, state.clip)

    def _outcome(self, result: RoundSum, clip: float | None) -> RoundOutcome:
        contributed, failed, *sums = result.sums["scalars"].tolist()
        # A ratio of two noised sums is post-processing; the floor keeps a small, noisy count from exploding it.
        count = max(contributed, self.expected_contributors / 2)
        bounds = self.layout.metrics.items()
        metrics = {
            name: float(np.clip(total * bound / count, -bound, bound))
            for (name, bound), total in zip(bounds, sums, strict=True)
        }
        return RoundOutcome(metrics, contributed, failed, result.survivors, result.bytes_up_per_client, clip)
