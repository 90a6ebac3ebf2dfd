import copy
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from secagg import AuthenticationFailed, Identity, IdentityRoster, LocalProtocolError, ParameterError
from secagg.identities import _LOW_ORDER_Y
from tests.secagg.rounds import identity_of

P = 2**255 - 19


def test_a_signature_verifies_for_its_client_and_statement_only():
    one, two = identity_of(1), identity_of(2)
    roster = IdentityRoster.of({1: one, 2: two})
    signature = one.sign(b"statement")
    roster.verify(1, signature, b"statement")
    for client, data, statement in [
        (2, signature, b"statement"),
        (1, signature, b"other"),
        (1, bytes(64), b"statement"),
        (3, signature, b"statement"),
    ]:
        with pytest.raises(AuthenticationFailed) as caught:
            roster.verify(client, data, statement)
        assert caught.value.sender == client


@pytest.mark.parametrize("y", sorted(_LOW_ORDER_Y))
@pytest.mark.parametrize("sign", [0, 1])
def test_low_order_identity_keys_are_refused(y, sign):
    point = (y + (sign << 255)).to_bytes(32, "little")
    with pytest.raises(ParameterError, match="low order"):
        IdentityRoster({1: point})


def test_a_low_order_key_would_verify_a_signature_nobody_made():
    """Why they are refused: with the neutral point as key and as R, S = 0 verifies on every message."""
    neutral = (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"anything")


@pytest.mark.parametrize("y", [P, P + 1, P + 18])
def test_non_canonical_identity_keys_are_refused(y):
    with pytest.raises(ParameterError, match="canonical"):
        IdentityRoster({1: y.to_bytes(32, "little")})
    with pytest.raises(ParameterError, match="canonical"):
        IdentityRoster({1: bytes(31)})


def test_two_clients_cannot_share_an_identity_key():
    with pytest.raises(ParameterError, match="same identity key"):
        IdentityRoster.of({1: identity_of(1), 2: identity_of(1)})


def test_roster_hash_covers_ids_and_keys_and_not_the_order():
    one, two = identity_of(1).public, identity_of(2).public
    roster = IdentityRoster({1: one, 2: two})
    assert roster.hash == IdentityRoster({2: two, 1: one}).hash
    assert roster.hash != IdentityRoster({1: two, 2: one}).hash
    assert roster.hash != IdentityRoster({1: one, 3: two}).hash
    assert roster.hash != IdentityRoster({1: one}).hash


def test_an_identity_is_neither_copied_nor_pickled_nor_shown():
    private = bytes(range(32))
    identity = Identity(private)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(LocalProtocolError):
            attempt(identity)
    assert private.hex() not in repr(identity)
    with pytest.raises(ParameterError):
        Identity(bytes(31))


@pytest.mark.parametrize("client", [-1, 2**63, 2**64])
def test_ids_out_of_range_are_refused(client):
    with pytest.raises(ParameterError, match=rf"client id {client} is out of range; use 0 to 2\^63-1"):
        IdentityRoster({client: identity_of(1).public})
