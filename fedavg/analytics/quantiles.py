"""Private quantiles by a hierarchical histogram.

Each client gives the share of its numbers in each of 2, 4, ..., 2^depth equal bins: one block for each level, each of
L2 norm at most 1, all in one vector and one event. A range of leaves is then a few nodes and not many leaves, so the
noise of the distribution function grows with the depth and not with the number of bins. Among all ways to combine the
levels, least squares has the least error, and its deviation is known exactly, because it is linear.

Source: Hay et al. 2010 (0904.0942), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

import dp
from fedavg.analytics.histogram import shares
from fedavg.analytics.population import NUMBERS, Clients, check_range, numbers
from fedavg.core import (
    Context,
    ExecutionError,
    at_clients,
    federated_computation,
    federated_map,
    federated_sum,
    local_computation,
    to_type,
    within,
)

__all__ = ["Quantiles", "quantiles"]

_MOST_DEPTH = 10


@dataclass(frozen=True)
class Quantiles:
    """Quantiles, and the distribution function they were read off.

    Attributes:
        probabilities: As asked for.
        values: The quantiles, ascending.
        low: Where the distribution function reaches the probability less two deviations of its noise.
        high: Where it reaches the probability plus two deviations.
        edges: Of the finest bins.
        cumulative: Noised share of the clients below each edge, made monotone.
        cumulative_stddev: Deviation of the noise in each, before it was made monotone.
        statements: What it cost.
    """

    probabilities: NDArray[np.float64]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    edges: NDArray[np.float64]
    cumulative: NDArray[np.float64]
    cumulative_stddev: NDArray[np.float64]
    statements: dp.Statements


def quantiles(
    clients: Clients,
    probabilities: Sequence[float],
    *,
    lower: float,
    upper: float,
    context: Context,
    depth: int = 7,
) -> Quantiles:
    """Private quantiles of what clients hold, every client weighing the same.

    Guarantee: as the context's statements say, which are in the result.

    Args:
        clients: Each one's number or numbers; what is outside the range counts as its nearer end.
        probabilities: Which quantiles, between 0 and 1.
        lower: Least value, public.
        upper: Largest value, public.
        context: Population, promise, and way of summing; its promise is used up by the call.
        depth: The finest bins are (upper - lower) / 2^depth wide; at most 10.

    Returns:
        The quantiles, with an interval for each.

    Raises:
        ExecutionError: a probability outside (0, 1), or a depth out of its range.

    >>> from fedavg import RunEntropy, SecureAggregation
    >>> context = Context(population=3000, delta=1e-5, readers_epsilon=1.0, entropy=RunEntropy.seeded(1),
    ...     secure=SecureAggregation.ideal(one_draw=True))
    >>> result = quantiles([i / 3000 for i in range(3000)], [0.5, 0.9], lower=0.0, upper=1.0, context=context)
    >>> bool((abs(result.values - [0.5, 0.9]) < 0.02).all())
    True
    """
    check_range(lower, upper)
    wanted = np.asarray(probabilities, np.float64).reshape(-1)
    if not ((wanted > 0) & (wanted < 1)).all():
        raise ExecutionError(f"the probabilities are {probabilities}; give numbers between 0 and 1")
    if not 1 <= depth <= _MOST_DEPTH or depth % 1:
        raise ExecutionError(f"depth is {depth}; give a whole number from 1 to {_MOST_DEPTH}")
    depth = int(depth)
    edges = np.linspace(lower, upper, 2**depth + 1)
    levels = to_type([within((np.float64, (2**level,)), l2=1.0) for level in range(1, depth + 1)])

    @local_computation(NUMBERS, returns=levels)
    def tree(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        leaves = shares(values, edges)
        return tuple(leaves.reshape(2**level, -1).sum(axis=1) for level in range(1, depth + 1))

    @federated_computation(at_clients(NUMBERS))
    def quantiles(values):  # type: ignore[no-untyped-def]
        return federated_sum(federated_map(tree, values))

    (event,) = context.privacy(quantiles).events
    run = context.run(quantiles, numbers(clients))
    deviation = max(event.stddev)
    solve, covariance = _least_squares(depth)
    leaves = solve @ np.concatenate(run.value)
    total = max(leaves.sum(), 4 * deviation)
    raw = np.concatenate([[0.0], np.cumsum(leaves)]) / total
    # The distribution function is linear in the leaves up to its own total: contrasts (1[leaf < edge] - F) / total.
    contrasts = (np.tri(2**depth + 1, 2**depth, -1) - raw[:, None]) / total
    spread = deviation * np.sqrt(np.einsum("ij,jk,ik->i", contrasts, covariance, contrasts))
    cumulative = np.clip(_monotone(raw), 0.0, 1.0)

    def at(levels: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.interp(levels, cumulative, edges)

    around = np.interp(at(wanted), edges, spread)
    return Quantiles(
        wanted,
        at(wanted),
        at(wanted - 2 * around),
        at(wanted + 2 * around),
        edges,
        cumulative,
        spread,
        run.statements,  # type: ignore[arg-type]
    )


@lru_cache(maxsize=4)
def _least_squares(depth: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From all nodes to the leaves, and the leaves' covariance for nodes of variance 1."""
    leaves = np.eye(2**depth)
    nodes = np.concatenate(
        [leaves.reshape(2**level, -1, 2**depth).sum(axis=1) for level in range(1, depth + 1)]
    )
    covariance = np.linalg.inv(nodes.T @ nodes)
    return covariance @ nodes.T, covariance


def _monotone(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest ascending sequence, by pooling neighbours that descend."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, size = float(value), 1
        while pools and pools[-1][0] > mean:
            before, length = pools.pop()
            mean, size = (before * length + mean * size) / (length + size), length + size
        pools.append((mean, size))
    return np.repeat([mean for mean, _ in pools], [size for _, size in pools])
