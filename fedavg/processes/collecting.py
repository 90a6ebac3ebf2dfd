"""What a process asks of an aggregator, and the only thing it asks: a round's averages over the clients.

A factory (`fedavg.private_sum(...)`, `fedavg.insecure_sum`) is told what every client's vector holds and makes an
aggregator; the aggregator runs the clients' work and says what came of it, against whom it is private, and why.

Rule: whatever a client's work raises concerns that client alone; it contributes zeros and is counted as failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

import dp

__all__ = ["Aggregator", "AggregatorFactory", "Collected", "Content", "Released", "Work"]


@dataclass(frozen=True)
class Content:
    """What every client's vector holds.

    Args:
        task: What the rounds are for; masks of one task are of no use in another.
        update: Length of the model update, 0 for none.
        weighted: Whether updates count by their number of examples.
        bounds: Metrics, name to largest absolute value for one example; with any, the examples are counted, too.
    """

    task: str
    update: int = 0
    weighted: bool = False
    bounds: Mapping[str, float] = field(default_factory=dict)

    @property
    def counted(self) -> bool:
        """Whether the number of examples is needed."""
        return self.weighted or bool(self.bounds)


Work = Callable[[Callable[[], Any]], tuple[NDArray[Any], Mapping[str, float]]]
"""One client's work: fetches its data, gives the update and its sums, "num_examples" among them; or `StepError`."""

Released = Callable[[NDArray[Any]], bytes]
"""From a round's averaged update to 32 bytes naming the model that is released with it."""


@dataclass(frozen=True)
class Collected:
    """What a round gave.

    Args:
        average: The averaged update, shape (update,).
        sums: "num_examples" and each metric's sum over the clients' examples; empty if none are counted.
        least_examples: Public floor for the number of examples, to divide by.
        contributed: How many clients' work is in the sums; noised where anything is.
        failed: How many were to contribute and could not; likewise.
        cohort: Number of clients invited.
        survivors: How many of these are in the sum, padding included.
        bytes_up_per_client: Most bytes that one client sent.
        epsilon: Both observers' epsilon for all rounds of this aggregator so far.
        aggregation: How the sum was taken and what that means, in a sentence.
    """

    average: NDArray[Any]
    sums: Mapping[str, float]
    least_examples: float
    contributed: float
    failed: float
    cohort: int
    survivors: int
    bytes_up_per_client: int
    epsilon: dp.Epsilons
    aggregation: str

    def facts(self) -> dict[str, Any]:
        """What a round's metrics say of it, whatever the process."""
        return {
            "clients": {"contributed": self.contributed, "failed": self.failed},
            "cohort": self.cohort,
            "survivors": self.survivors,
            "bytes_up_per_client": self.bytes_up_per_client,
            "epsilon": self.epsilon,
            "aggregation": self.aggregation,
        }


class Aggregator(Protocol):
    """Takes rounds' sums; keeps what was spent, outside of any process's state."""

    def collect(self, work: Work, data: Any, *, model_hash: bytes, released: Released) -> Collected:
        """Run one round over `data`: a whole population (`ClientData`), or a list of clients' data.

        Args:
            work: What a client does.
            data: The clients.
            model_hash: 32 bytes naming the model that is broadcast.
            released: From the averaged update to 32 bytes naming the model that comes of it.
        """
        ...

    def statement(self) -> dp.Statements | None:
        """Both statements for everything charged so far; None where nothing is promised to anybody."""
        ...


class AggregatorFactory(Protocol):
    """Where privacy plugs in: the `model_aggregator=` of every process."""

    def create(self, content: Content) -> Aggregator:
        """An aggregator for vectors of this content, with nothing spent."""
        ...
