"""The client of one round: bytes in, bytes out, one input, one answer of each kind.

Bonawitz et al. 2017, Fig. 4, on the graph of Bell et al. 2020. Use it in this order (`secagg.phases.CLIENT`;
the line in brackets in malicious mode only):

    receive(offer) -> advertise      receive(roster) -> share      receive(inbox) -> None
    mask(inputs) -> masked input     [receive(survivors) -> consistency]
    receive(survivors or tags) -> unmask

Invariants:

- for one neighbour it reveals the share of the self mask or the share of the mask key, never both, and
  which one follows from its own record of the sets, not from what it is asked;
- an input leaves only after every ciphertext of the round was tried and the single-use record is on disk,
  and only masked with every neighbour in U2, opened or not;
- in malicious mode no share leaves before `threshold` holders were heard to have seen the same U2 and U3;
- an identical repeat of a message is ignored (re-send the bytes you kept); anything else that the phase
  does not allow, or that does not verify, ends the round here for good and drops every secret;
- one call at a time: a second one from another thread is refused without effect;
- no secret is in a repr, an exception or an attribute that outlives the round; a copy, a pickle or a forked
  child of a live client is refused.

Not here: what single use means on disk (`secagg.records`), what the server does (`secagg.server`).
"""

from __future__ import annotations

import hashlib
import os
import threading

import numpy as np

from secagg.agreement import Pairs, check_publics, edges_sealed, new_key_set
from secagg.binding import (
    advert_statement,
    commitment,
    conditional_commitment,
    consistency_statement,
    context_of,
    ring_seed,
    session_of,
    sets_of,
    vector_fields,
)
from secagg.client_state import Inputs, Place, Secrets, SingleUse, require_trust, with_checks
from secagg.conditional import RevealRule, checked_rule
from secagg.dealing import CONDITIONAL, MASK_KEY, SELF_MASK, deal, hash_row, hash_rows
from secagg.entropy import Entropy, system_entropy
from secagg.errors import (
    AuthenticationFailed,
    DuplicateMessage,
    InconsistentSets,
    LocalProtocolError,
    ParameterError,
    RefusedParameters,
    TooFewClients,
)
from secagg.graph import holder_positions
from secagg.hybrid import EDGE_BYTES
from secagg.identities import Identity, IdentityRoster
from secagg.keys import self_mask_keys
from secagg.masking import apply_masks
from secagg.messages import Codec, Mask, Roster, bitmap, decode_offer, kind_of
from secagg.parameters import RoundParameters
from secagg.phases import CLIENT, MASK, Kind, Phase, after
from secagg.ring import pack
from secagg.secrecy import refuse_copies
from secagg.shamir import SECRET_BYTES
from secagg.turns import one_at_a_time

__all__ = ["Client"]


class Client:
    """One client in one round.

    Guarantee: against a semi-honest server that colludes with at most the planned number of clients, what
    this object returns reveals nothing about its input but sums over at least `minimum_survivors` clients.

    Args:
        parameters: the round as this client's own settings say it must be; an offer that differs is refused.
        client_id: 0..2^63-1.
        entropy: where random bytes come from; the operating system unless a simulation says otherwise.
        identity: malicious mode: this client's signing key.
        identities: malicious mode: the trusted roster; its hash is in the parameters.
        single_use: where the use of the input is recorded; None only where nothing outlives the process.
        rule: the rule of the conditional secrets, if the round has any.

    Raises:
        ParameterError: an id, identity, roster or rule that does not fit the parameters.
    """

    def __init__(
        self,
        parameters: RoundParameters,
        client_id: int,
        *,
        entropy: Entropy = system_entropy,
        identity: Identity | None = None,
        identities: IdentityRoster | None = None,
        single_use: SingleUse | None = None,
        rule: RevealRule | None = None,
    ) -> None:
        if not 0 <= client_id < 2**63:
            raise ParameterError(f"client id {client_id} is out of range; use 0 to 2^63-1")
        if parameters.is_malicious:
            require_trust(parameters, client_id, identity, identities)
        self._parameters = parameters
        self._id = int(client_id)
        self._identity = identity
        self._identities = identities
        self._single_use = single_use
        self._rule = checked_rule(parameters, rule)
        self._process = os.getpid()
        self._entropy = entropy
        self._busy = threading.Lock()
        self._phase = Phase.NEW
        self._table = CLIENT[parameters.adversary]
        self._seen: dict[Kind, bytes] = {}
        self._secrets: Secrets | None = Secrets()
        self._codec: Codec
        self._session: bytes
        self._context: bytes
        self._place: Place
        self._shared: Mask
        self._survivors: Mask

    @property
    def phase(self) -> Phase:
        """Where this client stands."""
        return self._phase

    @property
    def client_id(self) -> int:
        """This client's id."""
        return self._id

    @property
    def conditional_secrets(self) -> tuple[bytes, ...]:
        """The conditional secrets 1..m of this client, from its shares on until its input is masked.

        Raises:
            LocalProtocolError: there are none now.
        """
        if self._phase is not Phase.READY:
            raise LocalProtocolError(
                f"conditional secrets are not to be had in phase {self._phase.value}; take them in phase"
                f" {Phase.READY.value}"
            )
        return tuple(self._live_secrets().seeds[CONDITIONAL:])

    def __repr__(self) -> str:
        return f"Client(id={self._id}, phase={self._phase.value})"

    __reduce__ = refuse_copies

    @one_at_a_time
    def receive(self, data: bytes) -> bytes | None:
        """Take one message of the server and return the answer, if there is one now.

        Args:
            data: the message.

        Returns:
            The bytes to send; None after an inbox (call `mask` next) or an identical repeat.

        Raises:
            RemoteProtocolError: the message is not acceptable; this client has left the round.
            LocalProtocolError: another call is under way; nothing happened.
            TooFewClients: too few clients remain for this one; it has left the round.
        """
        answer, phase = None, Phase.FAILED
        try:
            self._refuse_forks()
            kind = kind_of(data)
            digest = hashlib.sha256(data).digest()
            if kind in self._seen:
                self._refuse_another(kind, digest)
                phase = self._phase
            else:
                following = after(self._table, self._phase, kind)
                answer = self._handle(kind, data)
                self._seen[kind] = digest
                phase = following
        finally:
            self._enter(phase)
        return answer

    @one_at_a_time
    def mask(self, inputs: Inputs) -> bytes:
        """Mask this client's input and return the masked-input message; once only.

        Args:
            inputs: one unsigned integer array per vector of the round, of its length, values below 2^bits.

        Returns:
            The bytes to send.

        Raises:
            LocalProtocolError: no inbox arrived yet, an input was masked before, or another call is under way.
            ParameterError: the arrays do not fit the round; nothing was masked.
            RecordError: the input was used before, or its use cannot be recorded; nothing was masked.
        """
        phase, following = Phase.FAILED, after(self._table, self._phase, MASK)
        try:
            self._refuse_forks()
            message = self._mask(inputs, self._live_secrets())
            phase = following
        finally:
            self._enter(phase)
        return message

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        if phase in (Phase.DONE, Phase.FAILED):
            self._secrets = None

    def _refuse_another(self, kind: Kind, digest: bytes) -> None:
        if self._seen[kind] != digest:
            raise DuplicateMessage(
                f"a second, different {kind.name.lower()} arrived", phase=self._phase.value
            )

    def _refuse_forks(self) -> None:
        if os.getpid() != self._process:
            raise LocalProtocolError(
                "this client was forked in mid-round; only the process that made it may go on"
            )

    def _live_secrets(self) -> Secrets:
        if self._secrets is None:
            raise LocalProtocolError("this client's round is over; make another client for the next one")
        return self._secrets

    def _handle(self, kind: Kind, data: bytes) -> bytes | None:
        secrets = self._live_secrets()
        if kind is Kind.OFFER:
            return self._on_offer(data, secrets)
        if kind is Kind.ROSTER:
            return self._on_roster(data, secrets)
        if kind is Kind.INBOX:
            self._on_inbox(data, secrets)
            return None
        if kind is Kind.SURVIVORS:
            return self._on_survivors(data, secrets)
        return self._on_tags(data, secrets)

    def _on_offer(self, data: bytes, secrets: Secrets) -> bytes:
        claimed, nonce, canonical = decode_offer(data)
        if canonical != self._parameters.canonical:
            fields = ", ".join(self._parameters.differences(canonical))
            raise RefusedParameters(f"the offer differs from this client's own parameters in: {fields}")
        self._session = session_of(self._parameters, nonce)
        if claimed != self._session:
            raise RefusedParameters("the offer names another session than its own parameters give")
        self._codec = Codec(self._parameters, self._session)
        count = 2 + self._parameters.conditional_secrets
        secrets.seeds = [self._entropy(SECRET_BYTES) for _ in range(count)]
        secrets.keys = new_key_set(self._parameters, secrets.seeds[MASK_KEY], self._session, self._entropy)
        publics = secrets.keys.publics
        signature = b"" if self._identity is None else self._identity.sign(self._statement(self._id, publics))
        return self._codec.encode_advertise(publics, signature)

    def _statement(self, client_id: int, publics: bytes) -> bytes:
        return advert_statement(self._session, client_id, self._parameters.roster_hash, publics)

    def _on_roster(self, data: bytes, secrets: Secrets) -> bytes:
        roster = self._codec.decode_roster(data)
        own = self._own_position(roster, secrets)
        self._context = context_of(self._session, roster.hash)
        holders = holder_positions(
            len(roster.ids), own, neighbours=self._parameters.neighbours, seed=ring_seed(roster.hash)
        )
        self._require(len(holders), self._parameters.threshold, "share holders")
        self._place = place = Place(roster, own, holders)
        if self._parameters.is_hybrid:
            place.sealers = ~edges_sealed(own, place.neighbours, place.clients)
        if self._identities is not None:
            self._check_identities(roster, self._identities)
        secrets.pairs = Pairs(
            secrets.keys, self._parameters, self._context, self._id, roster, own, place.neighbours
        )
        return self._deal(secrets)

    def _check_identities(self, roster: Roster, identities: IdentityRoster) -> None:
        """Refuse strangers anywhere, and neighbours whose signature does not verify."""
        if strangers := set(roster.ids.tolist()) - identities.keys():
            raise InconsistentSets(f"client {min(strangers)} is not in the trusted roster")
        for position, peer in zip(self._place.neighbours.tolist(), self._place.peers, strict=True):
            statement = self._statement(peer, roster.publics(position))
            identities.verify(peer, roster.signature(position), statement)

    def _own_position(self, roster: Roster, secrets: Secrets) -> int:
        """Refuse a roster that is too small, repeats a key, or lacks this client; return its position."""
        clients = len(roster.ids)
        self._require(clients, self._parameters.minimum_roster, "advertised clients")
        check_publics(roster)
        own = int(np.searchsorted(roster.ids, self._id))
        if own == clients or roster.ids[own] != self._id or roster.publics(own) != secrets.keys.publics:
            raise InconsistentSets("the roster does not hold this client with the keys it advertised")
        return own

    def _rows(self, secrets: Secrets) -> list[bytes]:
        """One row of shares for each holder."""
        return deal(
            secrets.seeds,
            self._codec,
            threshold=self._parameters.threshold,
            holders=len(self._place.holders),
            entropy=self._entropy,
        )

    def _deal(self, secrets: Secrets) -> bytes:
        """Share the seeds, seal one row for each neighbour, keep the own row."""
        place, codec = self._place, self._codec
        rows = self._rows(secrets)
        holders = [*place.peers[: place.own_place], self._id, *place.peers[place.own_place :]]
        hashes = hash_rows(rows, codec, self._context, self._id, holders)
        secrets.own_row = rows.pop(place.own_place)
        sealed = [secrets.pairs.seal_row(index, row) for index, row in enumerate(rows)]
        commitments = [commitment(self._context, self._id, secrets.seeds[SELF_MASK])]
        for number, seed in enumerate(secrets.seeds[CONDITIONAL:], start=1):
            commitments.append(conditional_commitment(self._context, self._id, number, seed))
        return codec.encode_share(commitments, sealed, hashes, secrets.pairs.edge_messages)

    def _on_inbox(self, data: bytes, secrets: Secrets) -> None:
        place = self._place
        inbox = self._codec.decode_inbox(
            data, clients=place.clients, neighbours=place.neighbours, sealers=place.sealers
        )
        self._shared = inbox.shared
        if not self._shared[place.own]:
            raise InconsistentSets("this client sent its shares and is missing from the set of those who did")
        held = int(np.count_nonzero(self._shared[place.holders]))
        self._require(held, self._parameters.threshold, "share holders")
        present = self._shared[place.neighbours]
        edge_of = np.cumsum(present & place.sealers) - 1
        indices: list[int] = np.flatnonzero(present).tolist()
        opened, sealers = [], place.sealers.tolist()
        for turn, index in enumerate(indices):
            edge = _piece(inbox.edges, EDGE_BYTES, edge_of[index]) if sealers[index] else b""
            sealed = _piece(inbox.rows, self._codec.row_bytes, turn)
            opened.append(self._open(index, sealed, bytes(edge), secrets.pairs))
        secrets.rows = [None] * len(place.peers)
        good = self._codec.holding_shares(opened)
        for turn, (index, row) in enumerate(zip(indices, opened, strict=True)):
            if row is not None and good[turn]:
                secrets.rows[index] = self._as_promised(row, place.peers[index], inbox.hashes, turn)
        if all(row is None for row in secrets.rows):
            raise AuthenticationFailed("nothing opened: the server showed the others another round")

    def _open(self, index: int, sealed: memoryview, edge: bytes, pairs: Pairs) -> bytes | None:
        """What a neighbour sealed for this client; None for a row that does not open.

        Raises:
            AuthenticationFailed: the neighbour's edge key is due and cannot be trusted.
        """
        peer = self._place.peers[index]
        try:
            row = pairs.open_row(index, sealed, edge)
        except AuthenticationFailed:
            row = None
        if not pairs.has_edge(index):
            raise AuthenticationFailed(f"client {peer} sealed no edge key that can be trusted", sender=peer)
        return row

    def _as_promised(self, row: bytes, dealer: int, hashes: memoryview, turn: int) -> bytes | None:
        """A dealer's row if its hashes are those that the dealer gave the server, else None."""
        if not self._parameters.is_malicious:
            return row
        promised = _piece(hashes, self._codec.hash_row_bytes, turn)
        return row if hash_row(row, self._codec, self._context, dealer, self._id) == promised else None

    def _mask(self, inputs: Inputs, secrets: Secrets) -> bytes:
        vectors = self._parameters.vectors
        if set(inputs) != {vector.name for vector in vectors}:
            raise ParameterError(f"the inputs are named {sorted(inputs)}; give {[v.name for v in vectors]}")
        totals = [with_checks(inputs[vector.name], vector) for vector in vectors]
        if self._single_use is not None:
            self._single_use.claim(task=self._parameters.task, round=self._parameters.round)
        masks = self._masks(secrets)
        secrets.drop_all_but_shares()
        packed = []
        for index, (vector, total) in enumerate(zip(vectors, totals, strict=True)):
            apply_masks(total, [(key[index], sign) for key, sign in masks], bits=vector.modulus_bits)
            packed.append(pack(total, vector.modulus_bits))
        shared = self._shared[self._place.neighbours]
        complaints = shared & np.array([row is None for row in secrets.rows])
        return self._codec.encode_masked_input(complaints, packed)

    def _masks(self, secrets: Secrets) -> list[tuple[list[bytes], int]]:
        """Keys and sign of the self mask and of the mask with every neighbour in U2, opened or not."""
        fields = [vector_fields(index, vector) for index, vector in enumerate(self._parameters.vectors)]
        masks = [(self_mask_keys(secrets.seeds[SELF_MASK], self._context, self._id, fields), 1)]
        for index in np.flatnonzero(self._shared[self._place.neighbours]).tolist():
            sign = 1 if self._id < self._place.peers[index] else -1
            masks.append((secrets.pairs.mask_keys(index, fields), sign))
        return masks

    def _on_survivors(self, data: bytes, secrets: Secrets) -> bytes:
        place = self._place
        survivors = self._codec.decode_survivors(data, clients=place.clients)
        if (survivors & ~self._shared).any() or not survivors[place.own]:
            raise InconsistentSets("the survivors are not a part of those who shared, with this client")
        total = int(np.count_nonzero(survivors))
        self._require(total, self._parameters.minimum_survivors, "survivors")
        held = int(np.count_nonzero(survivors[place.holders]))
        self._require(held, self._parameters.threshold, "share holders")
        self._survivors = survivors
        return self._tag(secrets) if self._parameters.is_malicious else self._unmask(secrets)

    def _surviving_neighbours(self) -> list[int]:
        """Indices into the neighbour lists of those in U3."""
        indices: list[int] = np.flatnonzero(self._survivors[self._place.neighbours]).tolist()
        return indices

    def _tag(self, secrets: Secrets) -> bytes:
        """Tell every neighbour in U3, under the key of that direction, which U2 and U3 this client saw."""
        sets = sets_of(bitmap(self._shared), bitmap(self._survivors))
        tags = []
        for index in self._surviving_neighbours():
            statement = consistency_statement(self._context, self._id, self._place.peers[index], sets)
            tags.append(secrets.pairs.sign_to(index, statement))
        return self._codec.encode_consistency(tags)

    def _on_tags(self, data: bytes, secrets: Secrets) -> bytes:
        """Count the holders that saw the same sets, this client included; a bad tag is a missing tag."""
        indices = self._surviving_neighbours()
        tags = self._codec.decode_tags(data, neighbours=len(indices))
        sets = sets_of(bitmap(self._shared), bitmap(self._survivors))
        valid = 1
        for index, tag in zip(indices, tags, strict=True):
            statement = consistency_statement(self._context, self._place.peers[index], self._id, sets)
            valid += secrets.pairs.is_from(index, statement, tag)
        self._require(valid, self._parameters.threshold, "share holders that saw the same sets")
        return self._unmask(secrets)

    def _unmask(self, secrets: Secrets) -> bytes:
        """The one record due for every dealer whose shares this client holds; then the conditional ones."""
        place, codec = self._place, self._codec
        numbers = self._rule.revealed(self._parameters, self._shared, self._survivors)
        rows = [*secrets.rows[: place.own_place], secrets.own_row, *secrets.rows[place.own_place :]]
        held = [
            (row, survives)
            for row, survives in zip(rows, self._survivors[place.holders].tolist(), strict=True)
            if row is not None
        ]
        records = [codec.record(row, SELF_MASK if survives else MASK_KEY) for row, survives in held]
        for number in numbers:
            index = CONDITIONAL + number - 1
            records.extend(codec.record(row, index) for row, survives in held if survives)
        return codec.encode_unmask(records)

    def _require(self, have: int, need: int, what: str) -> None:
        if have < need:
            raise TooFewClients(have, need, what)


def _piece(block: memoryview, width: int, turn: int) -> memoryview:
    """The `turn`-th of the equally wide pieces of a block."""
    return block[turn * width : (turn + 1) * width]
