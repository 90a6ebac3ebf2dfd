"""The shares that come back at the end of a round, and the seeds recovered from them in batches.

Every client deals shares of its seeds to its holders (its neighbours and itself, ascending; the share at
point x goes to the x-th). Bonawitz et al. 2017, Fig. 4, round 4: any `threshold` of them give a seed back.
Invariants:

- one 36-byte share per dealer and holder: the table has no room for both shares of a client;
- a holder answers for exactly the dealers in U2 among its list that it did not complain about.

Not here: what a recovered seed is checked against and used for (`secagg.server`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from secagg.errors import MalformedMessage, TooFewClients
from secagg.messages import Mask
from secagg.shamir import PRIME, reconstruct

__all__ = ["ShareTable"]

Positions = npt.NDArray[np.int64]


class ShareTable:
    """Shares by dealer and point.

    Args:
        holders: row u lists the positions of client u's holders, ascending; holding is mutual.
        threshold: shares that give a seed back.
    """

    def __init__(self, holders: Positions, *, threshold: int) -> None:
        clients, width = holders.shape
        self._holders = holders
        self._threshold = threshold
        by_holder = np.argsort(holders.ravel(), kind="stable").reshape(clients, width)
        self._places = (by_holder % width).astype(np.int32)
        self._withheld = np.zeros((clients, width), np.bool_)
        self._given = np.zeros((clients, width), np.bool_)
        self._shares = np.zeros((clients, width, 18), np.uint16)

    def neighbours(self, client: int) -> Positions:
        """Positions of the neighbours of a client, ascending."""
        row: Positions = self._holders[client]
        return np.delete(row, np.searchsorted(row, client))

    @property
    def width(self) -> int:
        """Holders per client."""
        width: int = self._holders.shape[1]
        return width

    def rows_for(self, holder: int, shared: Mask) -> Iterator[tuple[int, int]]:
        """Yield every neighbour in U2 and which of its sealed rows is for `holder`."""
        for dealer, place in zip(self._holders[holder].tolist(), self._places[holder].tolist(), strict=True):
            if shared[dealer] and dealer != holder:
                yield dealer, place - (holder > dealer)

    def withhold(self, holder: int, complaints: Mask) -> None:
        """Note which neighbours' shares `holder` could not open and will not answer for."""
        others = self._holders[holder] != holder
        dealers, places = self._holders[holder][others], self._places[holder][others]
        self._withheld[dealers[complaints], places[complaints]] = True

    def due(self, holder: int, shared: Mask) -> int:
        """How many records `holder` answers with."""
        return int(np.count_nonzero(self._answers(holder, shared)))

    def _answers(self, holder: int, shared: Mask) -> Mask:
        dealers = self._holders[holder]
        answers: Mask = shared[dealers] & ~self._withheld[dealers, self._places[holder]]
        return answers

    def put(self, holder: int, shared: Mask, records: memoryview) -> None:
        """Take the records of one holder.

        Raises:
            MalformedMessage: a word that is not in the field; nothing was taken.
        """
        words = np.frombuffer(records, "<u2").reshape(-1, 18)
        if words.size and int(words.max()) >= PRIME:
            raise MalformedMessage(f"a share holds a word that is not below {PRIME}")
        answers = self._answers(holder, shared)
        dealers, places = self._holders[holder][answers], self._places[holder][answers]
        self._shares[dealers, places] = words
        self._given[dealers, places] = True

    def recover(self, dealers: Positions, ids: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        """Yield each dealer with its seed (None where the words are out of range), in any order.

        Dealers whose shares came from the same points are recovered together.

        Raises:
            TooFewClients: a dealer has fewer shares than the threshold.
        """
        given = self._given[dealers]
        have = given.sum(axis=1)
        if len(have) and have.min() < self._threshold:
            client = ids[dealers[int(have.argmin())]]
            raise TooFewClients(int(have.min()), self._threshold, f"share holders of client {client}")
        first = np.argsort(~given, axis=1, kind="stable")[:, : self._threshold]
        patterns, group = np.unique(first, axis=0, return_inverse=True)
        order = np.argsort(group.ravel(), kind="stable")
        bounds = np.searchsorted(group.ravel()[order], np.arange(len(patterns) + 1))
        for index, places in enumerate(patterns):
            members = dealers[order[bounds[index] : bounds[index + 1]]]
            shares = self._shares[members[:, np.newaxis], places]
            yield from zip(members.tolist(), reconstruct((places + 1).tolist(), shares), strict=True)
