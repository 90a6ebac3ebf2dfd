"""Splitting labelled examples over clients that differ, as real clients do.

Each client's labels follow a Dirichlet draw of its own (Hsu, Qi, Brown 2019, section 3): a concentration of 1 gives
clients that hold a few labels mostly, 100 nearly equal ones, 0.1 nearly one label each.

Invariants: every client holds exactly as many examples as asked for, and no example is held twice. When all examples
are dealt out, the last few clients get what the others left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedavg.errors import ParameterError

__all__ = ["dirichlet"]


def dirichlet(
    labels: NDArray[np.int64], *, clients: int, examples_per_client: int, concentration: float, seed: int
) -> NDArray[np.int64]:
    """Deal examples to clients.

    Args:
        labels: Shape (examples,), whole numbers from 0.
        clients: How many clients.
        examples_per_client: How many examples each holds.
        concentration: Of the symmetric Dirichlet over labels, positive.
        seed: The same seed deals the same way; this randomness protects nobody.

    Returns:
        Positions in `labels`, shape (clients, examples_per_client), all different.

    Raises:
        ParameterError: more examples asked for than there are, or a number out of range.

    Source: Hsu, Qi, Brown 2019, "Measuring the effects of non-identical data distribution", section 3.

    >>> dirichlet(np.array([0, 0, 1, 1]), clients=2, examples_per_client=2, concentration=1.0, seed=0).shape
    (2, 2)
    """
    _check(len(labels), clients, examples_per_client, concentration)
    generator = np.random.default_rng(seed)
    piles = [generator.permutation(np.flatnonzero(labels == label)) for label in range(int(labels.max()) + 1)]
    left = np.array([len(pile) for pile in piles])
    likings = generator.dirichlet(np.full(len(piles), concentration), clients)
    dealt = np.empty((clients, examples_per_client), np.int64)
    for client, liking in enumerate(likings):
        counts = _counts(generator, liking, left, examples_per_client)
        left -= counts
        hand = [pile[rest : rest + count] for pile, rest, count in zip(piles, left, counts, strict=True)]
        dealt[client] = np.concatenate(hand)
    return dealt


def _counts(
    generator: np.random.Generator, liking: NDArray[np.float64], left: NDArray[np.int64], wanted: int
) -> NDArray[np.int64]:
    """How many of each label one client gets: by its liking, and by what is left where that runs out."""
    counts = np.zeros_like(left)
    while missing := wanted - int(counts.sum()):
        weights = np.where(counts < left, liking, 0.0)
        if weights.sum() <= 0:
            weights = (left - counts).astype(np.float64)
        drawn = generator.multinomial(missing, weights / weights.sum())
        counts = np.minimum(counts + drawn, left)
    return counts


def _check(examples: int, clients: int, each: int, concentration: float) -> None:
    if clients < 1 or each < 1:
        raise ParameterError(f"{clients} clients of {each} examples cannot be dealt to; give at least 1 of 1")
    if not 0 < concentration < np.inf:
        raise ParameterError(f"the Dirichlet concentration is {concentration}; give a positive finite number")
    if clients * each > examples:
        raise ParameterError(
            f"{clients:,} clients of {each} examples need {clients * each:,} examples and there are {examples:,};"
            f" take at most {examples // each:,} clients, or at most {examples // clients} examples each"
        )
