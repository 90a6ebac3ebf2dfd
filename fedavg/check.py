"""`check`: run a step on a client or two, before anything is spent, and say what would go wrong in a federated run.

In a run a failing client silently becomes zeros, because naming it would leak; so find what is systematic here, on
data of your own. Nothing is sent and nothing is charged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.adapters.adapted import AdaptedStep
from fedavg.client_data import ClientData
from fedavg.errors import ParameterError, StepError
from fedavg.misfits import buffers_in, too_few, written_into
from fedavg.model import EXAMPLES, FunctionalModel
from fedavg.own_dice import OwnDice, kept
from fedavg.processes.work import local_work
from fedavg.pytree import Tree, TreeSpec
from fedavg.server_optimizers import sgd
from fedavg.step import Step, Trained, run_step

__all__ = ["Finding", "check"]


@dataclass(frozen=True)
class Finding:
    """One thing to mend: `kind` for programs, `message` for people."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def check(
    step: Step | FunctionalModel,
    clients: ClientData | Mapping[Any, Any] | Sequence[Any],
    *,
    weights: Tree | None = None,
    metrics: Mapping[str, float] | None = None,
    cohort_size: int | None = None,
) -> list[Finding]:
    """Try a step as the library will run it, on the first two clients, twice and in swapped order.

    Args:
        step: Your loop, `step(weights, data)`; or a functional model, which is then trained by small steps of SGD.
        clients: One client or more; with two, state that leaks from one to the next is found.
        weights: The nest of arrays to start from; those that an adapted step brings when None.
        metrics: Declared metrics, name to bound.
        cohort_size: How many clients a round is to have, if `clients` are all there are.

    Returns:
        Findings, empty when none: `failure` (the step raised, or returned another form, NaN, or no declared metric),
        `mutation` (it wrote into the weights it was given; harmless here, since every client gets a copy),
        `impurity` (the same client's result depends on who came before it, or on chance), `metric-bound`, `buffers`
        (weights that look like batch-norm statistics), `cohort` (fewer clients than a round is to have).

        What the first call alone leaves behind and later calls only read, such as a cache that is filled once or the
        largest value so far, is the same in every call that is compared here, and is not found.

    Raises:
        TreeError: the weights themselves cannot be averaged.
        ParameterError: no weights.

    >>> def step(weights, data):
    ...     return {"w": weights["w"] + data}
    >>> check(step, [np.ones(2), np.zeros(2)], weights={"w": np.zeros(2)})
    []
    >>> [finding.kind for finding in check(lambda weights, data: None, [1], weights={"w": np.zeros(2)})]
    ['failure']
    """
    if isinstance(step, FunctionalModel):
        weights, metrics, step = step.weights, step.bounds, _trained_by(step)
    start = getattr(step, "weights", None) if weights is None else weights
    if start is None:
        raise ParameterError("a plain step brings no weights; give weights= to start from")
    data, spec = ClientData.of(clients), TreeSpec.of(start)
    flat = spec.flatten(start)
    sentences = [("cohort", too_few(len(data), cohort_size or 1))]
    if not isinstance(step, AdaptedStep):  # A wrapped model's buffers were chosen when it was wrapped.
        sentences.append(("buffers", buffers_in(spec)))
    findings = [Finding(kind, sentence) for kind, sentence in sentences if sentence]
    try:
        return findings + _of_runs(step, spec, flat, data, dict(metrics or {}))
    except StepError as error:
        return [*findings, Finding("failure", str(error))]


def _of_runs(
    step: Step, spec: TreeSpec, flat: NDArray[Any], data: ClientData, bounds: Mapping[str, float]
) -> list[Finding]:
    """What shows when the first two clients run, and the first again, after a call that only gets things going.

    At a first call libraries build and compile, and Keras draws while it does: that is nobody's data.
    """
    first, last = data.client_ids[0], data.client_ids[min(1, len(data) - 1)]
    runs: list[Trained] = []
    dice = OwnDice(bytes(32))
    with kept():
        for position, client_id in ((0, first), (0, first), (1, last), (0, first)):
            dice.throw(position)  # As in a run: each client has global generators of its own.
            try:
                runs.append(run_step(step, spec, flat, data.for_client(client_id), metrics=bounds))
            except StepError as error:
                raise StepError(f"client {client_id}: {error}") from error
        findings = _mutation(step, spec, flat, data.for_client(first))
    if not np.array_equal(runs[1].delta, runs[3].delta) or runs[1].metrics != runs[3].metrics:
        findings.append(
            Finding(
                "impurity",
                f"client {first} gave another update, or other metrics, after client {last} had run: optimizer,"
                " schedule or normalisation state, or a random generator that the step made once, is kept between"
                " clients; make it anew in each call",
            )
        )
    reported = runs[-1].metrics
    findings += [
        Finding("metric-bound", f"metric {name} is {reported[name]:g}, cut to its bound {bound:g}")
        for name, bound in bounds.items()
        if abs(reported[name]) > bound
    ]
    return findings


def _trained_by(model: FunctionalModel) -> Step:
    """A functional model as a step that reports averages."""
    step = local_work(model, sgd(learning_rate=1e-3)).step(0)

    def averaging(weights: Tree, data: Any) -> tuple[Tree, dict[str, float]]:
        trained, sums = step(weights, data)
        return trained, {name: sums[name] / max(sums[EXAMPLES], 1) for name in model.bounds}

    return averaging


def _mutation(step: Step, spec: TreeSpec, flat: NDArray[Any], data: Any) -> list[Finding]:
    """Whether the step writes into the very arrays it was given."""
    given = spec.unflatten(flat)
    step(given, data)
    sentence = written_into(spec, given, flat)
    return [] if sentence is None else [Finding("mutation", sentence)]
