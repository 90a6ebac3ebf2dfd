"""Clients and their data: an ordered list of ids and a way to fetch one client's data, nothing else.

Data is fetched one client at a time and only for clients that train, so a population of a million costs what its
cohort costs. The library never looks inside a client's data; it hands it to the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedavg.errors import ParameterError

__all__ = ["ClientData"]


class ClientData:
    """A population: `client_ids` in a fixed order, `for_client(id)` fetched on demand.

    >>> data = ClientData.of([[1, 2], [3]])
    >>> data.client_ids, data.for_client(1), len(data)
    (range(0, 2), [3], 2)
    """

    def __init__(self, client_ids: Sequence[Any], for_client: Callable[[Any], Any]) -> None:
        self.client_ids = client_ids
        self._for_client = for_client

    @classmethod
    def of(cls, clients: ClientData | Mapping[Any, Any] | Sequence[Any]) -> ClientData:
        """Take a population as it comes: a `ClientData`, a mapping of id to data, or a sequence of data.

        Raises:
            ParameterError: none of the three, or nobody in it.
        """
        if isinstance(clients, ClientData):
            data = clients
        elif isinstance(clients, Mapping):
            data = cls(list(clients), clients.__getitem__)
        elif isinstance(clients, Sequence) and not isinstance(clients, str | bytes):
            data = cls(range(len(clients)), clients.__getitem__)
        else:
            raise ParameterError(
                f"clients is a {type(clients).__name__}; give a fedavg.ClientData, a mapping of id to data, or a list"
            )
        if len(data) == 0:
            raise ParameterError("there are no clients; give at least one")
        return data

    def for_client(self, client_id: Any) -> Any:
        """One client's data, in whatever form the step takes."""
        return self._for_client(client_id)

    def __len__(self) -> int:
        return len(self.client_ids)
