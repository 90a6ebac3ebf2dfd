"""One client's work: run the user's loop on its own copy of the weights, and make its result safe to send.

A step is any function `step(weights, data)` that returns the trained weights as the same nest of arrays, or
`(weights, metrics)` with `metrics` a mapping of declared names to numbers.

Rules (they hold whatever the step does):

* every client starts from its own copy, so a step that writes into its input harms nobody else;
* what comes back is checked: same paths, shapes and dtypes, all finite, every declared metric present;
* a metric that was not declared stays on the client: only what has a bound can be noised, and only that travels;
* a client never fails the round. Whatever goes wrong becomes a `StepError` that stays on the client, which then
  contributes zeros with its noise share: naming or dropping it would be an un-noised function of its data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.errors import StepError, TreeError
from fedavg.interrupts import is_own
from fedavg.pytree import Tree, TreeSpec

__all__ = ["Step", "Trained", "run_step"]

Step = Callable[[Tree, Any], Any]


@dataclass(frozen=True)
class Trained:
    """What one client's loop produced, before clipping: stays on the client."""

    delta: NDArray[Any]
    metrics: Mapping[str, float]


def run_step(
    step: Step,
    spec: TreeSpec,
    weights: NDArray[Any],
    data: Any,
    *,
    metrics: Mapping[str, float],
    lent: bool = False,
) -> Trained:
    """Run one client's step and return its update.

    Args:
        step: The user's loop.
        spec: Form of the weights.
        weights: Flat weights of the released model, shape (spec.size,).
        data: This client's data.
        metrics: Declared metrics, name to bound; the step must report each of these, and may report more.
        lent: Whether the step, an adapter's, copies the weights itself: it is given the released ones, read-only.

    Returns:
        The change of the weights, shape (spec.size,), finite, and one finite number a declared metric.

    Raises:
        StepError: the step raised, or returned something unusable; says what and why.
        KeyboardInterrupt: somebody pressed Ctrl-C; one that the step raises itself is its own failure, where
            `fedavg.interrupts` can tell. So it is with what the handler of another signal raises.
    """
    try:
        with np.errstate(all="ignore"):
            given = spec.lent(weights) if lent else spec.unflatten(weights)
            return _trained(step(given, data), spec, weights, metrics)
    except StepError:
        raise
    except BaseException as error:
        if not is_own(error):
            raise
        # The user's loop and the objects it returns may raise anything; only this client is concerned.
        raise StepError(f"the step raised {type(error).__name__}: {_words(error)}") from error


def _trained(returned: Any, spec: TreeSpec, weights: NDArray[Any], metrics: Mapping[str, float]) -> Trained:
    tree, reported = _split(returned, spec)
    try:
        delta = spec.difference(tree, weights)
    except TreeError as error:
        raise StepError(f"the step returned an unusable nest: {error}") from error
    if not np.isfinite(delta).all():
        raise StepError("the update holds NaN or infinity; lower the learning rate or check the data")
    if not metrics:
        return Trained(delta, {})
    if missing := ", ".join(sorted(set(metrics) - set(reported))):
        raise StepError(
            f"the step did not report the declared metrics {missing}; return (weights, {{name: number}})"
        )
    return Trained(delta, {name: _number(name, reported[name]) for name in metrics})


def _words(error: BaseException) -> str:
    """The error's own words, where it can say them."""
    try:
        return str(error)
    except BaseException as silent:
        if not is_own(silent):
            raise
        # Even an error of the user can fail to be shown, in any way.
        return f"no words ({type(silent).__name__})"


def _split(returned: Any, spec: TreeSpec) -> tuple[Tree, Mapping[str, Any]]:
    """Tell `weights` from `(weights, metrics)`; weights that are a pair themselves are recognised first."""
    pair = isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping)
    return (returned[0], returned[1]) if pair and not _same(spec, returned) else (returned, {})


def _same(spec: TreeSpec, tree: Tree) -> bool:
    try:
        return spec.matches(tree)
    except TreeError:
        return False


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise StepError(f"metric {name} is a {type(value).__name__}, not a number") from error
    if not np.isfinite(number):
        raise StepError(f"metric {name} is {number}; report finite numbers")
    return number
