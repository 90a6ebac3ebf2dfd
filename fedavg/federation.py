"""A federated run: draw, pay, train, sum, keep; and again, until the rounds or the budget end.

Order inside a round, which the guarantees rest on:

1. the ledger reserves the round's cost, or refuses it (`dp.BudgetExceeded`), before anybody is drawn or invited;
2. the library draws the cohort, with the sampler its accountant assumes, and keeps who was drawn how often;
3. clients train, clip, round, add their noise share and mask; the server sums;
4. the ledger settles; the checkpoint is written last.

What becomes of a round without a sum is `fedavg.paid_round`'s.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, isfinite
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

import dp
from fedavg import backends
from fedavg.adapters.adapted import AdaptedStep
from fedavg.aggregation import DROPOUT_STAGES, AggregationPlan, Record, SecureAggregation
from fedavg.backends import Backend
from fedavg.checkpoint import RunFolder
from fedavg.client_data import ClientData
from fedavg.entropy import RunEntropy
from fedavg.errors import FedAvgError, ParameterError, RoundAborted
from fedavg.misfits import buffers_in
from fedavg.paid_round import paid_round
from fedavg.planning import RunPlan
from fedavg.process import FederatedAveraging, RoundOutcome, ServerState
from fedavg.pytree import Tree, TreeSpec
from fedavg.server_optimizers import ServerOptimizer, sgd
from fedavg.step import Step

__all__ = ["Evaluate", "Federation", "Result", "RoundReport"]

_client_logger = logging.getLogger("fedavg.client")
_TURN = "turn"
"""Which charged round of its run a state's memory is of."""

Evaluate = Callable[[Tree], Mapping[str, float]]


@dataclass(frozen=True)
class RoundReport:
    """One finished round, everything in it public: noised sums, the padded cohort, and what has been spent.

    Attributes:
        round: Number of the round, from 1.
        rounds: How many are planned.
        cohort: Clients invited, padding included.
        survivors: Clients whose masked vector is in the sum.
        bytes_up_per_client: Most bytes that one client sent.
        epsilon: Spent so far, against readers and against the server, at the run's delta.
        metrics: Noised means of what clients reported, by name.
        contributed: Noised number of clients whose data is in the sum.
        failed: Noised number of clients whose step failed.
        evaluation: What `evaluate` returned for the new model.
        l2_clip_norm: The round's clip, where it is adaptive.
    """

    round: int
    rounds: int
    cohort: int
    survivors: int
    bytes_up_per_client: int
    epsilon: dp.Epsilons
    metrics: Mapping[str, float]
    contributed: float
    failed: float
    evaluation: Mapping[str, float]
    l2_clip_norm: float | None = None
    """The round's clip, where it is adaptive."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; an infinite epsilon is null."""
        epsilon = {name: value if isfinite(value) else None for name, value in asdict(self.epsilon).items()}
        return {**asdict(self), "epsilon": epsilon}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RoundReport:
        """The inverse of `as_dict`; `fields` as that made them."""
        epsilon = {name: inf if value is None else value for name, value in fields["epsilon"].items()}
        return cls(**{**fields, "epsilon": dp.Epsilons(**epsilon)})


@dataclass(frozen=True)
class Result:
    """What a run leaves: the model, what it cost and against whom, and round by round how it went.

    Attributes:
        weights: The last model, a nest of arrays in the form that was given.
        statement: What the run cost against each observer, with its assumptions.
        rounds: A report for each finished round.
        plan: How rounds were summed: sizes, noise, masks.
        sampler: How cohorts were drawn.
        privacy: The promise, its noise multiplier calibrated.
        ledger: The ledger's file; None where it was in memory only.
        stopped: None when all rounds ran, else why not, in words.
    """

    weights: Tree
    statement: dp.Statements
    rounds: list[RoundReport]
    plan: AggregationPlan
    sampler: dp.Sampler
    privacy: dp.Privacy
    ledger: Path | None
    stopped: str | None
    """None when all rounds ran, else why not, in words."""


class Federation:
    """A run whose outer loop is yours: iterate over it, or call `run_round` until `finished`.

    Arguments are `fedavg.train`'s.

    Raises:
        ParameterError, dp.ParameterError, secagg.ParameterError: settings that cannot keep the promise.
        CheckpointError: the folder holds another run, or one that cannot be resumed.

    >>> import numpy as np
    >>> def step(weights, data):
    ...     return {"mean": weights["mean"] + 0.5 * (data - weights["mean"])}
    >>> federation = Federation(
    ...     step, [np.float64(i % 2) for i in range(40)], weights={"mean": np.zeros(())}, rounds=2, cohort_size=30,
    ...     privacy=dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0), secure=SecureAggregation.ideal(),
    ... )
    >>> [report.round for report in federation]
    [1, 2]
    """

    def __init__(
        self,
        step: Step,
        clients: ClientData | Mapping[Any, Any] | Sequence[Any],
        *,
        weights: Tree,
        rounds: int,
        privacy: dp.Privacy,
        cohort_size: int | None = None,
        sampler: dp.Sampler | None = None,
        secure: SecureAggregation | None = None,
        server_optimizer: ServerOptimizer | None = None,
        metrics: Mapping[str, float] | None = None,
        evaluate: Evaluate | None = None,
        simulated_dropout: float = 0.0,
        entropy: RunEntropy | None = None,
        folder: str | Path | None = None,
        ledger: str | Path | None = None,
        resume: bool = False,
        record: Record | None = None,
        backend: Backend | str | None = None,
        task: str = "fedavg",
    ) -> None:
        self.clients = ClientData.of(clients)
        self.rounds, self.privacy = rounds, privacy
        self.secure = secure or SecureAggregation()
        self._entropy = entropy or RunEntropy()
        if not isinstance(self._entropy, RunEntropy):
            raise ParameterError(f"entropy is {entropy!r}; give fedavg.RunEntropy.seeded(n), or leave it out")
        if evaluate is not None and not callable(evaluate):
            raise ParameterError(f"evaluate is {evaluate!r}; give a function of the released weights")
        self._evaluate, self._record = evaluate, record
        spec = TreeSpec.of(weights)
        initial = spec.flatten(weights)
        if not isinstance(step, AdaptedStep) and (misfit := buffers_in(spec)) is not None:
            raise ParameterError(misfit)
        if (path := spec.non_finite(initial)) is not None:
            raise ParameterError(
                f"{path} holds NaN or infinity, which nobody can train from; give finite weights"
            )
        planned = RunPlan.choose(
            spec,
            population=len(self.clients),
            cohort_size=cohort_size,
            sampler=sampler,
            rounds=rounds,
            privacy=privacy,
            secure=self.secure,
            metrics=metrics or {},
            task=task,
            rotation_key=hashlib.sha256(b"veilsum rotation 1" + initial.tobytes()).digest(),
        )
        self.sampler, self.plan, self._accountant = planned.sampler, planned.aggregation, planned.accountant
        self._lost = self._simulated(simulated_dropout)
        self._process = FederatedAveraging(
            step=step,
            layout=planned.layout,
            initial=initial,
            plan=self.plan,
            optimizer=server_optimizer or sgd(),
            expected_contributors=self.sampler.expected,
            client_log=self._log_failure,
            backend=backends.of(backend),
        )
        self._process.backend.prepare((step, planned.layout), self.clients)
        self._open(folder, ledger, resume)

    def _open(self, folder: str | Path | None, ledger: str | Path | None, resume: bool) -> None:
        """Open the run's folder and ledger, and take up the last finished round if there is one."""
        fingerprint = self._fingerprint()
        self._folder = None if folder is None else RunFolder(folder, fingerprint=fingerprint, resume=resume)
        self.state = self._process.initialize()
        self.reports: list[RoundReport] = []
        self._attach(ledger, fingerprint)
        if self._folder is not None and (kept := self._folder.load()) is not None:
            self.state, lines = kept
            if self.state.rounds > self.ledger.charged:
                raise dp.LedgerError(
                    f"the checkpoint holds {self.state.rounds} rounds and the ledger {self.ledger.path} has charged"
                    f" {self.ledger.charged}; resume with the ledger that this run was charged to"
                )
            self.reports = [RoundReport.from_dict(line) for line in lines]
            if self.reports:
                self._evaluate_last()

    def _attach(self, ledger: str | Path | None, fingerprint: Mapping[str, Any]) -> None:
        """Open ledger and counts: those this run was begun with, holding all that it has spent, or none."""
        own = self._folder.ledger if self._folder else None
        path = own if ledger is None else Path(ledger).absolute()  # A step may change the working directory.
        pinned = self._folder.pinned() if self._folder else None
        if pinned is not None and (path is None or str(path) != pinned["path"] or not path.exists()):
            raise dp.LedgerError(
                f"this run was charged to the ledger {pinned['path']}; resume it with that ledger, where it was (a copy"
                " would not count what the other spends)"
            )
        self.ledger = dp.Ledger.attach(path, accountant=self._accountant, run=fingerprint)
        if pinned is not None:
            self.ledger.require(pinned["sequence"], pinned["hash"])
        self._participations = dp.ParticipationCounts(self.ledger)
        self._participations.count(self.clients.client_ids[0])  # Ids that cannot be counted are refused here.

    @property
    def finished(self) -> bool:
        """Whether all planned rounds have run."""
        return self.state.rounds >= self.rounds

    def __iter__(self) -> Iterator[RoundReport]:
        """Run what is left, round by round; raises what `run_round` raises."""
        while not self.finished:
            yield self.run_round()

    def run_round(self) -> RoundReport:
        """Run one round and keep it.

        Returns:
            What the round released, and what has been spent so far.

        Raises:
            dp.BudgetExceeded: the round would pass a budget; nothing was drawn or charged.
            RoundAborted: too many dropped out; says whether the round was charged. The run can go on.
            FedAvgError: the new model would hold NaN or infinity; the state is the last round's still.
        """
        # A schedule that the optimizer cannot go on with is refused before anything is charged.
        kept = self.state
        self._process.optimizer.update(kept.optimizer, kept.weights, np.zeros_like(kept.weights))
        try:
            with paid_round(self.ledger, record=self._record, changed=self._pin) as paid:
                turn = self.ledger.turn(paid.number)
                draw = self._draw(paid.number, turn)
                state, outcome = self._process.next(
                    self._after(turn - 1),
                    self.clients,
                    draw,
                    number=paid.number,
                    dropouts=self._dropouts(paid.number, draw),
                    entropy=self._entropy,
                    record=paid.record,
                )
                if state.memory:
                    state = replace(state, memory={**state.memory, _TURN: np.array(turn)})
                paid.settle(survivors=outcome.survivors, model_hash=self._process.model_hash(state))
        except RoundAborted:
            if self._folder is not None:
                self._folder.write_json("statement.json", self.statement().as_dict())
            raise
        if (path := self._process.layout.spec.non_finite(state.weights)) is not None:
            raise FedAvgError(
                f"round {state.rounds} would leave NaN or infinity in {path}; the round stays charged and the last"
                " finished one is kept: go on from its model with a lower server learning rate"
            )
        return self._keep(state, outcome)

    def _pin(self) -> None:
        if self._folder is not None:
            self._folder.pin(self.ledger)

    def result(self, stopped: str | None = None) -> Result:
        """What the run has come to so far.

        Args:
            stopped: Why the run ended early, in words; None where it did not.
        """
        return Result(
            weights=self._process.weights(self.state),
            statement=self.statement(),
            rounds=list(self.reports),
            plan=self.plan,
            sampler=self.sampler,
            privacy=self.privacy,
            ledger=self.ledger.path,
            stopped=stopped,
        )

    def statement(self) -> dp.Statements:
        """Both statements, for everything charged so far."""
        return dp.statements(
            self.ledger.spent(),
            **self.plan.terms_of_statements,
            sampler=self.sampler,
            privacy=self.privacy,
            charged=self.ledger.charged,
            aborted=self.ledger.aborted,
            sharing=self.ledger.sharing,
            seeded=self._entropy.is_seeded,
        )

    def _after(self, turn: int) -> ServerState:
        """The state to go on from after a charged round.

        Correlated noise goes on only if that round is the one the state came from. If it was lost, or another process
        ran it, a client's next turn would be fewer releases away than bands; then the noise begins anew.
        """
        memory = self.state.memory
        return replace(self.state, memory={}) if memory and memory.get(_TURN) != turn else self.state

    def _draw(self, number: int, turn: int) -> dp.Draw:
        """Draw the cohort and count it, durably, before anybody is invited."""
        keystream = self._entropy.keystream("cohort", number)
        draw = self.sampler.draw(keystream, number=turn)
        drawn = [self.clients.client_ids[position] for position in draw.invited[draw.contributes]]
        return self._participations.claim(draw, drawn, cap=self.privacy.max_participations)

    def _keep(self, state: ServerState, outcome: RoundOutcome) -> RoundReport:
        self.state = state
        report = RoundReport(
            round=state.rounds,
            rounds=self.rounds,
            cohort=self.sampler.cohort_size,
            survivors=outcome.survivors,
            bytes_up_per_client=outcome.bytes_up_per_client,
            epsilon=self.ledger.spent(),
            metrics=outcome.metrics,
            contributed=outcome.contributed,
            failed=outcome.failed,
            evaluation={},
            l2_clip_norm=outcome.clip,
        )
        self.reports.append(report)
        self._save()
        report = self._evaluate_last()
        if outcome.failed - 4 * self.plan.stddev_of_sum("scalars") > self.sampler.expected / 2:
            warnings.warn(
                f"round {report.round}: about {outcome.failed:.0f} of {self.sampler.expected:.0f} clients failed and"
                " sent zeros; the clients' own logs name the cause (fedavg.check finds most of them beforehand)",
                stacklevel=3,
            )
        return report

    def _evaluate_last(self) -> RoundReport:
        """Evaluate the model of the last report; also after a crash between keeping and evaluating it."""
        report = self.reports[-1]
        if self._evaluate is not None and not report.evaluation:
            report = replace(report, evaluation=_numbers(self._evaluate(self._process.weights(self.state))))
            self.reports[-1] = report
            self._save()
        return report

    def _save(self) -> None:
        """Keep the last finished round; before it is evaluated, so that a failing evaluation loses nothing."""
        if self._folder is None:
            return
        spec = self._process.layout.spec
        model = {leaf.path or "weights": array for leaf, array in spec.arrays(self.state.weights)}
        self._folder.write_json("statement.json", self.statement().as_dict())
        self._folder.save(self.state, [kept.as_dict() for kept in self.reports], model)

    def _simulated(self, dropout: float) -> int:
        """How many of the cohort the simulator silences in each round."""
        cohort = self.sampler.cohort_size
        if not isinstance(dropout, Real) or not 0 <= dropout < 1:
            raise ParameterError(
                f"simulated_dropout is {dropout!r}; give a share of the cohort from 0 up to 1"
            )
        lost = int(dropout * cohort + 1e-9)
        if cohort - lost < self.plan.minimum_survivors:
            raise ParameterError(
                f"simulated_dropout={dropout} leaves {cohort - lost} of {cohort} clients, fewer than the"
                f" {self.plan.minimum_survivors} that dropout={self.secure.dropout} promises;"
                " raise dropout= or simulate less"
            )
        return lost

    def _dropouts(self, number: int, draw: dp.Draw) -> dict[str, list[int]]:
        """Who the simulator silences, and from which stage on; independent of who was drawn."""
        dice = self._entropy.dice("dropout", number)
        silent = dice.choice(draw.invited, size=self._lost, replace=False).tolist()
        stages = dice.integers(len(DROPOUT_STAGES), size=self._lost).tolist()
        return {
            stage: [client for client, at in zip(silent, stages, strict=True) if at == index]
            for index, stage in enumerate(DROPOUT_STAGES)
        }

    def _fingerprint(self) -> dict[str, Any]:
        clip = self.privacy.l2_clip_norm
        return {
            "task": self.plan.task,
            "plan": self.plan.canonical().hex(),
            "metrics": dict(self._process.layout.metrics),
            **self._accountant.describe(),
            "weights": self._process.model_hash(self._process.initialize()).hex(),
            "l2_clip_norm": clip if isinstance(clip, float | int) else dict(clip),
            "clip_quantile": self.privacy.clip_quantile,
            "dropped_per_round": self._lost,
            "optimizer": self._process.optimizer.name,
            "secure": repr(self.secure),
            "masked": self.secure.masked,
            "seeded": self._entropy.is_seeded,
            "clients": self._pinned_clients(),
        }

    def _pinned_clients(self) -> str | None:
        """Hash of the ids, where turns follow from their places or a cap counts by them: neither moves to others."""
        in_order = isinstance(self.sampler, dp.FixedOrder)
        if not in_order and self.privacy.max_participations is None:
            return None
        names = [repr(client_id) for client_id in self.clients.client_ids]
        if not in_order:
            names.sort()
        return hashlib.sha256("\0".join(names).encode()).hexdigest()

    def _log_failure(self, client_id: Any, cause: str) -> None:
        try:
            if self._folder is not None:
                self._folder.log_failure(client_id, self.state.rounds + 1, cause)
                return
        except OSError as error:
            # A round must not end because one client failed: neither by its step nor by its log.
            cause = f"{cause} (and its log cannot be written: {error.strerror or error})"
        # Below what is shown unless asked for: it names a client that was drawn.
        _client_logger.info("client %s: %s", client_id, cause)


def _numbers(evaluation: Any) -> dict[str, float]:
    """What `evaluate` returned, as plain numbers that can be kept."""
    try:
        return {str(name): float(value) for name, value in evaluation.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise FedAvgError(
            f"evaluate returned {evaluation!r}; return a mapping of names to numbers (the round is finished and kept)"
        ) from error
