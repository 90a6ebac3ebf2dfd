"""Who masks with whom: everybody, or the neighbours on a ring in random order.

Bell et al. 2020, section 3 (Harary graph on randomly permuted nodes). Clients are named by their position in
the sorted roster, 0 to n-1. A client's holders are its neighbours and itself, ascending; its share at point x
goes to the x-th of them. Invariants:

- the order is a Fisher-Yates shuffle driven by the AES-256-CTR stream of a public seed (the roster's hash),
  every index drawn by rejection: whoever has the roster gets the same graph, on any machine;
- being a neighbour is mutual, and every client has the same number of neighbours;
- with k >= n - 1 neighbours the graph is complete and no order is needed.

Not here: how many neighbours are enough (`secagg.graph_parameters`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from secagg.entropy import SeededEntropy
from secagg.errors import ParameterError
from secagg.graph_parameters import GraphParameters, complete_threshold, graph_parameters

__all__ = [
    "GraphParameters",
    "Positions",
    "complete_threshold",
    "graph_parameters",
    "holder_positions",
    "holder_table",
    "ring_order",
]

Positions = npt.NDArray[np.int64]

_WORD_BYTES = 8
_WORDS = 1 << 64


@lru_cache(maxsize=4)
def ring_order(clients: int, seed: bytes) -> Positions:
    """Return which client sits at each place of the ring; the array is shared, and read-only.

    For place i from clients-1 down to 1, the clients at i and at j change places, j uniform in 0..i: the next
    little-endian 64-bit word of the stream that lies below the largest multiple of i+1, modulo i+1.

    Args:
        clients: n.
        seed: 32 bytes, the key of the stream.

    Source: Durstenfeld 1964 (Fisher-Yates); Bell et al. 2020, section 3.

    >>> ring_order(5, bytes(32)).tolist()
    [0, 2, 3, 4, 1]
    """
    words = _words(seed, clients)
    order = list(range(clients))
    for place in range(clients - 1, 0, -1):
        other = _below(place + 1, words)
        order[place], order[other] = order[other], order[place]
    ring = np.array(order, dtype=np.int64)
    ring.flags.writeable = False
    return ring


def holder_table(clients: int, *, neighbours: int, seed: bytes) -> Positions:
    """Return the holders of every client: row u lists them ascending, u included.

    Args:
        clients: n, the clients in the roster.
        neighbours: k, even where it is below n - 1.
        seed: 32 bytes, from the roster.

    Raises:
        ParameterError: an odd number of neighbours below n - 1.

    >>> holder_table(5, neighbours=2, seed=bytes(32)).tolist()
    [[0, 1, 2], [0, 1, 4], [0, 2, 3], [2, 3, 4], [1, 3, 4]]
    """
    if _is_complete(clients, neighbours):
        return np.tile(np.arange(clients), (clients, 1))
    table = np.empty((clients, neighbours + 1), dtype=np.int64)
    order = ring_order(clients, seed)
    table[order] = order[_windows(np.arange(clients), clients, neighbours)]
    table.sort(axis=1)
    return table


def holder_positions(clients: int, own: int, *, neighbours: int, seed: bytes) -> Positions:
    """Return one row of `holder_table`: the holders of the client at position `own`, ascending.

    >>> holder_positions(5, 3, neighbours=2, seed=bytes(32)).tolist()
    [2, 3, 4]
    """
    if _is_complete(clients, neighbours):
        return np.arange(clients)
    order = ring_order(clients, seed)
    place = np.flatnonzero(order == own)
    return np.sort(order[_windows(place, clients, neighbours)[0]])


def _is_complete(clients: int, neighbours: int) -> bool:
    """Say whether everybody is everybody's neighbour; refuse a ring that is not symmetric."""
    if neighbours >= clients - 1:
        return True
    if neighbours < 2 or neighbours % 2:
        raise ParameterError(
            f"{neighbours} neighbours on a ring of {clients} were asked for; use an even number"
        )
    return False


def _windows(places: Positions, clients: int, neighbours: int) -> Positions:
    """Return, for each place, the k+1 places of the window around it."""
    half = neighbours // 2
    return (places[:, np.newaxis] + np.arange(-half, half + 1)) % clients


def _words(seed: bytes, batch: int) -> Iterator[int]:
    """Yield the little-endian 64-bit words of the stream of `seed`, without end."""
    stream = SeededEntropy(seed)
    while True:
        yield from np.frombuffer(stream(_WORD_BYTES * batch), dtype="<u8").tolist()


def _below(bound: int, words: Iterator[int]) -> int:
    """Draw a uniform integer in 0..bound-1 by rejection."""
    limit = _WORDS - _WORDS % bound
    return next(word for word in words if word < limit) % bound
