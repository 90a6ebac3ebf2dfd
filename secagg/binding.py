"""What every key, hash and ciphertext of a round is bound to.

`enc` writes fields so that no two different field lists share an encoding; `session` names one round as
the server offered it; `context` names it together with the roster the client saw. Every key derivation
takes `context` as salt and one of the info strings below, so that (Bonawitz et al. 2017, section 6, and
Pasquini et al. 2022 for why a model and its round must be in there):

- a key serves one label, one ordered or sorted pair, one vector: never two purposes;
- both public keys of the pair are in the info: a public key plus a torsion point has the same shared
  secrets with everyone, and without the pair a sybil could make two masks cancel;
- clients that were shown different models, rosters or parameters share no key at all.

Not here: the derivation itself (`secagg.keys`) and the byte layout of messages (`secagg.messages`).
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secagg.parameters import RoundParameters, Vector

__all__ = [
    "PROTOCOL_VERSION",
    "Field",
    "advert_statement",
    "associated_data",
    "commitment",
    "conditional_commitment",
    "consistency_statement",
    "context_of",
    "enc",
    "mask_info",
    "pair_fields",
    "ring_seed",
    "self_mask_info",
    "session_of",
    "sets_of",
    "share_hash",
    "split",
    "vector_fields",
]

PROTOCOL_VERSION = 1

Field = bytes | str | int | float

_LENGTH = struct.Struct(">Q")
_FLOAT = struct.Struct(">d")
_PAIR = struct.Struct(">QQQQQ32sQ32s")
_ROUTE = struct.Struct(">QQQQ")
_SHARE_ENDS = struct.Struct(">Q32sQQQQQQQ")


def enc(*fields: Field) -> bytes:
    """Concatenate fields, each behind its 8-byte length; injective for a fixed list of field types.

    Integers are 8-byte big-endian, floats their IEEE bytes, text UTF-8. Because it is a concatenation,
    `enc(a, b) == enc(a) + enc(b)`, which the callers use to encode a common prefix once.

    Args:
        *fields: bytes, text, floats, or integers in 0..2^64-1.

    Returns:
        The encoding.

    >>> enc("a", 11) == enc("a1", 1)
    False
    """
    return b"".join(_field(field) for field in fields)


def _field(field: Field) -> bytes:
    if isinstance(field, str):
        field = field.encode()
    elif isinstance(field, int):
        field = _LENGTH.pack(field)
    elif isinstance(field, float):
        field = _FLOAT.pack(field)
    return _LENGTH.pack(len(field)) + field


def split(encoded: bytes) -> list[bytes]:
    """Undo `enc` into raw fields; text that is not an encoding gives the fields read so far.

    >>> split(enc("a", "bc"))
    [b'a', b'bc']
    """
    fields = []
    start = 0
    while start + 8 <= len(encoded):
        (length,) = _LENGTH.unpack_from(encoded, start)
        if length > len(encoded) - start - 8:
            break
        fields.append(encoded[start + 8 : start + 8 + length])
        start += 8 + length
    return fields


def session_of(parameters: RoundParameters, nonce: bytes) -> bytes:
    """32 bytes that name one round as offered: version, task, round, nonce, model, all parameters."""
    fields = enc(PROTOCOL_VERSION, parameters.task, parameters.round, nonce, parameters.model_hash)
    return hashlib.sha256(fields + enc(parameters.canonical)).digest()


def context_of(session: bytes, roster_hash: bytes) -> bytes:
    """32 bytes that name the round together with the sorted roster of advertised keys."""
    return hashlib.sha256(enc(session, roster_hash)).digest()


def ring_seed(roster_hash: bytes) -> bytes:
    """Key of the stream that orders the clients on the ring; every client recomputes it."""
    return hashlib.sha256(enc("ring", roster_hash)).digest()


def pair_fields(first: int, second: int, first_key: bytes, second_key: bytes) -> bytes:
    """`enc(first, second, first_key, second_key)` for two 32-byte keys, in one packing."""
    return _PAIR.pack(8, first, 8, second, 32, first_key, 32, second_key)


def vector_fields(index: int, vector: Vector) -> bytes:
    """What tells one vector's mask key from another's: its place, name, bits and length."""
    return enc(index, vector.name, vector.modulus_bits, vector.length)


def mask_info(pair: bytes, vector: bytes) -> bytes:
    """Info of a pairwise mask key: the sorted pair with both mask keys, and the vector."""
    return _MASK + pair + vector


def self_mask_info(client_id: int, vector: bytes) -> bytes:
    """Info of a self mask key."""
    return _SELF + enc(client_id) + vector


def associated_data(context: bytes, sender: int, receiver: int) -> bytes:
    """Associated data of a sealed share row: context, from, to, type."""
    return _SEALED + context + _ROUTE.pack(8, sender, 8, receiver)


def advert_statement(session: bytes, client_id: int, roster_hash: bytes, keys: bytes) -> bytes:
    """What an identity key signs in round 0: all public keys, the session, the id, the trusted roster."""
    return enc("advertise", session, client_id, roster_hash, keys)


def commitment(context: bytes, dealer: int, secret: bytes) -> bytes:
    """Hash that fixes a dealer's self-mask seed; binding, and hiding because seeds are 32 random bytes."""
    return hashlib.sha256(enc("b", context, dealer, secret)).digest()


def conditional_commitment(context: bytes, dealer: int, number: int, secret: bytes) -> bytes:
    """Hash that fixes conditional secret `number` (1..m) of a dealer."""
    return hashlib.sha256(enc("conditional", context, dealer, number, secret)).digest()


def share_hash(context: bytes, dealer: int, holder: int, index: int, salt: bytes, share: bytes) -> bytes:
    """Hash that fixes one share of one secret, hidden by its salt; the dealer gives it to the server.

    What is hashed is `enc("share", context, dealer, holder, index, salt, share)`, written in one go: a complete
    graph hashes every share of every pair.
    """
    ends = _SHARE_ENDS.pack(len(context), context, 8, dealer, 8, holder, 8, index, len(salt))
    return hashlib.sha256(_SHARE + ends + salt + _LENGTH.pack(len(share)) + share).digest()


def consistency_statement(context: bytes, sender: int, receiver: int, sets: bytes) -> bytes:
    """What a consistency tag covers: from, to, and the hashes of U2 and U3 as the sender saw them."""
    return enc("consistency", context, sender, receiver) + sets


def sets_of(shared: bytes, survivors: bytes) -> bytes:
    """`enc(SHA256(U2), SHA256(U3))` of two packed bitmaps."""
    return enc(hashlib.sha256(shared).digest(), hashlib.sha256(survivors).digest())


_MASK = enc("mask")
_SELF = enc("self")
_SEALED = enc("sealed shares") + _LENGTH.pack(32)
_SHARE = enc("share")
