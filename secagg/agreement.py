"""All key agreement of one client: its key set, and what it shares with every neighbour.

Under "x25519" a pair has an X25519 channel secret and an X25519 mask secret. Under "x25519-mlkem768" every
classical step stays (so authenticity is classical), and confidentiality is added: each pair also has an *edge
key*, sealed by one end to the other's hybrid mask key, that goes into its mask keys; and rows of shares are
sealed to the holder's hybrid channel key inside the classical seal. See `secagg.hybrid` for the pieces.

- The edge of two clients is sealed by the clockwise end of their roster positions (`secagg.hybrid.seals`).
- The sealer's row of shares has the ciphertext's hash and the confirmation in its associated data, so an edge
  counts only when that row opens; a client that is owed an edge and cannot trust it leaves before its input.
- A recovered mask seed gives every mask key of its owner back, whichever end sealed the edge.

Not here: the byte layout (`secagg.messages`), what is dealt in a row (`secagg.dealing`).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from secagg import hybrid, keys
from secagg.binding import associated_data
from secagg.entropy import Entropy
from secagg.errors import AuthenticationFailed, MalformedMessage
from secagg.graph import Positions
from secagg.messages import Mask, Roster
from secagg.parameters import RoundParameters
from secagg.secrecy import hidden, refuse_copies

__all__ = [
    "KeySet",
    "MaskKeys",
    "Pairs",
    "check_publics",
    "derive_mask_keys",
    "edges_sealed",
    "new_key_set",
    "recovered_edge",
    "require_usable",
]


class MaskKeys(NamedTuple):
    """The keys that follow from a mask seed.

    Attributes:
        pair: the X25519 mask key.
        hybrid: the hybrid mask key and the edge seed; None under "x25519".
    """

    pair: keys.KeyPair
    hybrid: hybrid.HybridMaskKeys | None

    @property
    def publics(self) -> tuple[bytes, bytes]:
        """The public mask keys: X25519, hybrid (empty under "x25519")."""
        return self.pair.public, b"" if self.hybrid is None else self.hybrid.pair.public

    def __repr__(self) -> str:
        return hidden(self)

    def __reduce__(self) -> NoReturn:
        refuse_copies(self)


class KeySet(NamedTuple):
    """All keys of one client in one round.

    Attributes:
        channel: the X25519 channel key, never shared.
        hybrid_channel: the hybrid channel key, never shared; None under "x25519".
        masks: the keys that follow from the shared mask seed.
    """

    channel: keys.KeyPair
    hybrid_channel: hybrid.HybridPair | None
    masks: MaskKeys

    @property
    def publics(self) -> bytes:
        """All public keys as advertised: X25519 channel, X25519 mask, hybrid channel, hybrid mask."""
        channel = b"" if self.hybrid_channel is None else self.hybrid_channel.public
        mask, hybrid_mask = self.masks.publics
        return self.channel.public + mask + channel + hybrid_mask

    def __repr__(self) -> str:
        return hidden(self)

    def __reduce__(self) -> NoReturn:
        refuse_copies(self)


def new_key_set(parameters: RoundParameters, mask_seed: bytes, session: bytes, entropy: Entropy) -> KeySet:
    """Make a client's keys: the channel's from fresh randomness, the masks' from the seed that is shared."""
    channel = keys.new_channel_pair(entropy(keys.KEY_BYTES))
    hybrid_channel = hybrid.hybrid_pair(entropy(64), entropy(32)) if parameters.is_hybrid else None
    return KeySet(channel, hybrid_channel, derive_mask_keys(parameters, mask_seed, session))


def derive_mask_keys(parameters: RoundParameters, mask_seed: bytes, session: bytes) -> MaskKeys:
    """Derive what follows from a mask seed; also what the server does on recovery."""
    pair = keys.derive_mask_pair(mask_seed, session)
    return MaskKeys(pair, hybrid.derive_mask_keys(mask_seed, session) if parameters.is_hybrid else None)


def edges_sealed(by: int, neighbours: Positions, clients: int) -> Mask:
    """Which of a client's neighbours it seals an edge for; the others seal one for it."""
    return np.array([hybrid.seals(by, other, clients) for other in neighbours.tolist()], np.bool_)


def check_publics(roster: Roster) -> None:
    """Refuse unsound X25519 keys and X25519 halves, and any key or half that appears twice.

    Raises:
        MalformedMessage: names an owner.
    """
    keys.refuse_unsound(roster.x25519_keys, roster.ids)
    seen: set[bytes] = set()
    for half, owner in zip(roster.mlkem_keys, roster.ids.tolist() * 2, strict=False):
        if half in seen:
            raise MalformedMessage("a public key appears twice", sender=owner)
        seen.add(half)


def require_usable(publics: Sequence[bytes], owner: int) -> None:
    """Refuse one client's keys where its neighbours would not use them: unsound, one twice, or no hybrid keys.

    Args:
        publics: the client's keys and halves, as `secagg.messages.Codec.keys_in` cuts them.
        owner: the client.

    Raises:
        MalformedMessage: names the owner.
    """
    classical = [public for public in publics if len(public) == keys.KEY_BYTES]
    keys.refuse_unsound(b"".join(classical), [owner])
    if len(set(publics)) != len(publics):
        raise MalformedMessage("a public key appears twice", sender=owner)
    for start in range(2, len(publics), 2):
        hybrid.seal_inner(b"", publics[start] + publics[start + 1], b"", owner, owner)


def recovered_edge(
    own: hybrid.HybridMaskKeys, message: bytes, context: bytes, *, dealer: int, other: int, seals: bool
) -> hybrid.Edge:
    """The edge key of a dropped client's edge, from its recovered keys and the sealed edge.

    Args:
        own: the dropped client's keys.
        message: what the sealing end sent, ciphertext and confirmation.
        context: context of the round.
        dealer: the dropped client.
        other: the other end.
        seals: whether the dropped client is the sealing end.

    Raises:
        AuthenticationFailed: the sealing end did not seal what it confirms.
    """
    if not seals:
        return hybrid.edge_of(hybrid.open_edge(own.pair, message, context, other, dealer), message)
    key = hybrid.edge_key(own.edge_seed, context, other)
    if hybrid.confirmation(key, context, dealer, other) != hybrid.edge_binding(message)[-32:]:
        raise AuthenticationFailed(f"client {dealer} confirmed another edge key than its own", sender=dealer)
    return hybrid.edge_of(key, message)


class Pairs:
    """What one client shares with each of its neighbours, by the neighbour's index.

    Args:
        own: this client's keys.
        parameters: the round.
        context: its context.
        me: this client's id.
        roster: the roster.
        own_position: this client's position in it.
        neighbours: the neighbours' positions, ascending.

    Raises:
        MalformedMessage: a neighbour's key is of low order or not valid.
    """

    def __init__(
        self,
        own: KeySet,
        parameters: RoundParameters,
        context: bytes,
        me: int,
        roster: Roster,
        own_position: int,
        neighbours: Positions,
    ) -> None:
        self._own = own
        self._context = context
        self._me = me
        self._salt = keys.salt_of(context)
        self._peers: list[int] = roster.ids[neighbours].tolist()
        positions: list[int] = neighbours.tolist()
        self._mask_publics = roster.mask_keys(neighbours)
        self._seal_keys: list[tuple[bytes, bytes]] = []
        self._tag_keys: list[tuple[bytes, bytes]] = []
        mine = own.channel.public
        for theirs, peer in zip(roster.channel_keys(neighbours), self._peers, strict=True):
            root = keys.channel_root(own.channel, theirs, self._salt, peer)
            self._seal_keys.append(keys.directional("seal", root, mine, theirs, me=me, them=peer))
            if parameters.is_malicious:
                self._tag_keys.append(keys.directional("tag", root, mine, theirs, me=me, them=peer))
        self._edges: dict[int, hybrid.Edge] = {}
        self._edge_messages: dict[int, bytes] = {}
        self._hybrid_publics: list[bytes] = []
        if own.masks.hybrid is not None:
            self._hybrid_publics = [roster.hybrid_channel_key(position) for position in positions]
            sealed = edges_sealed(own_position, neighbours, len(roster.ids))
            self._seal_edges(own.masks.hybrid, roster, positions, np.flatnonzero(sealed).tolist())

    def _seal_edges(
        self, own: hybrid.HybridMaskKeys, roster: Roster, positions: list[int], sealed: list[int]
    ) -> None:
        """Seal the edges of which this client is the clockwise end."""
        for index in sealed:
            peer, public = self._peers[index], roster.hybrid_mask_key(positions[index])
            key = hybrid.edge_key(own.edge_seed, self._context, peer)
            message = hybrid.seal_edge(key, public, self._context, self._me, peer)
            self._edges[index] = hybrid.edge_of(key, message)
            self._edge_messages[index] = message

    @property
    def edge_messages(self) -> list[bytes]:
        """The sealed edges of this client, in the order of the neighbours they are for."""
        return list(self._edge_messages.values())

    def seal_row(self, index: int, row: bytes) -> bytes:
        """Seal the row of shares for a neighbour."""
        peer = self._peers[index]
        associated = associated_data(self._context, self._me, peer)
        if self._hybrid_publics:
            row = hybrid.seal_inner(row, self._hybrid_publics[index], self._context, self._me, peer)
            if index in self._edge_messages:
                associated += hybrid.edge_binding(self._edge_messages[index])
        return keys.seal(self._seal_keys[index][0], row, associated)

    def open_row(self, index: int, sealed: memoryview, edge: bytes) -> bytes:
        """Open a neighbour's row of shares; take its edge key, where it seals the edge.

        Args:
            index: the neighbour.
            sealed: its sealed row.
            edge: its sealed edge; empty where it seals none for this client.

        Raises:
            AuthenticationFailed: the row or the edge does not open, or the edge is not the confirmed one.
        """
        peer = self._peers[index]
        associated = associated_data(self._context, peer, self._me)
        if edge:
            associated += hybrid.edge_binding(edge)
        row = keys.open_sealed(self._seal_keys[index][1], sealed, associated)
        if self._own.hybrid_channel is None or self._own.masks.hybrid is None:
            return row
        if edge:
            key = hybrid.open_edge(self._own.masks.hybrid.pair, edge, self._context, peer, self._me)
            self._edges[index] = hybrid.edge_of(key, edge)
        return hybrid.open_inner(self._own.hybrid_channel, row, self._context, peer, self._me)

    def has_edge(self, index: int) -> bool:
        """Whether the edge key of a neighbour is known, which only matters under hybrid key agreement."""
        return self._own.masks.hybrid is None or index in self._edges

    def mask_keys(self, index: int, vectors: Sequence[bytes]) -> list[bytes]:
        """The mask keys shared with a neighbour, one for each vector."""
        pair, edge = self._own.masks.pair, self._edges.get(index)
        publics = self._mask_publics[index]
        return keys.mask_keys(pair, publics, self._salt, self._me, self._peers[index], vectors, edge)

    def sign_to(self, index: int, statement: bytes) -> bytes:
        """Tag a statement to a neighbour under the key of that direction."""
        return hmac.digest(self._tag_keys[index][0], statement, "sha256")

    def is_from(self, index: int, statement: bytes, tag: bytes) -> bool:
        """Whether a neighbour tagged that statement for this client."""
        return hmac.compare_digest(hmac.digest(self._tag_keys[index][1], statement, "sha256"), tag)

    def drop_all_but_tags(self) -> None:
        """Forget every key that is of no use once the input is masked."""
        del self._own, self._seal_keys, self._mask_publics, self._edges

    def __repr__(self) -> str:
        return hidden(self)

    def __reduce__(self) -> NoReturn:
        refuse_copies(self)
