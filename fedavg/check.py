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

from fedavg.client_data import ClientData
from fedavg.errors import StepError
from fedavg.pytree import Tree, TreeSpec
from fedavg.step import Step, run_step

__all__ = ["Finding", "check"]


@dataclass(frozen=True)
class Finding:
    """One thing to mend: `kind` for programs, `message` for people."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def check(
    step: Step,
    clients: ClientData | Mapping[Any, Any] | Sequence[Any],
    *,
    weights: Tree,
    metrics: Mapping[str, float] | None = None,
) -> list[Finding]:
    """Try a step as the library will run it, on the first two clients, twice and in swapped order.

    Args:
        step: Your loop, `step(weights, data)`.
        clients: One client or more; with two, state that leaks from one to the next is found.
        weights: The nest of arrays to start from.
        metrics: Declared metrics, name to bound.

    Returns:
        Findings, empty when none: `failure` (the step raised, or returned another form, NaN, or no declared metric),
        `mutation` (it wrote into the weights it was given; harmless here, since every client gets a copy),
        `impurity` (the same client's result depends on who came before it, or on chance), `metric-bound`.

    Raises:
        TreeError: the weights themselves cannot be averaged.

    >>> def step(weights, data):
    ...     return {"w": weights["w"] + data}
    >>> check(step, [np.ones(2), np.zeros(2)], weights={"w": np.zeros(2)})
    []
    >>> [finding.kind for finding in check(lambda weights, data: None, [1], weights={"w": np.zeros(2)})]
    ['failure']
    """
    data = ClientData.of(clients)
    spec = TreeSpec.of(weights)
    flat = spec.flatten(weights)
    bounds = dict(metrics or {})
    first, last = data.client_ids[0], data.client_ids[min(1, len(data) - 1)]
    deltas: list[NDArray[Any]] = []
    for client_id in (first, last, first):
        try:
            trained = run_step(step, spec, flat, data.for_client(client_id), metrics=bounds)
        except StepError as error:
            return [Finding("failure", f"client {client_id}: {error}")]
        deltas.append(trained.delta)
    findings = _mutation(step, spec, flat, data.for_client(first))
    if not np.array_equal(deltas[0], deltas[2]):
        findings.append(
            Finding(
                "impurity",
                f"client {first} gave another update after client {last} had run: optimizer, schedule or"
                " normalisation state is kept between clients, or the step draws from a shared random"
                " generator; make both anew in each call",
            )
        )
    for name, bound in bounds.items():
        if abs(trained.metrics[name]) > bound:
            findings.append(
                Finding(
                    "metric-bound", f"metric {name} is {trained.metrics[name]:g}, cut to its bound {bound:g}"
                )
            )
    return findings


def _mutation(step: Step, spec: TreeSpec, flat: NDArray[Any], data: Any) -> list[Finding]:
    """Whether the step writes into the very arrays it was given."""
    given = spec.unflatten(flat)
    step(given, data)
    if np.array_equal(spec.flatten(given), flat):
        return []
    return [
        Finding(
            "mutation",
            "the step writes into the weights it was given; harmless here, each is a copy",
        )
    ]
