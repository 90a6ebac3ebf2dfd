"""Private mean and variance of numbers in a range.

Each client gives (u, u^2, 1), with u its own average of its numbers mapped to [-1, 1] (and u^2 the average of their
squares): one vector of norm at most sqrt(3), clipped to that on the client. The rest is post-processing of the three
noised sums. A client without numbers gives zeros, and so is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

import dp
from fedavg.analytics.population import NUMBERS, Clients, check_range, numbers
from fedavg.core import (
    Context,
    at_clients,
    federated_computation,
    federated_map,
    federated_sum,
    local_computation,
    within,
)

__all__ = ["Moments", "mean_and_variance"]


@dataclass(frozen=True)
class Moments:
    """Mean and variance over clients, each with the deviation that the noise gives it (a first-order figure).

    Attributes:
        mean: In the clients' unit.
        mean_stddev: Deviation of its noise, same unit.
        variance: In the unit's square.
        variance_stddev: Deviation of its noise, in the unit's square.
        count: Noised number of clients.
        count_stddev: Deviation of its noise.
        statements: What it cost against each observer.
    """

    mean: float
    mean_stddev: float
    variance: float
    variance_stddev: float
    count: float
    count_stddev: float
    statements: dp.Statements


def mean_and_variance(clients: Clients, *, lower: float, upper: float, context: Context) -> Moments:
    """Private mean and variance of what clients hold, every client weighing the same.

    Guarantee: as the context's statements say, which are in the result.

    Args:
        clients: Each one's number or numbers; what is outside the range counts as its nearer end.
        lower: Least value, public.
        upper: Largest value, public.
        context: Population, promise, and way of summing; its promise is used up by the call.

    >>> from fedavg import RunEntropy, SecureAggregation
    >>> context = Context(population=4000, delta=1e-5, readers_epsilon=1.0, entropy=RunEntropy.seeded(1),
    ...     secure=SecureAggregation.ideal(one_draw=True))
    >>> result = mean_and_variance([float(i % 11) for i in range(4000)], lower=0.0, upper=10.0, context=context)
    >>> abs(result.mean - 5) < 4 * result.mean_stddev < 0.2, abs(result.variance - 10) < 4 * result.variance_stddev
    (True, True)
    """
    check_range(lower, upper)
    middle, half = (lower + upper) / 2, (upper - lower) / 2

    @local_computation(NUMBERS, returns=within((np.float64, (3,)), l2=sqrt(3)))
    def powers(values: np.ndarray) -> np.ndarray:
        if not len(values):
            return np.zeros(3)
        units = (np.clip(values, lower, upper) - middle) / half
        return np.array([units.mean(), np.square(units).mean(), 1.0])

    @federated_computation(at_clients(NUMBERS))
    def mean_and_variance(values):  # type: ignore[no-untyped-def]
        return federated_sum(federated_map(powers, values))

    (event,) = context.privacy(mean_and_variance).events
    run = context.run(mean_and_variance, numbers(clients))
    (deviation,) = event.stddev
    first, second, noised = run.value.tolist()
    count = max(noised, 4 * deviation)
    u, v = first / count, second / count
    step = deviation / count
    return Moments(
        mean=float(np.clip(middle + half * u, lower, upper)),
        mean_stddev=half * step * sqrt(1 + u * u),
        variance=max(half * half * (v - u * u), 0.0),
        # Gradient of v - u^2 in the three sums: (-2u, 1, 2u^2 - v).
        variance_stddev=half * half * step * sqrt(1 + 4 * u * u + (2 * u * u - v) ** 2),
        count=noised,
        count_stddev=deviation,
        statements=run.statements,  # type: ignore[arg-type]
    )
