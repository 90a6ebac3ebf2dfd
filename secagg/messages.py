"""Messages as bytes: a strict, versioned codec whose lengths follow from the parameters.

Every message is a 40-byte header (magic 4, version 2, kind 2, session 32) and a body of fixed layout. Invariants:

- the exact length is known before anything is parsed and is checked first;
- one encoding per message: bitmap padding must be zero, rosters strictly ascending, nothing trails;
- what a decoder returns is in range, and anything else raises `MalformedMessage`, nothing else;
- bulk fields (rosters, sealed rows, packed vectors) are sliced, never parsed value by value; packed vectors
  start at multiples of four bytes, because numpy adds words that do not three times as slowly.

| kind | body |
| --- | --- |
| offer | server nonce (32), canonical parameters |
| advertise | channel key (32), mask key (32), + hybrid channel and mask key (1,216 each), * signature (64) |
| roster | per client, ascending: id (8, big-endian), its advertise body |
| share | commitments of b and of m conditional secrets (32 each), a sealed row per neighbour, * a hash row per
  holder, + an edge per neighbour that this client seals one for |
| inbox | bitmap of U2 over the roster; of every neighbour in U2 its sealed row, * its hash row, + its edge |
| masked_input | every vector packed, bitmap of complaints over the neighbours |
| survivors | bitmap of U3 over the roster |
| consistency | * a tag (32) for every neighbour in U3 |
| tags | * the tag (32) from every neighbour in U3, zeros where it sent none |
| unmask | a share record per dealer in U2 among the holder's list, its complaints left out; then, for every
  revealed conditional secret, a record per such dealer in U3 |

Fields marked * exist in malicious mode only, fields marked + under hybrid key agreement only. A share record is
a salt (16, malicious mode) and a share (36); a sealed row holds the records of b, of the mask key's seed and of
m conditional secrets; a hash row their hashes.

A change of any byte here must raise `secagg.binding.PROTOCOL_VERSION`; `tests/vectors` pins the bytes.

Not here: packing of vectors (`secagg.ring`), what may arrive when (`secagg.phases`).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secagg.binding import PROTOCOL_VERSION, enc
from secagg.errors import MalformedMessage
from secagg.hybrid import EDGE_BYTES, HYBRID_KEY_BYTES, SEALED_OVERHEAD
from secagg.identities import SIGNATURE_BYTES
from secagg.keys import KEY_BYTES, SEAL_OVERHEAD
from secagg.parameters import RoundParameters
from secagg.phases import Kind
from secagg.ring import packed_size
from secagg.shamir import PRIME, SHARE_BYTES

__all__ = ["HEADER_BYTES", "Codec", "Mask", "Roster", "bitmap", "decode_offer", "encode_offer", "kind_of"]

Mask = npt.NDArray[np.bool_]

HASH_BYTES = 32
ID_BYTES = 8
_HEADER = struct.Struct(">4sHH32s")
HEADER_BYTES = _HEADER.size
SALT_BYTES = 16
_MAGIC = b"VSUM"
_KINDS = frozenset(Kind)


def kind_of(data: bytes, *, sender: int | None = None) -> Kind:
    """Read the kind of a message from its header.

    Raises:
        MalformedMessage: too short, another protocol or version, an unknown kind.
    """
    if len(data) < HEADER_BYTES:
        raise MalformedMessage(f"a message of {len(data)} bytes is shorter than its header", sender=sender)
    magic, version, kind, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != PROTOCOL_VERSION or kind not in _KINDS:
        raise MalformedMessage(
            f"a message of version {version} and kind {kind}; this is version {PROTOCOL_VERSION}",
            sender=sender,
        )
    return Kind(kind)


def encode_offer(session: bytes, nonce: bytes, canonical: bytes) -> bytes:
    """Write the server's offer of a round."""
    return _HEADER.pack(_MAGIC, PROTOCOL_VERSION, Kind.OFFER, session) + nonce + canonical


def decode_offer(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Read an offer into the session it claims, its nonce and its canonical parameters."""
    if len(data) < HEADER_BYTES + HASH_BYTES:
        raise MalformedMessage(f"an offer of {len(data)} bytes is too short")
    start = HEADER_BYTES + HASH_BYTES
    return data[HEADER_BYTES - HASH_BYTES : HEADER_BYTES], data[HEADER_BYTES:start], data[start:]


class Roster(NamedTuple):
    """A decoded roster.

    Attributes:
        ids: client ids, ascending.
        rows: the public keys, one row of bytes for each client.
        signatures: the signatures, one row of bytes for each client; no columns in semi-honest mode.
        hash: SHA-256 of the encoded roster; equal for equal rosters only.
    """

    ids: npt.NDArray[np.int64]
    rows: npt.NDArray[np.uint8]
    signatures: npt.NDArray[np.uint8]
    hash: bytes

    def publics(self, position: int) -> bytes:
        """All public keys of the client at `position`, as it advertised them."""
        publics: bytes = self.rows[position].tobytes()
        return publics

    def channel_key(self, position: int) -> bytes:
        """The X25519 channel key of the client at `position`."""
        return self.rows[position, :KEY_BYTES].tobytes()

    def mask_key(self, position: int) -> bytes:
        """The X25519 mask key of the client at `position`."""
        return self.rows[position, KEY_BYTES : 2 * KEY_BYTES].tobytes()

    def channel_keys(self, positions: npt.NDArray[np.int64]) -> list[bytes]:
        """The X25519 channel keys of the clients at `positions`."""
        return _cut(self.rows[positions, :KEY_BYTES].tobytes(), KEY_BYTES)

    def mask_keys(self, positions: npt.NDArray[np.int64]) -> list[bytes]:
        """The X25519 mask keys of the clients at `positions`."""
        return _cut(self.rows[positions, KEY_BYTES : 2 * KEY_BYTES].tobytes(), KEY_BYTES)

    def hybrid_channel_key(self, position: int) -> bytes:
        """The hybrid channel key of the client at `position`; empty under "x25519"."""
        return self.rows[position, 2 * KEY_BYTES : 2 * KEY_BYTES + HYBRID_KEY_BYTES].tobytes()

    def hybrid_mask_key(self, position: int) -> bytes:
        """The hybrid mask key of the client at `position`; empty under "x25519"."""
        return self.rows[position, 2 * KEY_BYTES + HYBRID_KEY_BYTES :].tobytes()

    def signature(self, position: int) -> bytes:
        """The signature of the client at `position`."""
        signature: bytes = self.signatures[position].tobytes()
        return signature

    @property
    def x25519_keys(self) -> bytes:
        """Every X25519 key and half, concatenated: all clients' first keys, all their second ones, and so on."""
        columns = [self.rows[:, :KEY_BYTES], self.rows[:, KEY_BYTES : 2 * KEY_BYTES]]
        for end in range(2 * KEY_BYTES + HYBRID_KEY_BYTES, self.rows.shape[1] + 1, HYBRID_KEY_BYTES):
            columns.append(self.rows[:, end - KEY_BYTES : end])
        return b"".join(column.tobytes() for column in columns)

    @property
    def mlkem_keys(self) -> list[bytes]:
        """Every ML-KEM half: all clients' channel halves, then all their mask halves."""
        starts = range(2 * KEY_BYTES, self.rows.shape[1], HYBRID_KEY_BYTES)
        width = HYBRID_KEY_BYTES - KEY_BYTES
        return [row.tobytes() for start in starts for row in self.rows[:, start : start + width]]


class ShareParts(NamedTuple):
    """A decoded share message; each part concatenated."""

    commitments: bytes
    rows: bytes
    hashes: bytes
    edges: bytes


class InboxParts(NamedTuple):
    """A decoded inbox; each part but U2 concatenated."""

    shared: Mask
    rows: memoryview
    hashes: memoryview
    edges: memoryview


class Codec:
    """Encoder and decoder of one session's messages.

    Args:
        parameters: the round.
        session: 32 bytes that every header carries.
    """

    def __init__(self, parameters: RoundParameters, session: bytes) -> None:
        malicious, hybrid = parameters.is_malicious, parameters.is_hybrid
        self._session = session
        self._clients = parameters.clients
        self.secrets = 2 + parameters.conditional_secrets
        self.salt_bytes = SALT_BYTES if malicious else 0
        self.record_bytes = self.salt_bytes + SHARE_BYTES
        self.plain_row_bytes = self.secrets * self.record_bytes
        self.row_bytes = self.plain_row_bytes + SEAL_OVERHEAD + (SEALED_OVERHEAD if hybrid else 0)
        self.public_bytes = 2 * KEY_BYTES + (2 * HYBRID_KEY_BYTES if hybrid else 0)
        self.hash_row_bytes = self.secrets * HASH_BYTES if malicious else 0
        self._edge_bytes = EDGE_BYTES if hybrid else 0
        self._signature_bytes = SIGNATURE_BYTES if malicious else 0
        self._commitment_bytes = (1 + parameters.conditional_secrets) * HASH_BYTES
        self._packed = [packed_size(v.padded_length, v.modulus_bits) for v in parameters.vectors]

    def _encode(self, kind: Kind, *parts: bytes | memoryview) -> bytes:
        return b"".join((_HEADER.pack(_MAGIC, PROTOCOL_VERSION, kind, self._session), *parts))

    def _body(self, kind: Kind, data: bytes, length: int, sender: int | None = None) -> memoryview:
        """The body of a message of exactly that kind, session and length."""
        name = kind.name.lower()
        if len(data) != HEADER_BYTES + length:
            raise MalformedMessage(
                f"{name} has {len(data)} bytes where exactly {HEADER_BYTES + length} are due", sender=sender
            )
        if kind_of(data, sender=sender) is not kind:
            raise MalformedMessage(f"the message is not of kind {name}", sender=sender)
        if data[HEADER_BYTES - HASH_BYTES : HEADER_BYTES] != self._session:
            raise MalformedMessage(f"{name} belongs to another session", sender=sender)
        return memoryview(data)[HEADER_BYTES:]

    def encode_advertise(self, publics: bytes, signature: bytes) -> bytes:
        """Write all public keys and the signature."""
        return self._encode(Kind.ADVERTISE, publics, signature)

    def decode_advertise(self, data: bytes, *, sender: int) -> tuple[bytes, bytes]:
        """Return all public keys, concatenated, and the signature."""
        body = self._body(Kind.ADVERTISE, data, self.public_bytes + self._signature_bytes, sender)
        return bytes(body[: self.public_bytes]), bytes(body[self.public_bytes :])

    def keys_in(self, publics: bytes) -> list[bytes]:
        """Cut one client's public keys into X25519 keys, ML-KEM halves and X25519 halves."""
        widths = [KEY_BYTES, KEY_BYTES]
        if len(publics) > sum(widths):
            widths += [HYBRID_KEY_BYTES - KEY_BYTES, KEY_BYTES] * 2
        ends = np.cumsum(widths).tolist()
        return [publics[end - width : end] for end, width in zip(ends, widths, strict=True)]

    def encode_roster(self, adverts: dict[int, bytes]) -> bytes:
        """Write the advertisements of all clients, ascending by id."""
        rows = [client.to_bytes(ID_BYTES, "big") + adverts[client] for client in sorted(adverts)]
        return self._encode(Kind.ROSTER, *rows)

    def decode_roster(self, data: bytes) -> Roster:
        """Read a roster; strictly ascending ids, no more clients than planned."""
        width = ID_BYTES + self.public_bytes + self._signature_bytes
        count = min(max(len(data) - HEADER_BYTES, 0) // width, self._clients)
        body = self._body(Kind.ROSTER, data, count * width)
        rows = np.frombuffer(body, np.uint8).reshape(count, width)
        ids = rows[:, :ID_BYTES].copy().view(">u8").ravel().astype(np.int64)
        if count == 0 or ids[0] < 0 or (ids[1:] <= ids[:-1]).any():
            raise MalformedMessage("the ids of a roster must be ascending, each below 2^63")
        digest = hashlib.sha256(enc("roster"))
        digest.update(body)
        end = ID_BYTES + self.public_bytes
        return Roster(ids, rows[:, ID_BYTES:end], rows[:, end:], digest.digest())

    def encode_share(
        self,
        commitments: Sequence[bytes],
        rows: Sequence[bytes],
        hashes: Sequence[bytes],
        edges: Sequence[bytes],
    ) -> bytes:
        """Write commitments, sealed rows of the neighbours, hash rows of the holders, sealed edges."""
        return self._encode(Kind.SHARE, *commitments, *rows, *hashes, *edges)

    def decode_share(self, data: bytes, *, neighbours: int, edges: int, sender: int) -> ShareParts:
        """Return commitments, sealed rows, hash rows and edges, each concatenated."""
        widths = (
            self._commitment_bytes,
            neighbours * self.row_bytes,
            (neighbours + 1) * self.hash_row_bytes,
            edges * EDGE_BYTES,
        )
        body = self._body(Kind.SHARE, data, sum(widths), sender)
        ends = np.cumsum(widths).tolist()
        return ShareParts(*(bytes(body[end - width : end]) for end, width in zip(ends, widths, strict=True)))

    def holding_shares(self, rows: Sequence[bytes | None]) -> list[bool]:
        """Which of the opened rows have their length and every word of their shares in the field; None has not."""
        fits = [row is not None and len(row) == self.plain_row_bytes for row in rows]
        joined = b"".join(row for row, fit in zip(rows, fits, strict=True) if row is not None and fit)
        words = np.frombuffer(joined, "<u2").reshape(-1, self.secrets, self.record_bytes // 2)
        good = np.zeros(len(rows), np.bool_)
        good[fits] = (words[:, :, self.salt_bytes // 2 :] < PRIME).all(axis=(1, 2))
        return good.tolist()

    def record(self, row: bytes, secret: int) -> bytes:
        """The record of one secret out of an opened row."""
        return row[secret * self.record_bytes : (secret + 1) * self.record_bytes]

    def encode_inbox(
        self,
        shared: Mask,
        rows: bytes,
        hashes: bytes,
        edges: Sequence[bytes],
    ) -> bytes:
        """Write U2 and the sealed rows, hash rows and edges of the receiver's neighbours in it."""
        return self._encode(Kind.INBOX, bitmap(shared), rows, hashes, *edges)

    def decode_inbox(
        self, data: bytes, *, clients: int, neighbours: npt.NDArray[np.int64], sealers: Mask
    ) -> InboxParts:
        """Return U2, and of exactly each neighbour in U2 its row, its hash row and, from sealers, its edge.

        Args:
            data: the message.
            clients: clients in the roster.
            neighbours: positions of the receiver's neighbours.
            sealers: which of them seal an edge for the receiver.
        """
        start = -(-clients // 8)
        shared = _mask(data[HEADER_BYTES : HEADER_BYTES + start], clients, None)
        present = shared[neighbours]
        count, sealing = int(np.count_nonzero(present)), int(np.count_nonzero(present & sealers))
        rows = start + count * self.row_bytes
        hashes = rows + count * self.hash_row_bytes
        body = self._body(Kind.INBOX, data, hashes + sealing * EDGE_BYTES)
        return InboxParts(shared, body[start:rows], body[rows:hashes], body[hashes:])

    def masked_input_bytes(self, neighbours: int) -> int:
        """Length of a masked input of a client with so many neighbours."""
        return HEADER_BYTES + sum(self._packed) - (-neighbours // 8)

    def largest_from_client(self, neighbours: int) -> int:
        """Length of the largest message that a client with so many neighbours sends, at most."""
        share = neighbours * (self.row_bytes + self.hash_row_bytes + self._edge_bytes) + self.hash_row_bytes
        unmask = (neighbours + 1) * self.secrets * self.record_bytes
        largest = HEADER_BYTES + max(self._commitment_bytes + share, unmask)
        return max(largest, self.masked_input_bytes(neighbours))

    def encode_masked_input(self, complaints: Mask, packed: Sequence[memoryview]) -> bytes:
        """Write the packed vectors and the complaints about neighbours."""
        return self._encode(Kind.MASKED_INPUT, *packed, bitmap(complaints))

    def decode_masked_input(
        self, data: bytes, *, neighbours: int, sender: int
    ) -> tuple[Mask, list[memoryview]]:
        """Return the complaints and the packed vectors."""
        due = self.masked_input_bytes(neighbours) - HEADER_BYTES
        body = self._body(Kind.MASKED_INPUT, data, due, sender)
        packed, start = [], 0
        for size in self._packed:
            packed.append(body[start : start + size])
            start += size
        return _mask(body[start:], neighbours, sender), packed

    def encode_survivors(self, survivors: Mask) -> bytes:
        """Write U3."""
        return self._encode(Kind.SURVIVORS, bitmap(survivors))

    def decode_survivors(self, data: bytes, *, clients: int) -> Mask:
        """Return U3."""
        return _mask(self._body(Kind.SURVIVORS, data, -(-clients // 8)), clients, None)

    def encode_consistency(self, tags: Sequence[bytes]) -> bytes:
        """Write the tags for the neighbours in U3."""
        return self._encode(Kind.CONSISTENCY, *tags)

    def decode_consistency(self, data: bytes, *, neighbours: int, sender: int) -> memoryview:
        """Return the concatenated tags for the neighbours in U3."""
        return self._body(Kind.CONSISTENCY, data, neighbours * HASH_BYTES, sender)

    def encode_tags(self, tags: bytes) -> bytes:
        """Write the concatenated tags from the neighbours in U3."""
        return self._encode(Kind.TAGS, tags)

    def decode_tags(self, data: bytes, *, neighbours: int) -> list[bytes]:
        """Return the tags from the neighbours in U3."""
        body = self._body(Kind.TAGS, data, neighbours * HASH_BYTES)
        return [bytes(body[start : start + HASH_BYTES]) for start in range(0, len(body), HASH_BYTES)]

    def encode_unmask(self, records: Sequence[bytes | memoryview]) -> bytes:
        """Write share records, in the order of the holder's list."""
        return self._encode(Kind.UNMASK, *records)

    def decode_unmask(self, data: bytes, *, records: int, sender: int) -> memoryview:
        """Return the concatenated share records."""
        return self._body(Kind.UNMASK, data, records * self.record_bytes, sender)


def _cut(block: bytes, width: int) -> list[bytes]:
    return [block[start : start + width] for start in range(0, len(block), width)]


def bitmap(mask: Mask) -> bytes:
    """Pack a set over positions, least significant bit first."""
    return np.packbits(mask, bitorder="little").tobytes()


def _mask(data: bytes | memoryview, length: int, sender: int | None) -> Mask:
    """Unpack a set over `length` positions; missing bytes and padding bits that are set are refused."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if len(bits) < length or bits[length:].any():
        raise MalformedMessage(
            f"a bitmap over {length} positions is too short or padded with ones", sender=sender
        )
    return bits[:length].astype(np.bool_)
