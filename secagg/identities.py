"""Who the clients are: Ed25519 identity keys, and the roster of them that a client trusts.

In malicious mode the server is the attacker, so it must not be able to invent clients: every advertisement is
signed by an identity key that stands in a roster the client got by a way of its own (Bonawitz et al. 2017,
section 6.2; a public-key infrastructure). Invariants:

- the hash of the roster is part of the round's parameters, so clients with different rosters share no key;
- identity keys of low order are refused when a roster is made: they verify signatures on anything.

Not here: what a client signs (`secagg.binding.advert_statement`) and how a roster is distributed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from secagg.binding import enc
from secagg.entropy import Entropy, system_entropy
from secagg.errors import AuthenticationFailed, LocalProtocolError, ParameterError

__all__ = ["SIGNATURE_BYTES", "Identity", "IdentityRoster"]

SIGNATURE_BYTES = 64

_KEY_BYTES = 32
_PRIME = 2**255 - 19
_SIGN_BIT = 1 << 255
_LOW_ORDER_Y = frozenset(
    (
        0,
        1,
        _PRIME - 1,
        int.from_bytes(
            bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
        ),
        int.from_bytes(
            bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
        ),
    )
)


class Identity:
    """A client's long-lived signing key.

    Args:
        private: the 32 private bytes of an Ed25519 key.

    Raises:
        ParameterError: not 32 bytes.
    """

    __slots__ = ("_key", "public")

    def __init__(self, private: bytes) -> None:
        if len(private) != _KEY_BYTES:
            raise ParameterError(f"an identity key of {len(private)} bytes was given; Ed25519 takes 32")
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, entropy: Entropy = system_entropy) -> Identity:
        """Make a new identity.

        Args:
            entropy: Where its 32 bytes come from.

        Returns:
            The identity.
        """
        return cls(entropy(_KEY_BYTES))

    def sign(self, statement: bytes) -> bytes:
        """Return the 64-byte signature on a statement."""
        return self._key.sign(statement)

    def __repr__(self) -> str:
        return f"Identity(public={self.public.hex()})"

    def __reduce__(self) -> NoReturn:
        raise LocalProtocolError("an identity cannot be copied or pickled; store its private bytes yourself")


class IdentityRoster(Mapping[int, bytes]):
    """The identity keys a client trusts, by client id.

    Args:
        publics: client id to 32-byte Ed25519 public key.

    Raises:
        ParameterError: an id outside 0..2^63-1; a key that is not canonical, of low order, or given to two clients.
    """

    def __init__(self, publics: Mapping[int, bytes]) -> None:
        for client, public in publics.items():
            if not 0 <= client < 2**63:
                raise ParameterError(f"client id {client} is out of range; use 0 to 2^63-1")
            y = int.from_bytes(public, "little") & ~_SIGN_BIT
            if len(public) != _KEY_BYTES or y >= _PRIME or y in _LOW_ORDER_Y:
                raise ParameterError(
                    f"the identity key of client {client} is not canonical or of low order; "
                    "make it another with Identity.generate"
                )
        if len(set(publics.values())) != len(publics):
            raise ParameterError("two clients have the same identity key; give each its own")
        self._publics = dict(publics)
        fields = (field for client in sorted(publics) for field in (client, publics[client]))
        self.hash = hashlib.sha256(enc("identities", *fields)).digest()

    @classmethod
    def of(cls, identities: Mapping[int, Identity]) -> IdentityRoster:
        """The roster of identities one holds oneself, as a simulation does."""
        return cls({client: identity.public for client, identity in identities.items()})

    def __getitem__(self, client: int) -> bytes:
        return self._publics[client]

    def __iter__(self) -> Iterator[int]:
        return iter(self._publics)

    def __len__(self) -> int:
        return len(self._publics)

    def verify(self, client: int, signature: bytes, statement: bytes) -> None:
        """Check a client's signature.

        Args:
            client: Whose it should be.
            signature: 64 bytes, Ed25519.
            statement: The bytes that were signed.

        Raises:
            AuthenticationFailed: an unknown client or a bad signature; names the client.
        """
        public = self._publics.get(client)
        if public is None:
            raise AuthenticationFailed(f"client {client} is not in the trusted roster", sender=client)
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, statement)
        except InvalidSignature:
            raise AuthenticationFailed(
                f"the signature of client {client} does not verify", sender=client
            ) from None
