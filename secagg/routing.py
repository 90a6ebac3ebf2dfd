"""What each client sent for each other one: the geometry of holders and places, and the rows that cross it.

Row u of `holders` lists the positions of client u's share holders (its neighbours and itself, ascending).
Holding is mutual, so that the holders of u are also the dealers whose shares u holds. The *place* of v at u is
the index of v in u's row. Everything a client sends per neighbour is in the order of its own row, itself left
out, and the server only ever slices. Invariants:

- what goes to v from u is what u sent for v, and zeros where u sent nothing;
- one array for each kind of row, given back to the system when its stage is over.

Not here: what the rows mean (`secagg.messages`).
"""

from __future__ import annotations

import numpy as np

from secagg.graph import Positions
from secagg.messages import Mask

__all__ = ["Rows", "Routing"]


class Routing:
    """Holders and places of a whole graph.

    Args:
        holders: int64 array of shape (clients, width).

    >>> routing = Routing(np.array([[0, 1, 3], [0, 1, 2], [1, 2, 3], [0, 2, 3]]))
    >>> routing.places[2].tolist()
    [2, 1, 1]
    """

    def __init__(self, holders: Positions) -> None:
        clients, width = holders.shape
        by_holder = np.argsort(holders.ravel(), kind="stable").reshape(clients, width)
        self.holders = holders.astype(np.int32)
        self.places = (by_holder % width).astype(np.uint16)

    @property
    def width(self) -> int:
        """Holders per client."""
        width: int = self.holders.shape[1]
        return width

    def neighbours(self, client: int) -> Positions:
        """Positions of the neighbours of a client, ascending."""
        row = self.holders[client]
        neighbours: Positions = row[row != client].astype(np.int64)
        return neighbours

    def incoming(self, receiver: int, senders: Mask) -> tuple[Positions, Positions]:
        """Every neighbour among `senders`, ascending, and the place of `receiver` at each."""
        row = self.holders[receiver]
        wanted = senders[row] & (row != receiver)
        return row[wanted].astype(np.int64), self.places[receiver][wanted].astype(np.int64)


class Rows:
    """One kind of row of fixed width, from every client for every of its neighbours or holders.

    Args:
        routing: the graph.
        width: bytes of a row.
        to_itself: whether clients send a row for themselves too.
    """

    def __init__(self, routing: Routing, *, width: int, to_itself: bool) -> None:
        clients, holders = routing.holders.shape
        self._routing = routing
        self._to_itself = to_itself
        self._rows = np.zeros((clients, holders if to_itself else holders - 1, width), np.uint8)

    def put(self, sender: int, rows: bytes | memoryview) -> None:
        """Keep the rows of one client, in the order of its list."""
        self._rows[sender] = np.frombuffer(rows, np.uint8).reshape(self._rows.shape[1:])

    def put_for(self, sender: int, rows: memoryview, receivers: Mask) -> None:
        """Keep the rows of one client for its neighbours among `receivers`."""
        neighbours = self._routing.neighbours(sender)
        kept = np.frombuffer(rows, np.uint8).reshape(-1, self._rows.shape[2])
        self._rows[sender, receivers[neighbours]] = kept

    def incoming(self, receiver: int, senders: Mask) -> bytes:
        """The rows for `receiver` from its neighbours among `senders`, concatenated."""
        others, places = self._routing.incoming(receiver, senders)
        rows: bytes = self._rows[others, self._index(receiver, others, places)].tobytes()
        return rows

    def rows(self, senders: Positions, places: Positions) -> bytes:
        """The row of each sender for the holder at a place of its list, concatenated; with rows for themselves."""
        rows: bytes = self._rows[senders, places].tobytes()
        return rows

    def _index(self, receiver: int, senders: Positions, places: Positions) -> Positions:
        return places if self._to_itself else places - (receiver > senders)
