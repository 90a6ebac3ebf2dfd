"""What must not be in a step or its weights, each with its sentence: said by `check` before a run, and at run time.

Not here: what makes a client's result unusable (`fedavg.step`), buffers of wrapped models (`fedavg.adapters`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.pytree import Tree, TreeSpec

__all__ = ["buffers_in", "too_few", "written_into"]

_BUFFERS = ("running_mean", "running_var", "moving_mean", "moving_var", "batch_stats", "num_batches_tracked")


def written_into(spec: TreeSpec, given: Tree, flat: NDArray[Any]) -> str | None:
    """Say that a step wrote into the weights it was given, if it did.

    Args:
        spec: Form of the weights.
        given: The nest that the step was given, after it ran.
        flat: The same before, as one vector.
    """
    if np.array_equal(spec.flatten(given), flat):
        return None
    return (
        "the step writes into the weights it is given; here each client has its own copy and nobody is harmed, but copy"
        " them first, or the same step harms others wherever arrays are shared"
    )


def buffers_in(spec: TreeSpec) -> str | None:
    """Say which weights look like batch-norm statistics, if any do."""
    held = [leaf.path for leaf in spec.leaves if any(name in leaf.path for name in _BUFFERS)]
    if not held:
        return None
    return (
        f"{', '.join(held[:3])}{', ...' * (len(held) > 3)} look like batch-norm statistics, which training changes"
        " without a gradient; use group or layer normalisation, or choose with from_torch or from_keras:"
        " buffers='keep' or 'average'"
    )


def too_few(clients: int, cohort: int) -> str | None:
    """Say that there are fewer clients than a round is to have, if so."""
    if clients >= cohort:
        return None
    return f"cohort_size is {cohort} for {clients} clients; give a number from 1 to the population"
