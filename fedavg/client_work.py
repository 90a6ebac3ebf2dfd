"""What one client does in a round, as a value that can be taken to where the client is.

Not here: how its values are noised, masked and summed (`fedavg.aggregation`), where that happens (`fedavg.backends`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from fedavg.client_data import ClientData
from fedavg.errors import StepError
from fedavg.layout import Contribution, Layout
from fedavg.step import Step, run_step

__all__ = ["ClientLog", "ClientWork"]

ClientLog = Callable[[Any, str], None]  # (client id, cause): written on the client, read by nobody else


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

    def __call__(self, position: int) -> Mapping[str, NDArray[Any]]:
        """The blocks of the client at a position, before they are clipped."""
        done = self._train(position) if self.contributes[position] else "padding"
        return self.layout.values(done, clip=self.clip)

    def _train(self, position: int) -> Contribution:
        client_id = self.clients.client_ids[position]
        try:
            # Fetching is part of the client's own work: whatever fails there concerns this client alone, too.
            return run_step(
                lambda weights, _: self.step(weights, self.clients.for_client(client_id)),
                self.layout.spec,
                self.weights,
                None,
                metrics=self.layout.metrics,
            )
        except StepError as error:
            self.log(client_id, str(error))
            return "failed"
