"""A backend takes one round's sum: it plays the clients, each with its own data, keys and noise, and the server.

Whatever the backend, the same entropy gives the same sums, bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from fedavg.aggregation import AggregationPlan, Record, RoundSum
from fedavg.client_work import Population, Work
from fedavg.entropy import RunEntropy

__all__ = ["Backend", "Local"]


class Backend(Protocol):
    """What a federated process, or a context of the federated core, asks of a backend."""

    def prepare(self, kept: tuple[Any, ...], clients: Population) -> None:
        """Get ready for a run, before anything is charged.

        Args:
            kept: What stays the same through the run, as `Work.kept` has it.
            clients: The population.

        Raises:
            BackendError: the machines cannot be had, or not with these functions and data.
        """
        ...

    def sum_round(
        self,
        plan: AggregationPlan,
        work: Work,
        *,
        clients: Sequence[int],
        number: int,
        model_hash: bytes,
        dropouts: Mapping[str, Collection[int]],
        entropy: RunEntropy,
        record: Record | None,
        memory: Mapping[str, NDArray[Any]],
    ) -> RoundSum:
        """One round's noised sum; arguments, result and errors are those of `AggregationPlan.sum_round`."""
        ...


class Local:
    """Everything in this process, one client after the other."""

    def prepare(self, kept: tuple[Any, ...], clients: Population) -> None:
        """Nothing is to be done."""

    def sum_round(
        self,
        plan: AggregationPlan,
        work: Work,
        *,
        clients: Sequence[int],
        number: int,
        model_hash: bytes,
        dropouts: Mapping[str, Collection[int]],
        entropy: RunEntropy,
        record: Record | None,
        memory: Mapping[str, NDArray[Any]],
    ) -> RoundSum:
        """See `Backend.sum_round`."""
        return plan.sum_round(
            work,
            clients=clients,
            number=number,
            model_hash=model_hash,
            dropouts=dropouts,
            entropy=entropy,
            record=record,
            memory=memory,
        )
