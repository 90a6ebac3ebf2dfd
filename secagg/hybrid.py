"""Post-quantum confidentiality for pairwise masks: X25519 together with ML-KEM-768, through HPKE.

After unmasking, pairwise masks are all that hides an input: whoever records a round and later breaks X25519
has every input of it. With `key_agreement="x25519-mlkem768"` every pair also agrees on an *edge key* under a
hybrid key that stays secret while either X25519 or ML-KEM-768 does. Authenticity stays classical.

From the shared seed of its mask key a client derives, besides its X25519 mask key, a hybrid mask key and an
edge seed. One end of each edge, the sealer, derives the edge key of that neighbour and seals it to the
neighbour's hybrid mask key. So the seed alone gives every edge key back, whichever end drops out: a sealer's
by derivation, a receiver's by decryption. A second hybrid key, random and never shared, seals shares.

Invariants:

- an edge key enters a mask key only together with the X25519 secret, and the ciphertext's hash is in the info;
- HPKE's base mode has no sender: ciphertext and confirmation count only when the sealer's row, under the
  static directional key, opens with both of them in its associated data;
- keys from one seed have labels of their own (HKDF-Expand): X25519, both hybrid halves, edge seed.

Encapsulation draws its randomness inside OpenSSL: a seeded simulation repeats the sums, not the ciphertexts.

Source: Barnes et al., RFC 9180 (HPKE); FIPS 203 (ML-KEM); Connolly et al., draft-connolly-cfrg-xwing-kem.

Not here: when the pieces are sent and checked (`secagg.agreement`).
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple, NoReturn

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from secagg.binding import enc
from secagg.errors import AuthenticationFailed, MalformedMessage, ParameterError
from secagg.secrecy import hidden, refuse_copies

__all__ = [
    "EDGE_BYTES",
    "HYBRID_KEY_BYTES",
    "SEALED_OVERHEAD",
    "Edge",
    "HybridMaskKeys",
    "HybridPair",
    "confirmation",
    "derive_mask_keys",
    "edge_binding",
    "edge_key",
    "edge_of",
    "hybrid_pair",
    "open_edge",
    "open_inner",
    "require_support",
    "seal_edge",
    "seal_inner",
    "seals",
    "x25519_halves",
]

MLKEM_KEY_BYTES = 1184
HYBRID_KEY_BYTES = MLKEM_KEY_BYTES + 32
SEALED_OVERHEAD = 1136
EDGE_KEY_BYTES = 32
_HASH_BYTES = 32
EDGE_BYTES = EDGE_KEY_BYTES + SEALED_OVERHEAD + _HASH_BYTES
_MLKEM_SEED_BYTES = 64

_SHA256 = SHA256()
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class HybridPair(NamedTuple):
    """A hybrid private key and the 1,216 bytes of its public key: ML-KEM-768, then X25519."""

    private: MLKEM768X25519PrivateKey
    public: bytes

    def __repr__(self) -> str:
        return hidden(self)

    def __reduce__(self) -> NoReturn:
        refuse_copies(self)


class HybridMaskKeys(NamedTuple):
    """What a mask seed gives besides the X25519 mask key.

    Attributes:
        pair: the hybrid mask key that neighbours seal to.
        edge_seed: what the edge keys that this client seals are derived from.
    """

    pair: HybridPair
    edge_seed: bytes

    def __repr__(self) -> str:
        return hidden(self)

    def __reduce__(self) -> NoReturn:
        refuse_copies(self)


class Edge(NamedTuple):
    """The key of one edge as either end holds it.

    Attributes:
        key: 32 bytes.
        digest: SHA-256 of the ciphertext that carried it.
    """

    key: bytes
    digest: bytes

    def __repr__(self) -> str:
        return hidden(self)

    def __reduce__(self) -> NoReturn:
        refuse_copies(self)


def require_support() -> None:
    """Raise unless the cryptography library at hand offers ML-KEM-768.

    Raises:
        ParameterError: it does not.
    """
    try:
        MLKEM768PrivateKey.from_seed_bytes(bytes(_MLKEM_SEED_BYTES))
    except UnsupportedAlgorithm:
        raise ParameterError(
            "this build of `cryptography` has no ML-KEM-768; install a wheel with OpenSSL 3.5 or later, "
            "or use key_agreement='x25519'"
        ) from None


def hybrid_pair(mlkem_seed: bytes, x25519_seed: bytes) -> HybridPair:
    """Make a hybrid key pair from the 64-byte ML-KEM seed (FIPS 203: d, z) and a 32-byte X25519 private key."""
    mlkem = MLKEM768PrivateKey.from_seed_bytes(mlkem_seed)
    x25519 = X25519PrivateKey.from_private_bytes(x25519_seed)
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    return HybridPair(MLKEM768X25519PrivateKey(mlkem, x25519), public)


def derive_mask_keys(seed: bytes, session: bytes) -> HybridMaskKeys:
    """Derive the hybrid mask key and the edge seed from a mask seed; also what the server does on recovery."""
    pair = hybrid_pair(
        _expand(seed, "mask key ml-kem-768", session, _MLKEM_SEED_BYTES),
        _expand(seed, "mask key hybrid x25519", session, 32),
    )
    return HybridMaskKeys(pair, _expand(seed, "edge seed", session, 32))


def edge_key(edge_seed: bytes, context: bytes, receiver: int) -> bytes:
    """Derive the key of the edge that this client seals to `receiver`."""
    return HKDFExpand(_SHA256, EDGE_KEY_BYTES, enc("edge", context, receiver)).derive(edge_seed)


def seal_edge(key: bytes, public: bytes, context: bytes, sealer: int, receiver: int) -> bytes:
    """Seal an edge key to the receiver's hybrid mask key: ciphertext (1,168 bytes), then confirmation (32).

    Raises:
        MalformedMessage: the receiver's key is not one.
    """
    info = enc("edge", context, sealer, receiver)
    return _seal(public, key, info, receiver) + confirmation(key, context, sealer, receiver)


def open_edge(
    pair: HybridPair, message: bytes | memoryview, context: bytes, sealer: int, receiver: int
) -> bytes:
    """Open what `seal_edge` gave, at the receiver or at the server that recovered its seed.

    Raises:
        AuthenticationFailed: the ciphertext does not open, or holds another key than it confirms.
    """
    ciphertext, confirmed = bytes(message[:-_HASH_BYTES]), message[-_HASH_BYTES:]
    try:
        key = _SUITE.decrypt(ciphertext, pair.private, info=enc("edge", context, sealer, receiver))
    except InvalidTag:
        raise AuthenticationFailed(
            f"the edge key sealed by client {sealer} does not open", sender=sealer
        ) from None
    if confirmation(key, context, sealer, receiver) != confirmed:
        raise AuthenticationFailed(f"client {sealer} sealed another edge key than it confirms", sender=sealer)
    return key


def confirmation(key: bytes, context: bytes, sealer: int, receiver: int) -> bytes:
    """Hash that fixes an edge key; the key is 32 secret bytes, so it says nothing about it."""
    return hashlib.sha256(enc("conf", context, sealer, receiver, key)).digest()


def edge_of(key: bytes, message: bytes | memoryview) -> Edge:
    """Put an edge key together with the hash of the ciphertext that carried it."""
    return Edge(key, hashlib.sha256(message[:-_HASH_BYTES]).digest())


def edge_binding(message: bytes | memoryview) -> bytes:
    """What the sealer's row carries as associated data: hash of the ciphertext, confirmation."""
    return hashlib.sha256(message[:-_HASH_BYTES]).digest() + message[-_HASH_BYTES:]


def seal_inner(row: bytes, public: bytes, context: bytes, dealer: int, holder: int) -> bytes:
    """Seal a row of shares to the holder's hybrid channel key; the outer seal goes around it.

    Raises:
        MalformedMessage: the holder's key is not one.
    """
    return _seal(public, row, enc("share", context, dealer, holder), holder)


def open_inner(pair: HybridPair, sealed: bytes, context: bytes, dealer: int, holder: int) -> bytes:
    """Open what `seal_inner` gave.

    Raises:
        AuthenticationFailed: it does not open.
    """
    try:
        return _SUITE.decrypt(sealed, pair.private, info=enc("share", context, dealer, holder))
    except InvalidTag:
        raise AuthenticationFailed("a row of shares does not open", sender=dealer) from None


def seals(own_place: int, peer_place: int, clients: int) -> bool:
    """Say whether the client at `own_place` seals the edge: the clockwise end, at half way the lower place.

    >>> [seals(0, place, 6) for place in range(1, 6)], seals(3, 0, 6)
    ([True, True, True, False, False], False)
    """
    ahead = (peer_place - own_place) % clients
    return 2 * ahead < clients or (2 * ahead == clients and own_place < peer_place)


def x25519_halves(publics: bytes) -> bytes:
    """The X25519 halves of concatenated hybrid keys, concatenated."""
    starts = range(MLKEM_KEY_BYTES, len(publics), HYBRID_KEY_BYTES)
    return b"".join(publics[start : start + 32] for start in starts)


def _seal(public: bytes, plaintext: bytes, info: bytes, receiver: int) -> bytes:
    """Seal to a hybrid key; a key that OpenSSL refuses is its owner's fault."""
    try:
        key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:MLKEM_KEY_BYTES]),
            X25519PublicKey.from_public_bytes(public[MLKEM_KEY_BYTES:]),
        )
        return _SUITE.encrypt(plaintext, key, info=info)
    except ValueError:
        raise MalformedMessage("a hybrid public key is not valid", sender=receiver) from None


def _expand(seed: bytes, label: str, session: bytes, length: int) -> bytes:
    return HKDFExpand(_SHA256, length, enc(label, session)).derive(seed)
