"""Masked inputs of some of the clients, verified and added where they arrive, handed up as one sum.

A server that stands in several places has a `PartialSum` in each; partial sums are added to others, as a tree, and at
last to the server's own (`secagg.Server.receive_partial`). Invariants:

- each message is verified as the server itself would, as a whole, before any of it is added;
- nobody is in a partial sum twice, and two that share a client are never added: whoever hands out the clients
  binds each to one place, and a place takes no other (`clients`);
- memory does not grow with clients times length.

A partial sum is a part of the server and is trusted as the server is: it sees single masked vectors, and the server
takes its word for who is in it. What a client is promised does not depend on it.

Encoded: session (32), bitmap of the senders over the roster, for each sender, ascending, a bitmap of its complaints
over its neighbours, every vector packed. The length follows from the parameters and the number of senders.

Not here: unmasking (`secagg.server`).
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from secagg.binding import ring_seed
from secagg.errors import DuplicateMessage, MalformedMessage, UnexpectedMessage
from secagg.graph import holder_table
from secagg.messages import HASH_BYTES, HEADER_BYTES, Codec, Mask, bitmap
from secagg.parameters import RoundParameters, Vector
from secagg.ring import Words, add_packed, pack, packed_size, unpack, word_dtype
from secagg.routing import Routing
from secagg.turns import one_at_a_time

__all__ = ["PartialSum"]

_NAMED = 10


class Part(NamedTuple):
    """A decoded partial sum: positions of its senders, the complaints of each, every vector's sum."""

    senders: list[int]
    complaints: list[Mask]
    packed: list[memoryview]


class PartialSum:
    """The sum of some clients' masked inputs, and who is in it.

    Guarantee: what it hands up depends on its clients' messages only through the sum of their masked vectors, who sent
    them, and their complaints.

    Args:
        parameters: the round.
        roster: the message that opened the share stage.
        shared: bitmap of U2 over the roster; both as `Server.partial_opening` gives them.
        clients: ids of the clients bound to this place, whose inputs alone it takes; all of the roster where it is
            left out. Places with disjoint `clients` never share one, whatever a client sends where.

    Raises:
        MalformedMessage: roster or set do not fit the parameters or each other.
    """

    def __init__(
        self,
        parameters: RoundParameters,
        roster: bytes,
        shared: bytes,
        *,
        clients: Collection[int] | None = None,
    ) -> None:
        self._vectors = parameters.vectors
        self._busy = threading.Lock()
        self._bound = None if clients is None else frozenset(clients)
        self._session = roster[HEADER_BYTES - HASH_BYTES : HEADER_BYTES]
        self._codec = Codec(parameters, self._session)
        known = self._codec.decode_roster(roster)
        self._ids: list[int] = known.ids.tolist()
        self._position = {client: position for position, client in enumerate(self._ids)}
        self._shared = _members(shared, len(known.ids))
        self._routing = Routing(
            holder_table(len(known.ids), neighbours=parameters.neighbours, seed=ring_seed(known.hash))
        )
        self._totals = [np.zeros(v.padded_length, word_dtype(v.modulus_bits)) for v in parameters.vectors]
        self._complaints: dict[int, Mask] = {}

    def __repr__(self) -> str:
        return f"PartialSum(senders={len(self._complaints)})"

    @one_at_a_time
    def receive(self, sender: int, data: bytes) -> None:
        """Verify one client's masked input and add it.

        Args:
            sender: id of the client, as the transport authenticated it.
            data: the message.

        Raises:
            RemoteProtocolError: the message is refused; nothing was added.
            DuplicateMessage, UnexpectedMessage: such refusals: the client's input is in already, or the client
                is not one of these.
        """
        position = self._position.get(sender)
        if position is None or not self._shared[position]:
            raise UnexpectedMessage(f"client {sender} has no part in this sum", sender=sender)
        if self._bound is not None and sender not in self._bound:
            raise UnexpectedMessage(f"client {sender} is bound to another place than this", sender=sender)
        if position in self._complaints:
            raise DuplicateMessage(f"client {sender} sent a second masked input", sender=sender)
        neighbours = self._routing.neighbours(position)
        complaints, packed = self._codec.decode_masked_input(data, neighbours=len(neighbours), sender=sender)
        refuse_strange(complaints, self._shared[neighbours], sender)
        add_vectors(self._totals, packed, self._vectors, sender)
        self._complaints[position] = complaints

    @one_at_a_time
    def add(self, data: bytes) -> None:
        """Add another partial sum of the same round.

        Args:
            data: What the other's `encode` returned.

        Raises:
            RemoteProtocolError: it is refused; nothing was added.
        """
        part = decode_part(data, self._session, self._vectors, self._routing, self._shared)
        refuse_twice(self._ids[position] for position in self._complaints.keys() & set(part.senders))
        add_vectors(self._totals, part.packed, self._vectors)
        self._complaints.update(zip(part.senders, part.complaints, strict=True))

    @one_at_a_time
    def encode(self) -> bytes:
        """Write the sum so far.

        Returns:
            What `add` and `secagg.Server.receive_partial` take.

        Raises:
            LocalProtocolError: another call is under way, whose input is half in; ask again after it.
        """
        senders = np.zeros(len(self._shared), np.bool_)
        senders[list(self._complaints)] = True
        complaints = [bitmap(self._complaints[position]) for position in sorted(self._complaints)]
        packed = [pack(t, v.modulus_bits) for t, v in zip(self._totals, self._vectors, strict=True)]
        return b"".join((self._session, bitmap(senders), *complaints, *packed))


def decode_part(
    data: bytes, session: bytes, vectors: Sequence[Vector], routing: Routing, shared: Mask
) -> Part:
    """Read an encoded partial sum.

    Raises:
        MalformedMessage: another session or length, a sender outside U2, an impossible complaint.
    """
    clients, start = len(shared), HASH_BYTES + -(-len(shared) // 8)
    if data[:HASH_BYTES] != session:
        raise MalformedMessage("a partial sum belongs to another session")
    senders = _members(data[HASH_BYTES:start], clients)
    positions: list[int] = np.flatnonzero(senders).tolist()
    width = -(-(routing.width - 1) // 8)
    sizes = [packed_size(vector.padded_length, vector.modulus_bits) for vector in vectors]
    due = start + width * len(positions) + sum(sizes)
    if len(data) != due:
        raise MalformedMessage(f"a partial sum has {len(data)} bytes where exactly {due} are due")
    if (senders & ~shared).any():
        raise MalformedMessage("a partial sum holds a client that shared nothing")
    complaints = []
    for position in positions:
        row = _members(data[start : start + width], routing.width - 1)
        refuse_strange(row, shared[routing.neighbours(position)])
        complaints.append(row)
        start += width
    ends = (start + np.cumsum(sizes)).tolist()
    view = memoryview(data)
    return Part(positions, complaints, [view[e - size : e] for e, size in zip(ends, sizes, strict=True)])


def refuse_strange(complaints: Mask, shared: Mask, sender: int | None = None) -> None:
    """Refuse complaints about neighbours that sent nothing to complain about."""
    if (complaints & ~shared).any():
        raise MalformedMessage(f"client {sender} complains about a client that shared nothing", sender=sender)


def refuse_strays(senders: Iterable[int], clients: Collection[int] | None) -> None:
    """Refuse a partial sum of clients that are bound to another place than the one it comes from."""
    if clients is not None and (strays := set(senders).difference(clients)):
        raise UnexpectedMessage(
            f"a partial sum holds client {min(strays)}, which is bound to another place", sender=min(strays)
        )


def refuse_twice(clients: Iterable[int]) -> None:
    """Refuse a partial sum for the clients in it that came before: a sum cannot be parted again.

    Raises:
        DuplicateMessage: there are such; names them, and the lowest as the sender.
    """
    if twice := sorted(clients):
        names = ", ".join(map(str, twice[:_NAMED])) + (
            f" and {len(twice) - _NAMED} more" if twice[_NAMED:] else ""
        )
        raise DuplicateMessage(
            f"a partial sum holds clients that came before: {names}; bind every client to one place "
            "(PartialSum(clients=...)) and make the sum anew without them",
            sender=twice[0],
        )


def add_vectors(
    totals: Sequence[Words],
    packed: Sequence[memoryview],
    vectors: Sequence[Vector],
    sender: int | None = None,
) -> None:
    """Add packed vectors to their totals, after all of them were verified: the last one verifies as it is added."""
    try:
        earlier = [
            unpack(data, length=vector.padded_length, bits=vector.modulus_bits)
            for vector, data in zip(vectors[:-1], packed[:-1], strict=True)
        ]
        _add_last(totals[-1], packed[-1], vectors[-1].modulus_bits)
    except MalformedMessage as error:
        raise MalformedMessage(str(error), sender=sender) from None
    for total, values in zip(totals[:-1], earlier, strict=True):
        total += values


def _add_last(total: Words, data: memoryview, bits: int) -> None:
    """Add a packed vector; where that is cut off in the middle, no sum may come of the total, whoever goes on."""
    try:
        add_packed(total, data, bits)
    except MalformedMessage:
        raise
    except BaseException:
        total[-1:] += 1  # A check coordinate, which the rows before it do not reach.
        raise


def _members(data: bytes, length: int) -> Mask:
    """Unpack a set over positions; another number of bytes, or padding bits that are set, is refused."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if len(data) != -(-length // 8) or bits[length:].any():
        raise MalformedMessage(f"a bitmap over {length} positions has another length or is padded with ones")
    return bits[:length].astype(np.bool_)
