"""What the clients of a round do, as a value that can be taken to where they are.

Not here: how its values are noised, masked and summed (`fedavg.aggregation`), where that happens (`fedavg.backends`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from fedavg.adapters.adapted import AdaptedStep
from fedavg.client_data import ClientData
from fedavg.errors import StepError, TreeError
from fedavg.layout import Contribution, Layout
from fedavg.misfits import written_into
from fedavg.pytree import Tree
from fedavg.step import Step, run_step

__all__ = ["ClientLog", "ClientWork", "Population", "Work"]

ClientLog = Callable[[Any, str], None]  # (client id, cause): written on the client, read by nobody else


class Population(Protocol):
    """All clients' data, which can be cut into parts (`ClientData` is one)."""

    def __len__(self) -> int: ...

    def part(self, positions: Sequence[int], /) -> Self:
        """The clients at these positions only; they keep their positions."""
        ...


class Work(Protocol):
    """What the clients of a round do: called with a client's position, it gives that client's blocks.

    Whatever goes wrong inside a client, the call returns blocks of the same form. To play clients elsewhere a backend
    sends `kept` and the parts of `clients` once, `terms` every round, and puts them together there with `of`.
    """

    @property
    def kept(self) -> tuple[Any, ...]:
        """What stays the same through a run, compared by identity."""
        ...

    @property
    def clients(self) -> Any:
        """The population, a `Population`."""
        ...

    @property
    def terms(self) -> tuple[Any, ...]:
        """What every client is told in this round: public."""
        ...

    @property
    def contributes(self) -> Mapping[int, bool]:
        """Position of each invited client, and whether its data is in the round: never published."""
        ...

    @classmethod
    def of(
        cls,
        kept: tuple[Any, ...],
        clients: Any,
        terms: tuple[Any, ...],
        *,
        contributes: Mapping[int, bool],
        log: ClientLog,
    ) -> Self:
        """Put work together where some of its clients are."""
        ...

    def __call__(self, position: int, /) -> Mapping[str, NDArray[Any]]:
        """The blocks of the client at a position, before they are clipped."""
        ...


@dataclass(frozen=True)
class ClientWork:
    """A round's work for each client of a cohort: train, or pad; whatever happens, something of the same form to send.

    Attributes:
        step: The user's loop.
        layout: What a client's vector holds.
        clients: The population; positions in `clients.client_ids` are the protocol's ids.
        weights: Flat weights of the released model.
        clip: This round's clip where it is adaptive, else None.
        contributes: Position of each invited client, and whether its data is in the round: never published.
        log: Where a client notes why its step failed.
    """

    step: Step
    layout: Layout
    clients: ClientData
    weights: NDArray[Any]
    clip: float | None
    contributes: Mapping[int, bool] = field(repr=False)
    log: ClientLog = field(repr=False)

    @property
    def kept(self) -> tuple[Any, ...]:
        """See `Work`."""
        return self.step, self.layout

    @property
    def terms(self) -> tuple[Any, ...]:
        """See `Work`."""
        return self.weights, self.clip

    @classmethod
    def of(
        cls,
        kept: tuple[Any, ...],
        clients: ClientData,
        terms: tuple[Any, ...],
        *,
        contributes: Mapping[int, bool],
        log: ClientLog,
    ) -> Self:
        """See `Work`."""
        (step, layout), (weights, clip) = kept, terms
        return cls(step, layout, clients, weights, clip, contributes, log)

    def __call__(self, position: int) -> Mapping[str, NDArray[Any]]:
        """The blocks of the client at a position, before they are clipped."""
        done = self._train(position) if self.contributes[position] else "padding"
        return self.layout.values(done, clip=self.clip)

    def _train(self, position: int) -> Contribution:
        client_id = self.clients.client_ids[position]
        given: list[Tree] = []
        lent = self.step.lent if isinstance(self.step, AdaptedStep) else None

        def step(weights: Tree, _: Any) -> Any:
            if lent is None:
                given.append(weights)
            # Fetching is part of the client's own work: whatever fails there concerns this client alone, too.
            return (lent or self.step)(weights, self.clients.for_client(client_id))

        try:
            return run_step(
                step,
                self.layout.spec,
                self.weights,
                None,
                metrics=self.layout.metrics,
                lent=lent is not None,
            )
        except StepError as error:
            self.log(client_id, str(error))
            return "failed"
        finally:
            if position == self._watched and given:
                self._watch(given[0])

    @cached_property
    def _watched(self) -> int | None:
        """One client a round whose step is watched: what it does to the weights it is given, it does for everybody."""
        return next((position for position, contributes in self.contributes.items() if contributes), None)

    def _watch(self, given: Tree) -> None:
        try:
            sentence = written_into(self.layout.spec, given, self.weights)
        except TreeError as error:
            sentence = f"the step changes the nest of weights that it is given ({error}); make a new one"
        if sentence is not None:
            warnings.warn(sentence, stacklevel=2)
