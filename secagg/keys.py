"""Key pairs, pairwise keys and sealing: X25519, HKDF-SHA256 and AES-256-GCM, nothing invented.

Each client has two key pairs (Bonawitz et al. 2017, section 4): a *channel* key whose private half is random
and never leaves it, and a *mask* key whose private half follows from a 32-byte seed that is shared among its
neighbours. Recovering a dropped client's mask key must not open its channel. Invariants:

- the context is the salt of every derivation, both public keys of the pair are in the info;
- one sealing key and one tag key per *direction*; a sealing key seals one message, so its nonce is zero;
- a public key that is not canonical or of low order is refused before anything is derived from it;
- private keys come from a seed by HKDF: raw clamped seeds would let 32 seeds give one public key.

Not here: what the info strings contain (`secagg.binding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secagg.binding import enc, mask_info, pair_fields, self_mask_info
from secagg.errors import AuthenticationFailed, MalformedMessage
from secagg.hybrid import Edge
from secagg.secrecy import refuse_copies

__all__ = [
    "SEAL_OVERHEAD",
    "KeyPair",
    "channel_root",
    "derive_mask_pair",
    "directional",
    "is_sound",
    "mask_keys",
    "new_channel_pair",
    "open_sealed",
    "refuse_unsound",
    "salt_of",
    "seal",
    "self_mask_keys",
]

SEAL_OVERHEAD = 16
KEY_BYTES = 32

_SHA256 = SHA256()
_NONCE = bytes(12)
_PRIME = 2**255 - 19
_LOW_ORDER = frozenset(
    point.to_bytes(32, "little")
    for point in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _PRIME - 1,
    )
)


class KeyPair(NamedTuple):
    """A private key and the bytes of its public key."""

    private: X25519PrivateKey
    public: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public.hex()})"

    def __reduce__(self) -> NoReturn:
        refuse_copies(self)


def new_channel_pair(random: bytes) -> KeyPair:
    """Make the channel key pair from 32 fresh random bytes."""
    return _pair(random)


def derive_mask_pair(seed: bytes, session: bytes) -> KeyPair:
    """Derive the mask key pair from its shared 32-byte seed; also what the server does on recovery."""
    return _pair(_expand(seed, enc("mask key x25519", session)))


def _pair(private: bytes) -> KeyPair:
    key = X25519PrivateKey.from_private_bytes(private)
    return KeyPair(key, key.public_key().public_bytes_raw())


def is_sound(public: bytes) -> bool:
    """Whether 32 bytes are the one canonical encoding of a point that is not of low order.

    >>> is_sound(bytes(32)), is_sound((9).to_bytes(32, "little"))
    (False, True)
    """
    return int.from_bytes(public, "little") < _PRIME and public not in _LOW_ORDER


def refuse_unsound(publics: bytes, owners: npt.ArrayLike) -> None:
    """Raise unless every 32-byte key in `publics` is sound and no two are equal.

    Two vectorised filters find the few keys worth a closer look, so a roster costs microseconds.

    Args:
        publics: keys, concatenated.
        owners: whose they are: ids in the order of the keys, as often over as there are keys for each.

    Raises:
        MalformedMessage: an unsound or repeated key; names its owner.
    """
    words = np.frombuffer(publics, "<u8").reshape(-1, 4)
    suspect = (words[:, 3] >= _HIGH_WORD) | (words[:, :1] == _LOW_WORDS).any(axis=1)
    for index in np.flatnonzero(suspect).tolist():
        if not is_sound(publics[KEY_BYTES * index : KEY_BYTES * (index + 1)]):
            raise MalformedMessage(
                "a public key is not canonical or of low order", sender=_owner(owners, index)
            )
    second = np.sort(words[:, 1])
    if (second[1:] == second[:-1]).any():
        seen: set[bytes] = set()
        for index in range(len(words)):
            public = publics[KEY_BYTES * index : KEY_BYTES * (index + 1)]
            if public in seen:
                raise MalformedMessage("a public key appears twice", sender=_owner(owners, index))
            seen.add(public)


def _owner(owners: npt.ArrayLike, index: int) -> int:
    ids = np.ravel(owners)
    return int(ids[index % len(ids)])


_HIGH_WORD = np.uint64(0x7FFF_FFFF_FFFF_FFFF)
_LOW_WORDS = np.array([int.from_bytes(point[:8], "little") for point in _LOW_ORDER], np.uint64)


Salt = bytes | HMAC
"""The context of a round; or `salt_of` it, which is quicker where many keys are derived under one context."""


def salt_of(context: bytes) -> HMAC:
    """A context, public, made ready to be the salt of many derivations."""
    return HMAC(context, _SHA256)


def _extract(salt: Salt, secret: bytes) -> bytes:
    """HKDF-Extract (RFC 5869, section 2.2)."""
    if isinstance(salt, bytes):
        return HKDF.extract(_SHA256, salt, secret)
    return _mac(salt.copy(), secret)


def _expand(key: bytes, info: bytes) -> bytes:
    """HKDF-Expand to 32 bytes, which are one block of it: HMAC(key, info || 1) (RFC 5869, section 2.3)."""
    return HKDF.extract(_SHA256, key, info + _FIRST)  # Extract is HMAC itself, by its quickest way.


def _mac(started: HMAC, message: bytes) -> bytes:
    started.update(message)
    return started.finalize()


_FIRST = b"\x01"


def channel_root(own: KeyPair, peer: bytes, context: Salt, them: int) -> bytes:
    """Agree with a neighbour on the root of the keys of both directions.

    Raises:
        MalformedMessage: the neighbour's key is of low order.
    """
    return _extract(context, _exchange(own, peer, them))


def directional(
    label: Literal["seal", "tag"], root: bytes, own_key: bytes, peer: bytes, *, me: int, them: int
) -> tuple[bytes, bytes]:
    """Derive one purpose's keys of both directions: (from me to them, from them to me)."""
    prefix = _LABELS[label]
    there = prefix + pair_fields(me, them, own_key, peer)
    back = prefix + pair_fields(them, me, peer, own_key)
    keyed = HMAC(root, _SHA256)
    return _mac(keyed.copy(), there + _FIRST), _mac(keyed, back + _FIRST)


_LABELS = {label: enc(label) for label in ("seal", "tag")}


def mask_keys(
    own: KeyPair,
    peer: bytes,
    context: Salt,
    me: int,
    them: int,
    vectors: Sequence[bytes],
    edge: Edge | None = None,
) -> list[bytes]:
    """Agree with a neighbour on the mask key of every vector.

    Args:
        own: this client's mask key pair.
        peer: the neighbour's mask key.
        context: context of the round.
        me: this client.
        them: the neighbour.
        vectors: `secagg.binding.vector_fields` of every vector.
        edge: hybrid key agreement: the pair's edge key.

    Raises:
        MalformedMessage: the neighbour's key is of low order.
    """
    secret = _exchange(own, peer, them) + (b"" if edge is None else edge.key)
    key = _extract(context, secret)
    ordered = (me, them, own.public, peer) if me < them else (them, me, peer, own.public)
    pair = pair_fields(*ordered) + (b"" if edge is None else enc(edge.digest))
    return [_expand(key, mask_info(pair, vector)) for vector in vectors]


def self_mask_keys(seed: bytes, context: Salt, me: int, vectors: Sequence[bytes]) -> list[bytes]:
    """Derive the self-mask key of every vector from the self-mask seed."""
    key = _extract(context, seed)
    return [_expand(key, self_mask_info(me, vector)) for vector in vectors]


def _exchange(own: KeyPair, peer: bytes, them: int) -> bytes:
    try:
        return own.private.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:
        raise MalformedMessage("a public key is of low order", sender=them) from None


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Seal the one message of this key."""
    return AESGCM(key).encrypt(_NONCE, plaintext, associated)


def open_sealed(key: bytes, sealed: bytes | memoryview, associated: bytes) -> bytes:
    """Open the one message of this key.

    Raises:
        AuthenticationFailed: the bytes were not sealed by that peer, for this receiver, in this context.
    """
    try:
        return AESGCM(key).decrypt(_NONCE, sealed, associated)
    except InvalidTag:
        raise AuthenticationFailed("a sealed share does not open") from None
