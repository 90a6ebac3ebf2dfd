"""Clients and their data: an ordered list of ids and a way to fetch one client's data, nothing else.

Data is fetched one client at a time and only for clients that train, so a population of a million costs what its
cohort costs. The library never looks inside a client's data; it hands it to the step.

Not here: files of other systems and data sets by name (`fedavg.datasets`), which come as `ClientData` too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedavg.errors import ParameterError

__all__ = ["ByUser", "ClientData", "Parts"]

Parts = Mapping[Any, NDArray[np.int64]] | Sequence[NDArray[np.int64]] | NDArray[np.int64]
"""Who holds which examples: positions by client id, or one row of positions after the other."""


class ClientData:
    """A population: `client_ids` in a fixed order, `for_client(id)` fetched on demand.

    >>> data = ClientData.of([[1, 2], [3]])
    >>> data.client_ids, data.for_client(1), len(data)
    (range(0, 2), [3], 2)

    Args:
        client_ids: Each client once: who stands there twice is drawn twice as often as its epsilon says.
        for_client: From an id to that client's data.

    Raises:
        ParameterError: an id stands there more than once, or cannot be compared with others.
    """

    def __init__(self, client_ids: Sequence[Any], for_client: Callable[[Any], Any]) -> None:
        if not isinstance(client_ids, range):
            _refuse_repeats(client_ids)
        self.client_ids = client_ids
        self._for_client = for_client

    @classmethod
    def of(cls, clients: ClientData | Mapping[Any, Any] | Sequence[Any]) -> ClientData:
        """Take a population as it comes: a `ClientData`, a mapping of id to data, or a sequence of data.

        Args:
            clients: the population; ids are the mapping's keys, or 0..N-1 for a sequence.

        Returns:
            The population; a `ClientData` is returned as it is.

        Raises:
            ParameterError: none of the three, nobody in it, or data that can be gone through only once.
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
        if isinstance(clients, dict | list | tuple):
            _refuse_iterators(clients)
        return data

    @classmethod
    def from_arrays(cls, *arrays: NDArray[Any], users: ArrayLike) -> ClientData:
        """Take examples that say whose they are.

        Args:
            arrays: One entry per example each, all of the same length (`np.memmap` for what does not fit in memory).
            users: Who each example belongs to, shape (examples,), numbers or text.

        Returns:
            A client for each user, sorted by id; its data is a tuple of its entries of the arrays, in their order.

        Raises:
            ParameterError: the arrays and the users do not have one length, or there are none.

        >>> data = ClientData.from_arrays(np.array([1.5, 2.5, 3.5]), users=["bob", "ada", "bob"])
        >>> data.client_ids, data.for_client("bob")
        (['ada', 'bob'], (array([1.5, 3.5]),))
        """
        parts = ByUser(users)
        if parts.examples != len(arrays[0] if arrays else ()):
            raise ParameterError(
                f"there are {len(arrays[0]) if arrays else 0:,} examples and {parts.examples:,} entries in users;"
                " give one user for each example"
            )
        return cls.from_parts(*arrays, parts=parts)

    @classmethod
    def from_parts(cls, *arrays: NDArray[Any], parts: Parts) -> ClientData:
        """Take examples dealt to clients: what a partitioner of `fedavg.datasets` returns.

        Args:
            arrays: One entry per example each, all of the same length.
            parts: The positions each client holds.

        Returns:
            A client for each part; its data is a tuple of its entries of the arrays.

        Raises:
            ParameterError: arrays of different lengths, none, or nobody in `parts`.

        >>> ClientData.from_parts(np.array([1.5, 2.5, 3.5]), parts=[[2, 0], [1]]).for_client(0)
        (array([3.5, 1.5]),)
        """
        lengths = sorted({len(array) for array in arrays})
        if len(lengths) != 1:
            raise ParameterError(f"the arrays hold {lengths} examples; give at least one, all of one length")
        if len(parts) == 0:
            raise ParameterError("there are no clients; give at least one")
        client_ids = list(parts) if isinstance(parts, Mapping) else range(len(parts))
        return cls(client_ids, _Rows(arrays, parts))

    def map(self, function: Callable[[Any], Any]) -> ClientData:
        """Apply `function` to a client's data whenever it is fetched.

        Returns:
            The same clients, each with what the function makes of its data.

        >>> ClientData.of({"ada": [1, 2]}).map(sum).for_client("ada")
        3
        """
        return ClientData(self.client_ids, _Mapped(self._for_client, function))

    def part(self, positions: Sequence[int]) -> ClientData:
        """The clients at these positions only, to be taken elsewhere: what is in memory is left behind for the others.

        What fetches its data itself stays lazy, and is the same in every part.

        Args:
            positions: Where the clients stand in `client_ids`; they keep these positions.

        >>> part = ClientData.of({"ada": [1], "bob": [2], "eve": [3]}).part([0, 2])
        >>> len(part), part.client_ids[2], part.for_client("eve")
        (2, 'eve', [3])
        """
        kept = _Kept({position: self.client_ids[position] for position in positions})
        return ClientData(kept, _part(self._for_client, list(kept)))

    def for_client(self, client_id: Any) -> Any:
        """The data of the client `client_id`, in whatever form the step takes."""
        return self._for_client(client_id)

    def __len__(self) -> int:
        return len(self.client_ids)


class ByUser(Mapping[Any, NDArray[np.int64]]):
    """The positions of each user's examples, kept as one sorted index: a million users are not a million objects.

    Args:
        users: Who each example belongs to, shape (examples,), numbers or text.

    Raises:
        ParameterError: not a list of numbers or of text, or nobody in it.

    >>> dict(ByUser([7, 3, 7]))
    {3: array([1]), 7: array([0, 2])}
    """

    def __init__(self, users: ArrayLike) -> None:
        given = np.asarray(users)
        if given.ndim != 1 or given.dtype.kind not in "iuSU" or len(given) == 0:
            raise ParameterError(
                f"users has shape {given.shape} and type {given.dtype}; give a number or a text for each example"
            )
        self._order = np.argsort(given, kind="stable")
        ordered = given[self._order]
        changes = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        self._starts = np.concatenate(([0], changes, [len(given)]))
        self._users = ordered[self._starts[:-1]]

    @property
    def examples(self) -> int:
        """How many examples all users hold together."""
        return len(self._order)

    def __getitem__(self, user: Any) -> NDArray[np.int64]:
        wanted = np.asarray(user)
        if (wanted.dtype.kind in "iu") != (self._users.dtype.kind in "iu") or wanted.ndim:
            raise KeyError(user)
        # Numpy would search for a signed number among unsigned ones as for a float, which blurs the long ones.
        sought = wanted.astype(self._users.dtype) if wanted.dtype.kind in "iu" else wanted
        place = int(np.searchsorted(self._users, sought))
        if place == len(self._users) or self._users[place] != wanted:
            raise KeyError(user)
        return self._order[self._starts[place] : self._starts[place + 1]]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._users.tolist())

    def __len__(self) -> int:
        return len(self._users)


@dataclass(frozen=True, eq=False)
class _Rows:
    arrays: tuple[NDArray[Any], ...]
    parts: Parts

    def __call__(self, client_id: Any) -> tuple[NDArray[Any], ...]:
        rows = self.parts[client_id]
        return tuple(array[rows] for array in self.arrays)


@dataclass(frozen=True, eq=False)
class _Mapped:
    for_client: Callable[[Any], Any]
    function: Callable[[Any], Any]

    def __call__(self, client_id: Any) -> Any:
        return self.function(self.for_client(client_id))


class _Kept(Sequence[Any]):
    """Some of a population's ids, each at the position it has there."""

    def __init__(self, ids: Mapping[int, Any]) -> None:
        self._ids = ids

    def __getitem__(self, position: Any) -> Any:
        return self._ids[position]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ids.values())

    def __len__(self) -> int:
        return len(self._ids)


def _refuse_repeats(client_ids: Sequence[Any]) -> None:
    try:
        different = len(set(client_ids))
    except TypeError as error:
        raise ParameterError(
            f"a client's id cannot be used ({error}); use strings, bytes or whole numbers"
        ) from error
    if different < len(client_ids):
        raise ParameterError(
            f"{len(client_ids)} clients have {different} different ids; give each client once, with all that it holds"
            " (ClientData.from_arrays(..., users=) gathers examples by user)"
        )


def _refuse_iterators(clients: Mapping[Any, Any] | Sequence[Any]) -> None:
    """A client is asked for its data in every round that it is drawn for; an iterator is empty after the first."""
    held = clients.items() if isinstance(clients, Mapping) else enumerate(clients)
    for client_id, data in held:
        if isinstance(data, Iterator):
            raise ParameterError(
                f"client {client_id!r} holds a {type(data).__name__}, which can be gone through only once; give a list"
                " of what it yields, or a fedavg.ClientData whose function makes it anew"
            )


def _part(for_client: Callable[[Any], Any], client_ids: Sequence[Any]) -> Callable[[Any], Any]:
    """What fetches these clients' data, without the data of others where it is plain to see that it holds them."""
    if isinstance(for_client, _Mapped):
        return _Mapped(_part(for_client.for_client, client_ids), for_client.function)
    if isinstance(for_client, _Rows):
        places = np.arange(len(for_client.arrays[0]))
        rows = {client_id: places[for_client.parts[client_id]] for client_id in client_ids}
        # Clients may share examples: each travels once.
        taken = np.unique(np.concatenate([places[:0], *rows.values()]))
        parts = {client_id: np.searchsorted(taken, own) for client_id, own in rows.items()}
        return _Rows(tuple(array[taken] for array in for_client.arrays), parts)
    held = getattr(for_client, "__self__", None)
    if isinstance(held, dict | list | tuple) and getattr(for_client, "__name__", "") == "__getitem__":
        return {client_id: held[client_id] for client_id in client_ids}.__getitem__
    return for_client
