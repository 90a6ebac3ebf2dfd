"""The shares that come back at the end of a round: checked, kept, and turned into seeds in batches.

Every client deals shares of its secrets to its holders (its neighbours and itself, ascending; the share at
point x goes to the x-th). Bonawitz et al. 2017, Fig. 4, round 4: any `threshold` of them give a secret back.
Invariants:

- a *slot* holds one share per dealer and holder; slot 0 is for the self-mask seed of a client in the sum or
  the mask-key seed of one that is not, so that there is no room for both; slot j for conditional secret j;
- a holder answers for exactly the dealers in U2 among its list that it did not complain about;
- in malicious mode a share that does not match the dealer's hash is not used, so any `threshold` honest
  holders of an honest dealer suffice, and blame follows from what was committed: see `Fault`;
- where the shares that are used do not fit together, the wrong ones are looked for (`secagg.reed_solomon`) and
  left out: without hashes, or against a dealer that committed to wrong ones, a few do not end the round.

Not here: what a recovered secret is checked against and used for (`secagg.server`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from secagg.binding import share_hash
from secagg.dealing import CONDITIONAL, MASK_KEY, SELF_MASK
from secagg.errors import AuthenticationFailed, MalformedMessage, TooFewClients
from secagg.graph import Positions
from secagg.messages import HASH_BYTES, Codec, Mask
from secagg.reed_solomon import outliers
from secagg.routing import Routing, Rows
from secagg.shamir import PRIME, Shares, reconstruct

__all__ = ["Answer", "Fault", "ShareTable"]

_Opened = TypeVar("_Opened")
_BATCH = 64  # secrets recovered at a time: 5 MB of shares where a thousand clients hold them


class Fault(NamedTuple):
    """Something that an honest server can show about a round; counted, nobody is banned for it.

    A holder alone: it revealed a share that is not the one its dealer committed to and that it had accepted.
    A dealer alone: it committed to shares that do not give what it committed to. Both: the holder complained
    in time, so either the dealer dealt it a bad share or it complained about a good one; or, in semi-honest
    mode, where shares have no hashes, the share it revealed is off the polynomial of the others.

    Attributes:
        dealer: id of the dealer under suspicion, or None.
        holder: id of the holder under suspicion, or None.
        reason: what was seen.
    """

    dealer: int | None
    holder: int | None
    reason: str


class Answer(NamedTuple):
    """Which records a holder owes: their slots, dealers (positions), places in the dealer's list, secrets."""

    slots: Positions
    dealers: Positions
    places: Positions
    secrets: Positions


class ShareTable:
    """Shares by slot, dealer and point.

    Args:
        routing: who holds whose shares.
        ids: client ids by position.
        codec: the session's codec.
        context: the round's context.
        threshold: shares that give a secret back.
    """

    def __init__(
        self, routing: Routing, *, ids: Sequence[int], codec: Codec, context: bytes, threshold: int
    ) -> None:
        self._holders = routing.holders
        self._places = routing.places
        self._ids = ids
        self._codec = codec
        self._context = context
        self._threshold = threshold
        self._withheld = np.zeros(routing.holders.shape, np.bool_)
        self._hashes = Rows(routing, width=codec.hash_row_bytes, to_itself=True)
        self._given: list[Mask] = []
        self._shares: list[Shares] = []
        self.faults: list[Fault] = []

    def keep_hashes(self, dealer: int, hashes: bytes) -> None:
        """Keep a dealer's hash rows; they are empty in semi-honest mode."""
        self._hashes.put(dealer, hashes)

    def hashes_for(self, holder: int, shared: Mask) -> bytes:
        """The hash rows for one holder from its neighbours in U2, concatenated."""
        return self._hashes.incoming(holder, shared)

    def withhold(self, holder: int, complaints: Mask) -> None:
        """Note which neighbours' shares `holder` could not open or did not find as promised."""
        others = self._holders[holder] != holder
        dealers, places = self._holders[holder][others][complaints], self._places[holder][others][complaints]
        self._withheld[dealers, places] = True
        for dealer in dealers.tolist():
            self.faults.append(
                Fault(self._ids[dealer], self._ids[holder], "the holder complained of its share")
            )

    def open_slots(self, count: int) -> None:
        """Make room for the secrets that are to be recovered."""
        self._given = [np.zeros(self._holders.shape, np.bool_) for _ in range(count)]
        self._shares = [np.zeros((*self._holders.shape, 18), np.uint16) for _ in range(count)]

    def answer(self, holder: int, shared: Mask, survivors: Mask, numbers: Sequence[int]) -> Answer:
        """What `holder` owes: slot 0 for its dealers in U2, then each conditional secret for those in U3."""
        dealers, places = self._holders[holder], self._places[holder]
        owed = shared[dealers] & ~self._withheld[dealers, places]
        alive = survivors[dealers]
        first = np.flatnonzero(owed)
        later = np.flatnonzero(owed & alive)
        rows = np.concatenate([first, np.tile(later, len(numbers))])
        slots = np.repeat(np.arange(len(numbers) + 1), [len(first)] + [len(later)] * len(numbers))
        secrets = np.repeat(np.array([0, *(CONDITIONAL - 1 + n for n in numbers)]), np.bincount(slots))
        secrets[: len(first)] = np.where(alive[first], SELF_MASK, MASK_KEY)
        return Answer(slots, dealers[rows], places[rows], secrets)

    def put(self, holder: int, answer: Answer, records: memoryview) -> None:
        """Take the records of one holder; those that do not match their hash are left out and named.

        Raises:
            MalformedMessage: a word that is not in the field; nothing was taken.
        """
        salt = self._codec.salt_bytes
        rows = np.frombuffer(records, np.uint8).reshape(-1, self._codec.record_bytes)
        words = np.ascontiguousarray(rows[:, salt:]).view("<u2")
        if words.size and int(words.max()) >= PRIME:
            raise MalformedMessage(
                f"a share holds a word that is not below {PRIME}", sender=self._ids[holder]
            )
        good = self._match(holder, answer, records) if salt else np.ones(len(words), np.bool_)
        self.faults += [
            Fault(None, self._ids[holder], "it revealed another share than it had accepted")
        ] * int(np.count_nonzero(~good))
        for slot in range(len(self._shares)):
            taken = good & (answer.slots == slot)
            dealers, places = answer.dealers[taken], answer.places[taken]
            self._shares[slot][dealers, places] = words[taken]
            self._given[slot][dealers, places] = True

    def _match(self, holder: int, answer: Answer, records: memoryview) -> Mask:
        """Which records of a holder are those that their dealers committed to."""
        salt, width, client = self._codec.salt_bytes, self._codec.record_bytes, self._ids[holder]
        data, promised = bytes(records), self._hashes.rows(answer.dealers, answer.places)
        good = []
        for turn, (dealer, secret) in enumerate(
            zip(answer.dealers.tolist(), answer.secrets.tolist(), strict=True)
        ):
            start, due = turn * width, turn * self._codec.hash_row_bytes + secret * HASH_BYTES
            found = share_hash(
                self._context,
                self._ids[dealer],
                client,
                secret,
                data[start : start + salt],
                data[start + salt : start + width],
            )
            good.append(found == promised[due : due + HASH_BYTES])
        return np.array(good, np.bool_)

    def recover(self, slot: int, dealers: Positions) -> Iterator[tuple[int, bytes | None]]:
        """Yield each dealer with its secret (None where the words are out of range), in any order.

        Dealers whose shares came from the same points are recovered together.

        Raises:
            TooFewClients: a dealer has fewer shares than the threshold.
        """
        given = self._given[slot][dealers]
        have = given.sum(axis=1)
        if len(have) and have.min() < self._threshold:
            client = self._ids[dealers[int(have.argmin())]]
            raise TooFewClients(int(have.min()), self._threshold, f"share holders of client {client}")
        first = np.argsort(~given, axis=1, kind="stable")[:, : self._threshold]
        patterns, group = np.unique(first, axis=0, return_inverse=True)
        order = np.argsort(group.ravel(), kind="stable")
        bounds = np.searchsorted(group.ravel()[order], np.arange(len(patterns) + 1))
        for index, places in enumerate(patterns):
            for start in range(bounds[index], bounds[index + 1], _BATCH):
                members = dealers[order[start : min(start + _BATCH, bounds[index + 1])]]
                shares = self._shares[slot][members[:, np.newaxis], places]
                yield from zip(members.tolist(), reconstruct((places + 1).tolist(), shares), strict=True)

    def opened(
        self, slot: int, dealers: Positions, opens: Callable[[int, bytes], _Opened | None]
    ) -> Iterator[tuple[int, _Opened]]:
        """Recover one secret of every dealer and open it; wrong shares are left out and named where that helps.

        Args:
            slot: which secret.
            dealers: positions of the dealers.
            opens: called with a dealer's position and a secret; None for one that it did not commit to.

        Raises:
            TooFewClients: a dealer has fewer shares than the threshold.
            AuthenticationFailed: a dealer's shares do not give what it committed to, whichever are left out.
        """
        for dealer, secret in self.recover(slot, dealers):
            found = None if secret is None else opens(dealer, secret)
            if found is None:
                mended = self.mend(slot, dealer)
                found = None if mended is None else opens(dealer, mended[0])
                self.blame(dealer, () if mended is None or found is None else mended[1])
            if found is None:
                raise AuthenticationFailed(
                    f"the shares of client {self._ids[dealer]} do not give what it committed to; nothing is released",
                    sender=self._ids[dealer],
                )
            yield dealer, found

    def mend(self, slot: int, dealer: int) -> tuple[bytes, list[int]] | None:
        """Leave out the shares of a dealer's secret that are off the polynomial of the others.

        Returns:
            The secret that the others give, still to be checked, and the ids of the holders left out; None where
            no share stands out or too few remain.
        """
        places = np.flatnonzero(self._given[slot][dealer])
        points, shares = (places + 1).tolist(), self._shares[slot][dealer, places]
        wrong = outliers(points, shares, threshold=self._threshold)
        if not wrong:
            return None
        good = np.delete(np.arange(len(places)), wrong)[: self._threshold]
        (secret,) = reconstruct([points[index] for index in good], shares[np.newaxis, good])
        if secret is None:
            return None
        return secret, [self._ids[holder] for holder in self._holders[dealer, places[wrong]].tolist()]

    def blame(self, dealer: int, holders: Sequence[int]) -> None:
        """Name those who may be at fault for shares of `dealer` that do not give what it committed to.

        Args:
            dealer: position of the dealer.
            holders: ids of the holders whose shares are off the polynomial of the others; none where the
                shares as a whole are wrong.
        """
        if self._codec.salt_bytes:
            self.faults.append(Fault(self._ids[dealer], None, "it committed to shares that do not fit"))
            return
        for holder in holders:
            self.faults.append(Fault(self._ids[dealer], holder, "the revealed share does not fit the others"))
