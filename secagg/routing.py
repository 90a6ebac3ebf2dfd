"""Which of one client's rows is for which other client: the geometry of holders, places and slices.

Row u of `holders` lists the positions of client u's share holders (its neighbours and itself, ascending).
Holding is mutual, so that the holders of u are also the dealers whose shares u holds. The *place* of v at u is
the index of v in u's row. Everything a client sends per neighbour is in the order of its own row, itself left
out, and the server only ever slices. Invariant: what goes to v from u is what u sent for v.

Not here: what the rows mean (`secagg.messages`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from secagg.graph import Positions
from secagg.messages import HASH_BYTES, Mask

__all__ = ["Routing"]


class Routing:
    """Holders and places of a whole graph, and the consistency tags that cross it.

    Args:
        holders: int64 array of shape (clients, width).

    >>> routing = Routing(np.array([[0, 1, 3], [0, 1, 2], [1, 2, 3], [0, 2, 3]]))
    >>> routing.places[2].tolist()
    [2, 1, 1]
    """

    def __init__(self, holders: Positions) -> None:
        clients, width = holders.shape
        by_holder = np.argsort(holders.ravel(), kind="stable").reshape(clients, width)
        self.holders = holders
        self.places = (by_holder % width).astype(np.int32)
        self._tags = np.zeros((0, 0, HASH_BYTES), np.uint8)

    @property
    def width(self) -> int:
        """Holders per client."""
        width: int = self.holders.shape[1]
        return width

    def neighbours(self, client: int) -> Positions:
        """Positions of the neighbours of a client, ascending."""
        row: Positions = self.holders[client]
        return np.delete(row, np.searchsorted(row, client))

    def rows_for(self, receiver: int, senders: Mask) -> Iterator[tuple[int, int]]:
        """Yield every neighbour among `senders` with the place of `receiver` at it."""
        row, places = self.holders[receiver].tolist(), self.places[receiver].tolist()
        for sender, place in zip(row, places, strict=True):
            if senders[sender] and sender != receiver:
                yield sender, place

    def put_tags(self, sender: int, tags: memoryview, receivers: Mask) -> None:
        """Keep the tags of one client for its neighbours among `receivers`."""
        if not len(self._tags):
            self._tags = np.zeros((*self.holders.shape, HASH_BYTES), np.uint8)
        row = self.holders[sender]
        self._tags[sender, receivers[row] & (row != sender)] = np.frombuffer(tags, np.uint8).reshape(
            -1, HASH_BYTES
        )

    def tags_for(self, receiver: int, senders: Mask) -> bytes:
        """The tags from the neighbours among `senders`; zeros from those that sent none."""
        row = self.holders[receiver]
        wanted = senders[row] & (row != receiver)
        tags: bytes = self._tags[row[wanted], self.places[receiver][wanted]].tobytes()
        return tags
