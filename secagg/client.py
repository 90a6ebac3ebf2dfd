"""The client of one round: bytes in, bytes out, one input, one answer of each kind.

Bonawitz et al. 2017, Fig. 4, on the graph of Bell et al. 2020. Use it in this order (`secagg.phases.CLIENT`):

    receive(offer) -> advertise      receive(roster) -> share      receive(inbox) -> None
    mask(inputs) -> masked input     receive(survivors) -> unmask

Invariants:

- for one neighbour it reveals the share of the self mask or the share of the mask key, never both, and
  which one follows from its own record of the sets, not from what it is asked;
- an input leaves only after every ciphertext of the round was tried, and only masked with every neighbour
  in U2, opened or not;
- an identical repeat of a message is ignored (re-send the bytes you kept); anything else that the phase
  does not allow, or that does not verify, ends the round here for good and drops every secret;
- no secret is in a repr, an exception or an attribute that outlives the round.

Not here: single-use records (`secagg.records`), what the server does (`secagg.server`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from secagg import keys, shamir
from secagg.binding import associated_data, commitment, context_of, ring_seed, session_of, vector_fields
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
from secagg.masking import apply_masks
from secagg.messages import Codec, Mask, Roster, decode_offer, kind_of
from secagg.parameters import RoundParameters, Vector
from secagg.phases import CLIENT, MASK, Kind, Phase, after
from secagg.ring import Words, as_words, pack, word_dtype

__all__ = ["Client"]

Positions = npt.NDArray[np.int64]
Inputs = Mapping[str, npt.NDArray[np.unsignedinteger[npt.NBitBase]]]
_SELF_MASK, _MASK_KEY = 0, 1


class _Secrets:
    """Everything that must be gone when the round is over. Lists run over the neighbours, by position."""

    __slots__ = ("channel", "channels", "mask", "mask_keys", "own_row", "rows", "seeds")

    channel: keys.KeyPair
    mask: keys.KeyPair
    seeds: list[bytes]
    channels: list[keys.ChannelKeys]
    mask_keys: list[bytes]
    rows: list[bytes | None]
    own_row: bytes


class _Place:
    """Where this client stands in the roster and on the graph; all public."""

    __slots__ = ("clients", "holders", "neighbours", "own", "own_place", "peers")

    def __init__(self, roster: Roster, own: int, holders: Positions) -> None:
        self.clients = len(roster.ids)
        self.own = own
        self.holders = holders
        self.own_place = int(np.searchsorted(holders, own))
        self.neighbours = np.delete(holders, self.own_place)
        self.peers: list[int] = roster.ids[self.neighbours].tolist()


class Client:
    """One client in one round.

    Guarantee: against a semi-honest server that colludes with at most the planned number of clients, what
    this object returns reveals nothing about its input but sums over at least `minimum_survivors` clients.

    Args:
        parameters: the round as this client's own settings say it must be; an offer that differs is refused.
        client_id: 0..2^63-1.
        entropy: where random bytes come from; the operating system unless a simulation says otherwise.
    """

    def __init__(
        self, parameters: RoundParameters, client_id: int, *, entropy: Entropy = system_entropy
    ) -> None:
        if not 0 <= client_id < 2**63:
            raise ParameterError(f"client id {client_id} is out of range; use 0 to 2^63-1")
        self._parameters = parameters
        self._id = int(client_id)
        self._entropy = entropy
        self._phase = Phase.NEW
        self._table = CLIENT[parameters.adversary]
        self._seen: dict[Kind, bytes] = {}
        self._secrets: _Secrets | None = _Secrets()
        self._codec: Codec
        self._session: bytes
        self._context: bytes
        self._place: _Place
        self._shared: Mask

    @property
    def phase(self) -> Phase:
        """Where this client stands."""
        return self._phase

    @property
    def client_id(self) -> int:
        """This client's id."""
        return self._id

    def __repr__(self) -> str:
        return f"Client(id={self._id}, phase={self._phase.value})"

    def __reduce__(self) -> NoReturn:
        raise LocalProtocolError(
            "a client of a live round cannot be copied or pickled: it would answer twice"
        )

    def receive(self, data: bytes) -> bytes | None:
        """Take one message of the server and return the answer, if there is one now.

        Args:
            data: the message.

        Returns:
            The bytes to send; None after an inbox (call `mask` next) or an identical repeat.

        Raises:
            RemoteProtocolError: the message is not acceptable; this client has left the round.
            TooFewClients: too few clients remain for this one; it has left the round.
        """
        answer, following = None, Phase.FAILED
        try:
            kind = kind_of(data)
            digest = hashlib.sha256(data).digest()
            if kind in self._seen:
                following = self._repeat(kind, digest)
            else:
                following = after(self._table, self._phase, kind)
                answer = self._handle(kind, data)
                self._seen[kind] = digest
        finally:
            self._enter(following)
        return answer

    def mask(self, inputs: Inputs) -> bytes:
        """Mask this client's input and return the masked-input message; once only.

        Args:
            inputs: one unsigned integer array per vector of the round, of its length, values below 2^bits.

        Returns:
            The bytes to send.

        Raises:
            LocalProtocolError: no inbox arrived yet, or an input was masked before.
            ParameterError: the arrays do not fit the round; nothing was masked.
        """
        phase, following = Phase.FAILED, after(self._table, self._phase, MASK)
        try:
            message = self._mask(inputs, self._live_secrets())
            phase = following
        finally:
            self._enter(phase)
        return message

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        if phase in (Phase.DONE, Phase.FAILED):
            self._secrets = None

    def _repeat(self, kind: Kind, digest: bytes) -> Phase:
        if self._seen[kind] != digest:
            raise DuplicateMessage(
                f"a second, different {kind.name.lower()} arrived", phase=self._phase.value
            )
        return self._phase

    def _live_secrets(self) -> _Secrets:
        if self._secrets is None:
            raise LocalProtocolError("this round is over")
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
        return self._on_survivors(data, secrets)

    def _on_offer(self, data: bytes, secrets: _Secrets) -> bytes:
        claimed, nonce, canonical = decode_offer(data)
        if canonical != self._parameters.canonical:
            fields = ", ".join(self._parameters.differences(canonical))
            raise RefusedParameters(f"the offer differs from this client's own parameters in: {fields}")
        self._session = session_of(self._parameters, nonce)
        if claimed != self._session:
            raise RefusedParameters("the offer names another session than its own parameters give")
        self._codec = Codec(self._parameters, self._session)
        secrets.channel = keys.new_channel_pair(self._entropy(keys.KEY_BYTES))
        secrets.seeds = [self._entropy(keys.KEY_BYTES), self._entropy(keys.KEY_BYTES)]
        secrets.mask = keys.derive_mask_pair(secrets.seeds[_MASK_KEY], self._session)
        return self._codec.encode_advertise(secrets.channel.public, secrets.mask.public)

    def _on_roster(self, data: bytes, secrets: _Secrets) -> bytes:
        roster = self._codec.decode_roster(data)
        own = self._own_position(roster, secrets)
        self._context = context_of(self._session, roster.hash)
        holders = holder_positions(
            len(roster.ids), own, neighbours=self._parameters.neighbours, seed=ring_seed(roster.hash)
        )
        self._require(len(holders), self._parameters.threshold, "share holders")
        self._place = place = _Place(roster, own, holders)
        secrets.channels = []
        secrets.mask_keys = []
        for position, peer in zip(place.neighbours.tolist(), place.peers, strict=True):
            key = roster.channel_key(position)
            secrets.channels.append(keys.channel_keys(secrets.channel, key, self._context, self._id, peer))
            secrets.mask_keys.append(roster.mask_key(position))
        return self._deal(secrets)

    def _own_position(self, roster: Roster, secrets: _Secrets) -> int:
        """Refuse a roster that is too small, repeats a key, or lacks this client; return its position."""
        ids = roster.ids.tolist()
        self._require(len(ids), self._parameters.minimum_roster, "advertised clients")
        keys.refuse_unsound(roster.channel_keys + roster.mask_keys, ids + ids)
        own = int(np.searchsorted(roster.ids, self._id))
        if (
            own == len(ids)
            or ids[own] != self._id
            or roster.channel_key(own) != secrets.channel.public
            or roster.mask_key(own) != secrets.mask.public
        ):
            raise InconsistentSets("the roster does not hold this client with the keys it advertised")
        return own

    def _deal(self, secrets: _Secrets) -> bytes:
        """Share the seeds, seal one row for each neighbour, keep the own row."""
        dealt = shamir.share(
            secrets.seeds,
            threshold=self._parameters.threshold,
            shares=len(self._place.holders),
            entropy=self._entropy,
        )
        block = dealt.swapaxes(0, 1).astype("<u2").tobytes()
        width = self._codec.plain_row_bytes
        rows = [block[start : start + width] for start in range(0, len(block), width)]
        secrets.own_row = rows.pop(self._place.own_place)
        sealed = [
            keys.seal(channel.seal, row, associated_data(self._context, self._id, peer))
            for row, channel, peer in zip(rows, secrets.channels, self._place.peers, strict=True)
        ]
        fixed = commitment("b", self._context, self._id, secrets.seeds[_SELF_MASK])
        return self._codec.encode_share(fixed, sealed)

    def _on_inbox(self, data: bytes, secrets: _Secrets) -> None:
        place = self._place
        self._shared, sealed = self._codec.decode_inbox(
            data, clients=place.clients, neighbours=place.neighbours
        )
        if not self._shared[place.own]:
            raise InconsistentSets("this client sent its shares and is missing from the set of those who did")
        held = int(np.count_nonzero(self._shared[place.holders]))
        self._require(held, self._parameters.threshold, "share holders")
        width = self._codec.row_bytes
        secrets.rows = [None] * len(place.peers)
        for turn, index in enumerate(np.flatnonzero(self._shared[place.neighbours]).tolist()):
            row = sealed[turn * width : (turn + 1) * width]
            secrets.rows[index] = self._open(row, secrets.channels[index], place.peers[index])
        if all(row is None for row in secrets.rows):
            raise AuthenticationFailed("nothing opened: the server showed the others another round")

    def _open(self, sealed: memoryview, channel: keys.ChannelKeys, peer: int) -> bytes | None:
        """The shares in a sealed row; None for one that does not open or holds no shares."""
        try:
            row = keys.open_sealed(channel.open, sealed, associated_data(self._context, peer, self._id))
        except AuthenticationFailed:
            return None
        return row if self._codec.holds_shares(row) else None

    def _mask(self, inputs: Inputs, secrets: _Secrets) -> bytes:
        vectors = self._parameters.vectors
        if set(inputs) != {vector.name for vector in vectors}:
            raise ParameterError(f"the inputs are named {sorted(inputs)}; give {[v.name for v in vectors]}")
        totals = [_with_checks(inputs[vector.name], vector) for vector in vectors]
        masks = self._masks(secrets)
        packed = []
        for index, (vector, total) in enumerate(zip(vectors, totals, strict=True)):
            apply_masks(total, [(key[index], sign) for key, sign in masks], bits=vector.modulus_bits)
            packed.append(pack(total, vector.modulus_bits))
        shared = self._shared[self._place.neighbours]
        complaints = shared & np.array([row is None for row in secrets.rows])
        return self._codec.encode_masked_input(complaints, packed)

    def _masks(self, secrets: _Secrets) -> list[tuple[list[bytes], int]]:
        """Keys and sign of the self mask and of the mask with every neighbour in U2, opened or not."""
        fields = [vector_fields(index, vector) for index, vector in enumerate(self._parameters.vectors)]
        masks = [(keys.self_mask_keys(secrets.seeds[_SELF_MASK], self._context, self._id, fields), 1)]
        for index in np.flatnonzero(self._shared[self._place.neighbours]).tolist():
            peer = self._place.peers[index]
            theirs = secrets.mask_keys[index]
            agreed = keys.mask_keys(secrets.mask, theirs, self._context, self._id, peer, fields)
            masks.append((agreed, 1 if self._id < peer else -1))
        return masks

    def _on_survivors(self, data: bytes, secrets: _Secrets) -> bytes:
        place = self._place
        survivors = self._codec.decode_survivors(data, clients=place.clients)
        if (survivors & ~self._shared).any() or not survivors[place.own]:
            raise InconsistentSets("the survivors are not a part of those who shared, with this client")
        total = int(np.count_nonzero(survivors))
        self._require(total, self._parameters.minimum_survivors, "survivors")
        held = int(np.count_nonzero(survivors[place.holders]))
        self._require(held, self._parameters.threshold, "share holders")
        rows = [*secrets.rows[: place.own_place], secrets.own_row, *secrets.rows[place.own_place :]]
        records = [
            self._codec.record(row, _SELF_MASK if survives else _MASK_KEY)
            for row, survives in zip(rows, survivors[place.holders].tolist(), strict=True)
            if row is not None
        ]
        return self._codec.encode_unmask(records)

    def _require(self, have: int, need: int, what: str) -> None:
        if have < need:
            raise TooFewClients(have, need, what)


def _with_checks(values: npt.ArrayLike, vector: Vector) -> Words:
    """The values followed by the check coordinates, as fresh words."""
    if np.shape(values) != (vector.length,):
        raise ParameterError(
            f"the input {vector.name!r} has shape {np.shape(values)}; the round takes ({vector.length},)"
        )
    checks = np.ones(vector.checks, word_dtype(vector.modulus_bits))
    return np.concatenate([as_words(values, vector.modulus_bits), checks])
