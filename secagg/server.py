"""The server of one round: it collects, routes, sums as messages arrive, and unmasks the sum.

Bonawitz et al. 2017, Fig. 4, on the graph of Bell et al. 2020. One stage at a time (`secagg.phases.SERVER`):
send every client `message_for(client)`, hand what comes back to `receive`, close the stage with `advance`.

Invariants:

- masked inputs go straight into one accumulator per vector: memory does not grow with clients times length;
- a message is verified as a whole before any of it has an effect, so a refused message leaves no trace and
  the round goes on; a client that sends nothing acceptable is a client that dropped out;
- an identical repeat is ignored, a different second message refused, a late one discarded unread;
- one call at a time: what another thread sends in the middle of one is refused without effect;
- every recovered seed is checked: a self-mask seed against its commitment, a mask seed against the
  advertised key; the check coordinates of every vector must add up to the number of survivors;
- no total is released before all of that holds.

Not here: the batch recovery of seeds (`secagg.recovery`).
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from functools import partial
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secagg import keys
from secagg.agreement import MaskKeys, derive_mask_keys, edges_sealed, recovered_edge, require_usable
from secagg.binding import (
    advert_statement,
    commitment,
    conditional_commitment,
    context_of,
    ring_seed,
    session_of,
    vector_fields,
)
from secagg.conditional import RevealRule, checked_rule
from secagg.entropy import Entropy, system_entropy
from secagg.errors import (
    AuthenticationFailed,
    DuplicateMessage,
    LocalProtocolError,
    MalformedMessage,
    ParameterError,
    TooFewClients,
    UnexpectedMessage,
)
from secagg.graph import Positions, holder_table
from secagg.hybrid import EDGE_BYTES
from secagg.identities import IdentityRoster
from secagg.masking import apply_masks
from secagg.messages import HASH_BYTES, Codec, Mask, Roster, bitmap, encode_offer, kind_of
from secagg.parameters import MAX_MESSAGE_BYTES, RoundParameters
from secagg.partial_sum import add_vectors, decode_part, refuse_strange, refuse_strays, refuse_twice
from secagg.phases import ADVANCE, SERVER, Kind, Phase, after
from secagg.recovery import Fault, ShareTable
from secagg.ring import Words, reduce, word_dtype
from secagg.routing import Routing, Rows
from secagg.secrecy import refuse_copies
from secagg.turns import one_at_a_time

__all__ = ["Server", "Sum"]

Masks = list[tuple[list[bytes], int]]


class Sum(NamedTuple):
    """What a round gives.

    Attributes:
        totals: for each vector, the survivors' sum modulo 2^bits.
        survivors: ids of the clients in the sum, ascending.
        revealed: for each survivor, its revealed conditional secrets by number.
    """

    totals: dict[str, Words]
    survivors: tuple[int, ...]
    revealed: dict[int, dict[int, bytes]]


class Server:
    """The server in one round.

    Guarantee: it computes the sum of exactly the survivors' inputs modulo 2^bits, or raises.

    Args:
        parameters: the round.
        entropy: where the nonce and the key of the duplicate check come from.
        threads: threads that expand masks at the end.
        identities: malicious mode: the trusted roster.
        rule: the rule of the conditional secrets, if the round has any.

    Raises:
        ParameterError: a roster or rule that does not fit the parameters.
    """

    def __init__(
        self,
        parameters: RoundParameters,
        *,
        entropy: Entropy = system_entropy,
        threads: int = 1,
        identities: IdentityRoster | None = None,
        rule: RevealRule | None = None,
    ) -> None:
        if (identities.hash if identities else b"") != parameters.roster_hash:
            raise ParameterError(
                "the trusted roster is not the one that the parameters name; give the roster whose hash they hold"
            )
        self._parameters = parameters
        self._identities = identities
        self._rule = checked_rule(parameters, rule)
        self._threads = threads
        self._busy = threading.Lock()
        self._phase = Phase.ADVERTISE
        self._table = SERVER[parameters.adversary]
        nonce = entropy(32)
        self._session = session_of(parameters, nonce)
        self._offer = encode_offer(self._session, nonce, parameters.canonical)
        self._codec = Codec(parameters, self._session)
        self._fingerprint = AESGCM(entropy(32))
        self._arrived: dict[int, bytes] = {}
        self._adverts: dict[int, bytes] = {}
        self._public_keys: set[bytes] = set()
        self._fields = [vector_fields(index, vector) for index, vector in enumerate(parameters.vectors)]
        self._commitments: dict[int, bytes] = {}
        self._numbers: list[int] = []
        self._edges: dict[tuple[int, int], bytes] = {}
        self._totals = [np.zeros(v.padded_length, word_dtype(v.modulus_bits)) for v in parameters.vectors]
        self._broadcast = self._offer
        self._expected: dict[int, int] = {}
        self._roster: Roster
        self._context: bytes
        self._routing: Routing
        self._sealed: Rows
        self._tags: Rows
        self._shares: ShareTable
        self._faults: list[Fault] = []
        self._ids: list[int]
        self._shared: Mask
        self._survivors: Mask
        self._sum: Sum | None = None

    @property
    def phase(self) -> Phase:
        """The stage that is being collected, or done, or failed."""
        return self._phase

    def expects(self, client_id: int) -> bool:
        """Whether the present stage waits for the client `client_id`; anyone may advertise."""
        return self._phase is Phase.ADVERTISE or client_id in self._expected

    @property
    def result(self) -> Sum:
        """The sum, once the last stage was closed.

        Raises:
            LocalProtocolError: there is none (yet).
        """
        if self._sum is None:
            raise LocalProtocolError(
                f"there is no sum in phase {self._phase.value}; it is there when the last stage was closed"
            )
        return self._sum

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What the shares so far say about who did wrong; empty before the shares go out."""
        return tuple(self._faults)

    def __repr__(self) -> str:
        return f"Server(phase={self._phase.value}, arrived={len(self._arrived)})"

    __reduce__ = refuse_copies

    def message_for(self, client_id: int) -> bytes:
        """The message that opens the present stage for the client `client_id`; the same bytes whenever asked.

        Raises:
            LocalProtocolError: this client is not part of the present stage, or the round is over.
        """
        if self._phase in (Phase.DONE, Phase.FAILED):
            raise LocalProtocolError(f"no messages go out in phase {self._phase.value}")
        if self._phase is Phase.ADVERTISE:
            return self._broadcast
        if client_id not in self._expected:
            raise LocalProtocolError(f"client {client_id} has no part in stage {self._phase.value}")
        if self._phase is Phase.MASKED_INPUT:
            return self._inbox(self._expected[client_id])
        if self._phase is Phase.UNMASK and self._parameters.is_malicious:
            return self._codec.encode_tags(self._tags.incoming(self._expected[client_id], self._survivors))
        return self._broadcast

    @one_at_a_time
    def receive(self, sender: int, data: bytes) -> None:
        """Take one client's message of the present stage.

        Args:
            sender: id of the client, as the transport authenticated it.
            data: the message.

        Raises:
            RemoteProtocolError: the message is refused; it had no effect and the round goes on.
            LocalProtocolError: another call is under way; hand the message over again after it.
            DuplicateMessage, MalformedMessage, UnexpectedMessage: the refusals that it raises itself.
        """
        if len(data) > MAX_MESSAGE_BYTES:
            raise MalformedMessage(
                f"a message of {len(data)} bytes; no message has more than {MAX_MESSAGE_BYTES}", sender=sender
            )
        kind = kind_of(data, sender=sender)
        following = after(self._table, self._phase, kind, sender=sender)
        if self._phase is not Phase.ADVERTISE and sender not in self._expected:
            raise UnexpectedMessage(
                f"client {sender} has no part in stage {self._phase.value}",
                sender=sender,
                phase=self._phase.value,
            )
        fingerprint = self._fingerprint.encrypt(bytes(12), b"", data)
        if self._arrived.get(sender, fingerprint) != fingerprint:
            raise DuplicateMessage(
                f"client {sender} sent a second, different {kind.name.lower()}",
                sender=sender,
                phase=self._phase.value,
            )
        if sender not in self._arrived:
            self._take(kind, sender, data)
            self._arrived[sender] = fingerprint
            self._phase = following

    @property
    def partial_opening(self) -> tuple[bytes, bytes]:
        """What a `secagg.PartialSum` needs to take masked inputs: the roster message, and U2 as a bitmap.

        Raises:
            LocalProtocolError: the present stage takes no masked inputs.
        """
        if self._phase is not Phase.MASKED_INPUT:
            raise LocalProtocolError(f"no masked inputs are taken in phase {self._phase.value}")
        return self._broadcast, bitmap(self._shared)

    @one_at_a_time
    def receive_partial(self, data: bytes, *, clients: Collection[int] | None = None) -> dict[int, int]:
        """Take many clients' masked inputs as the sum that a part of this server, trusted like it, made of them.

        Args:
            data: what `secagg.PartialSum.encode` gave.
            clients: ids of the clients bound to where it was made, which alone it may hold; any where left out.

        Returns:
            How many bytes each client in it had sent.

        Raises:
            RemoteProtocolError: the sum is refused; it had no effect and the round goes on. A `DuplicateMessage`
                names the clients that came before: the part may make its sum anew without them.
            LocalProtocolError: another call is under way; hand the sum over again after it.
        """
        after(self._table, self._phase, Kind.MASKED_INPUT)
        vectors = self._parameters.vectors
        part = decode_part(data, self._session, vectors, self._routing, self._shared)
        senders = [self._ids[position] for position in part.senders]
        refuse_strays(senders, clients)
        refuse_twice(self._arrived.keys() & set(senders))
        add_vectors(self._totals, part.packed, vectors)
        for position, complaints in zip(part.senders, part.complaints, strict=True):
            self._shares.withhold(position, complaints)
        self._arrived.update(dict.fromkeys(senders, b""))
        return dict.fromkeys(senders, self._codec.masked_input_bytes(self._routing.width - 1))

    @one_at_a_time
    def advance(self) -> None:
        """Close the present stage: whoever has not answered has dropped out.

        Raises:
            TooFewClients: fewer remain than the threshold or the floor; the round is over, nothing released.
            RemoteProtocolError: shares or masks do not fit what was committed to; the round is over.
        """
        phase, following = Phase.FAILED, after(self._table, self._phase, ADVANCE)
        try:
            if self._phase is Phase.ADVERTISE:
                self._close_advertise()
            elif self._phase is Phase.SHARE:
                self._close_share()
            elif self._phase is Phase.MASKED_INPUT:
                self._close_masked_input()
            elif self._phase is Phase.CONSISTENCY:
                self._close_consistency()
            else:
                self._sum = self._unmask()
            phase = following
        finally:
            self._phase = phase
            self._arrived = {}

    def _take(self, kind: Kind, sender: int, data: bytes) -> None:
        if kind is Kind.ADVERTISE:
            self._on_advertise(sender, data)
        elif kind is Kind.SHARE:
            self._on_share(sender, data)
        elif kind is Kind.MASKED_INPUT:
            self._on_masked_input(sender, data)
        elif kind is Kind.CONSISTENCY:
            self._on_consistency(sender, data)
        else:
            self._on_unmask(sender, data)

    def _on_advertise(self, sender: int, data: bytes) -> None:
        publics, signature = self._codec.decode_advertise(data, sender=sender)
        if not 0 <= sender < 2**63 or len(self._adverts) >= self._parameters.clients:
            raise UnexpectedMessage(
                f"client {sender} is one more than the {self._parameters.clients} planned, or has no valid id",
                sender=sender,
            )
        own = self._codec.keys_in(publics)
        require_usable(own, sender)
        if not self._public_keys.isdisjoint(own):
            raise MalformedMessage(f"client {sender} advertises another client's key", sender=sender)
        if self._identities is not None:
            statement = advert_statement(self._session, sender, self._parameters.roster_hash, publics)
            self._identities.verify(sender, signature, statement)
        self._public_keys.update(own)
        self._adverts[sender] = publics + signature

    def _on_share(self, sender: int, data: bytes) -> None:
        position = self._expected[sender]
        neighbours = self._routing.neighbours(position)
        receivers = neighbours[self._seals_for(position, neighbours)].tolist()
        parts = self._codec.decode_share(
            data, neighbours=len(neighbours), edges=len(receivers), sender=sender
        )
        self._commitments[position] = parts.commitments
        self._sealed.put(position, parts.rows)
        self._shares.keep_hashes(position, parts.hashes)
        for turn, receiver in enumerate(receivers):
            self._edges[position, receiver] = parts.edges[turn * EDGE_BYTES : (turn + 1) * EDGE_BYTES]

    def _seals_for(self, position: int, neighbours: Positions) -> Mask:
        """Which neighbours the client at `position` seals an edge for: none without hybrid keys."""
        if not self._parameters.is_hybrid:
            return np.zeros(len(neighbours), np.bool_)
        return edges_sealed(position, neighbours, len(self._ids))

    def _on_masked_input(self, sender: int, data: bytes) -> None:
        position = self._expected[sender]
        neighbours = self._routing.neighbours(position)
        complaints, packed = self._codec.decode_masked_input(data, neighbours=len(neighbours), sender=sender)
        refuse_strange(complaints, self._shared[neighbours], sender)
        add_vectors(self._totals, packed, self._parameters.vectors, sender)
        self._shares.withhold(position, complaints)

    def _on_consistency(self, sender: int, data: bytes) -> None:
        position = self._expected[sender]
        alive = int(np.count_nonzero(self._survivors[self._routing.neighbours(position)]))
        tags = self._codec.decode_consistency(data, neighbours=alive, sender=sender)
        self._tags.put_for(position, tags, self._survivors)

    def _on_unmask(self, sender: int, data: bytes) -> None:
        position = self._expected[sender]
        answer = self._shares.answer(position, self._shared, self._survivors, self._numbers)
        records = self._codec.decode_unmask(data, records=len(answer.slots), sender=sender)
        self._shares.put(position, answer, records)

    def _close_advertise(self) -> None:
        self._require(len(self._adverts), self._parameters.minimum_roster, "advertised clients")
        self._broadcast = self._codec.encode_roster(self._adverts)
        self._roster = self._codec.decode_roster(self._broadcast)
        self._context = context_of(self._session, self._roster.hash)
        holders = holder_table(
            len(self._roster.ids), neighbours=self._parameters.neighbours, seed=ring_seed(self._roster.hash)
        )
        self._require(holders.shape[1], self._parameters.threshold, "share holders")
        self._ids = self._roster.ids.tolist()
        self._routing = Routing(holders)
        self._sealed = Rows(self._routing, width=self._codec.row_bytes, to_itself=False)
        self._shares = ShareTable(
            self._routing,
            ids=self._ids,
            codec=self._codec,
            context=self._context,
            threshold=self._parameters.threshold,
        )
        self._faults = self._shares.faults
        self._expected = {client: position for position, client in enumerate(self._ids)}
        self._adverts, self._public_keys = {}, set()

    def _close_share(self) -> None:
        self._shared = self._those_who_answered("clients that shared")

    def _close_masked_input(self) -> None:
        self._survivors = self._those_who_answered("survivors")
        del self._sealed
        self._broadcast = self._codec.encode_survivors(self._survivors)
        self._numbers = self._rule.revealed(self._parameters, self._shared, self._survivors)
        self._shares.open_slots(1 + len(self._numbers))
        if self._parameters.is_malicious:
            self._tags = Rows(self._routing, width=HASH_BYTES, to_itself=False)

    def _close_consistency(self) -> None:
        self._require(len(self._arrived), self._parameters.threshold, "clients that tagged their sets")
        self._expected = {c: position for c, position in self._expected.items() if c in self._arrived}

    def _those_who_answered(self, what: str) -> Mask:
        """Narrow the expected clients to those that answered; as a set over positions."""
        need = max(self._parameters.threshold, self._parameters.minimum_survivors)
        self._require(len(self._arrived), need, what)
        self._expected = {c: position for c, position in self._expected.items() if c in self._arrived}
        answered = np.zeros(len(self._ids), np.bool_)
        answered[list(self._expected.values())] = True
        return answered

    def _inbox(self, position: int) -> bytes:
        """The sealed rows of every neighbour in U2, for the client at `position`."""
        rows = self._sealed.incoming(position, self._shared)
        hashes = self._shares.hashes_for(position, self._shared)
        sealers = self._routing.neighbours(position).tolist() if self._edges else []
        edges = [
            self._edges[s, position] for s in sealers if self._shared[s] and (s, position) in self._edges
        ]
        return self._codec.encode_inbox(self._shared, rows, hashes, edges)

    def _unmask(self) -> Sum:
        """Recover every seed, take the masks off, look at the check coordinates."""
        need = self._parameters.threshold
        self._require(len(self._arrived), need, "clients that unmask")
        masks = self._self_masks() + self._pairwise_masks()
        count = int(np.count_nonzero(self._survivors))
        totals = {}
        for index, (vector, total) in enumerate(zip(self._parameters.vectors, self._totals, strict=True)):
            bits = vector.modulus_bits
            apply_masks(total, [(key[index], sign) for key, sign in masks], bits=bits, threads=self._threads)
            reduce(total, bits)
            if (total[vector.length :] != count % 2**bits).any():
                raise AuthenticationFailed(f"the masks of {vector.name!r} do not cancel; nothing is released")
            totals[vector.name] = total[: vector.length]
        self._totals = []
        survivors = tuple(self._ids[position] for position in np.flatnonzero(self._survivors).tolist())
        return Sum(totals, survivors, self._revealed())

    def _self_masks(self) -> Masks:
        """Keys of the self mask of everyone in the sum, to take off."""

        def opened(position: int, seed: bytes) -> list[bytes] | None:
            client = self._ids[position]
            if commitment(self._context, client, seed) != self._commitments[position][:HASH_BYTES]:
                return None
            return keys.self_mask_keys(seed, self._context, client, self._fields)

        return [(found, -1) for _, found in self._shares.opened(0, np.flatnonzero(self._survivors), opened)]

    def _revealed(self) -> dict[int, dict[int, bytes]]:
        """The conditional secrets that the rule reveals, each checked against its commitment."""
        alive = np.flatnonzero(self._survivors)
        revealed: dict[int, dict[int, bytes]] = {self._ids[p]: {} for p in alive.tolist()}
        for slot, number in enumerate(self._numbers, start=1):
            opened = partial(self._conditional, number)
            for position, seed in self._shares.opened(slot, alive, opened):
                revealed[self._ids[position]][number] = seed
        return revealed

    def _conditional(self, number: int, position: int, seed: bytes) -> bytes | None:
        """A recovered conditional secret, if it is the committed one."""
        promised = self._commitments[position][number * HASH_BYTES : (number + 1) * HASH_BYTES]
        found = conditional_commitment(self._context, self._ids[position], number, seed)
        return seed if found == promised else None

    def _pairwise_masks(self) -> Masks:
        """Keys of the masks that the sum still holds of those who shared and sent no input."""

        def opened(position: int, seed: bytes) -> MaskKeys | None:
            own = derive_mask_keys(self._parameters, seed, self._session)
            advertised = self._roster.mask_key(position), self._roster.hybrid_mask_key(position)
            return own if own.publics == advertised else None

        masks: Masks = []
        dropped = np.flatnonzero(self._shared & ~self._survivors)
        touching = [p for p in dropped.tolist() if self._survivors[self._routing.neighbours(p)].any()]
        for position, own in self._shares.opened(0, np.array(touching, np.int64), opened):
            neighbours = self._routing.neighbours(position)
            for other in neighbours[self._survivors[neighbours]].tolist():
                masks.append((self._mask_keys(own, position, other), -1 if other < position else 1))
        return masks

    def _mask_keys(self, own: MaskKeys, position: int, other: int) -> list[bytes]:
        """The mask keys of a dropped client, whose keys were recovered, with one that survived."""
        client, them, edge = self._ids[position], self._ids[other], None
        if own.hybrid is not None:
            seals = (position, other) in self._edges
            message = self._edges[(position, other) if seals else (other, position)]
            edge = recovered_edge(own.hybrid, message, self._context, dealer=client, other=them, seals=seals)
        key = self._roster.mask_key(other)
        return keys.mask_keys(own.pair, key, self._context, client, them, self._fields, edge)

    def _require(self, have: int, need: int, what: str) -> None:
        if have < need:
            raise TooFewClients(have, need, what)
