"""`train`: the whole run in one call, over `fedavg.federation`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dp
from fedavg.aggregation import Record, SecureAggregation
from fedavg.backends import Backend
from fedavg.client_data import ClientData
from fedavg.entropy import RunEntropy
from fedavg.errors import ParameterError, RoundAborted
from fedavg.federation import Evaluate, Federation, Result, RoundReport
from fedavg.pytree import Tree
from fedavg.server_optimizers import ServerOptimizer
from fedavg.step import Step

__all__ = ["train"]

_ABORTS_IN_A_ROW = 3


def train(
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
    on_round: Callable[[RoundReport], object] | None = None,
    simulated_dropout: float = 0.0,
    entropy: RunEntropy | None = None,
    folder: str | Path | None = None,
    ledger: str | Path | None = None,
    resume: bool = False,
    record: Record | None = None,
    backend: Backend | str | None = None,
    task: str = "fedavg",
) -> Result:
    """Train over clients so that the server only ever receives masked vectors whose sum is already noised.

    Guarantee: with `privacy=` and the default `secure=`, the two statements of `result.statement`, each against its
    own observer. Everything a client sends (update, counts, metrics) is clipped and noised in one masked vector.

    Args:
        step: Your loop, `step(weights, data)`: returns the trained weights as the same nest of arrays, or
            `(weights, metrics)`. A client whose step raises or returns NaN sends zeros with its noise share.
        clients: The population: a `ClientData`, a mapping of id to data, or a sequence of data.
        weights: Any nest of float arrays to start from.
        rounds: How many rounds to run.
        privacy: A `dp.Privacy`: budgets or noise multiplier, delta, clip, mechanism; the unit is one client.
        cohort_size: Clients drawn on average; the invited cohort is padded to a fixed larger size.
        sampler: Another way to draw cohorts, in place of `cohort_size`: `dp.SelfSampling`, `dp.FixedSizeSample`,
            `dp.FixedOrder`. The accountant is the sampler's own; no other pairing is possible.
        secure: How the sum is taken; `SecureAggregation()` by default, `.ideal()` for sweeps without cryptography.
        server_optimizer: For example `fedavg.sgd(momentum=0.9)`; plain averaging by default.
        metrics: Declared metrics, name to largest absolute value; what is not declared stays on the client.
        evaluate: Called with the released weights after each round; what it reads must be nobody's secret.
        on_round: Called with each finished round's `RoundReport`.
        simulated_dropout: Share of the cohort that the simulator silences in each round, at random stages.
        entropy: `RunEntropy.seeded(n)` for a repeatable simulation without guarantee; the OS by default.
        folder: Where checkpoints, ledger and results go; without one, nothing is kept on disk.
        ledger: Another place for the ledger.
        resume: Continue the run in `folder`, if it holds one.
        record: Called with (stage, sender, bytes) for all that the server receives.
        backend: Where the clients are played: in this process by default, "processes" in several of this machine,
            "ray" or the address of a Ray cluster there, or a `fedavg.backends.Backend`; the sums are the same.
        task: What the run is for: a name of step and data, which a resumed run must share.

    Returns:
        Weights, both statements, the rounds. When a budget ended the run, `result.stopped` says so.

    Raises:
        fedavg.ParameterError, dp.ParameterError, secagg.ParameterError: settings that cannot keep the promise;
            nothing was charged.
        fedavg.CheckpointError, dp.LedgerError: folder or ledger unusable.
        RoundAborted: three rounds in a row ended without a sum.
    """
    if on_round is not None and not callable(on_round):
        raise ParameterError(f"on_round is {on_round!r}; give a function of a RoundReport, or leave it out")
    federation = Federation(
        step,
        clients,
        weights=weights,
        rounds=rounds,
        privacy=privacy,
        cohort_size=cohort_size,
        sampler=sampler,
        secure=secure,
        server_optimizer=server_optimizer,
        metrics=metrics,
        evaluate=evaluate,
        simulated_dropout=simulated_dropout,
        entropy=entropy,
        folder=folder,
        ledger=ledger,
        resume=resume,
        record=record,
        backend=backend,
        task=task,
    )
    aborts = 0
    while not federation.finished:
        try:
            report = federation.run_round()
        except dp.BudgetExceeded as error:
            return federation.result(stopped=str(error))
        except RoundAborted:
            aborts += 1
            if aborts == _ABORTS_IN_A_ROW:
                raise
            continue
        aborts = 0
        if on_round is not None:
            on_round(report)
    return federation.result()
