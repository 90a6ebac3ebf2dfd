"""Private histograms: how much of what clients hold falls into each bin.

Each client gives the share of its own numbers in each bin: a vector of L1 norm 1, and so of L2 norm at most 1, clipped
to that on the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import dp
from fedavg.analytics.population import NUMBERS, Clients, numbers
from fedavg.core import (
    Context,
    ExecutionError,
    at_clients,
    federated_computation,
    federated_map,
    federated_sum,
    local_computation,
    within,
)

__all__ = ["Histogram", "histogram", "shares"]


@dataclass(frozen=True)
class Histogram:
    """Clients in each bin.

    Attributes:
        edges: Of the bins, one more than there are.
        counts: Noised, unbiased and so now and then negative: clients in each bin; one that has numbers in several
            counts in each by its share.
        stddev: Deviation of the noise in each count.
        statements: What it cost.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.float64]
    stddev: float
    statements: dp.Statements


def histogram(clients: Clients, *, edges: Sequence[float], context: Context) -> Histogram:
    """Private histogram of what clients hold, every client weighing the same.

    Guarantee: as the context's statements say, which are in the result.

    Args:
        clients: Each one's number or numbers; what is outside the edges falls into the first or last bin.
        edges: Of the bins, ascending, public.
        context: Population, promise, and way of summing; its promise is used up by the call.

    Returns:
        Noised counts with the deviation of their noise.

    Raises:
        ExecutionError: fewer than two edges, or edges that do not ascend.

    >>> from fedavg import RunEntropy, SecureAggregation
    >>> context = Context(population=3000, delta=1e-5, readers_epsilon=1.0, entropy=RunEntropy.seeded(1),
    ...     secure=SecureAggregation.ideal(one_draw=True))
    >>> result = histogram([i % 3 for i in range(3000)], edges=[0, 1, 2, 3], context=context)
    >>> bool((abs(result.counts - 1000) < 4 * result.stddev).all()), result.stddev < 10
    (True, True)
    """
    borders = np.asarray(edges, np.float64)
    if borders.ndim != 1 or len(borders) < 2 or not (np.diff(borders) > 0).all():
        raise ExecutionError(f"the edges are {edges}; give at least two, ascending")
    bins = len(borders) - 1

    @local_computation(NUMBERS, returns=within((np.float64, (bins,)), l2=1.0))
    def falls(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return shares(values, borders)

    @federated_computation(at_clients(NUMBERS))
    def histogram(values):  # type: ignore[no-untyped-def]
        return federated_sum(federated_map(falls, values))

    (event,) = context.privacy(histogram).events
    run = context.run(histogram, numbers(clients))
    return Histogram(borders, run.value, event.stddev[0], run.statements)  # type: ignore[arg-type]


def shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of one client's numbers in each bin; zeros where it has none."""
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(place, minlength=len(edges) - 1) / max(len(values), 1)
