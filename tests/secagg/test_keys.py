import hmac
import json

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from secagg import keys
from secagg.binding import enc, vector_fields
from secagg.errors import AuthenticationFailed, MalformedMessage
from secagg.parameters import Vector

P = 2**255 - 19
CONTEXT = b"c" * 32
VECTORS = [vector_fields(0, Vector("a", 4, 16)), vector_fields(1, Vector("b", 4, 16))]


def pair(label):
    return keys.new_channel_pair(label.encode().ljust(32, b"."))


def x25519_vectors():
    with cryptography_vectors.open_vector_file("asymmetric/X25519/rfc7748.txt", "r") as lines:
        fields = [line.split("=")[1].strip() for line in lines if " = " in line and "COUNT" not in line]
    return [tuple(bytes.fromhex(field) for field in fields[i : i + 3]) for i in range(0, len(fields), 3)]


def test_agreement_is_x25519_of_rfc_7748_and_hkdf_extract_of_rfc_5869():
    vectors = x25519_vectors()
    assert len(vectors) >= 2
    for scalar, point, shared in vectors:
        own = keys.KeyPair(X25519PrivateKey.from_private_bytes(scalar), b"")
        assert keys.channel_root(own, point, CONTEXT, 2) == hmac.digest(CONTEXT, shared, "sha256")


def test_key_derivation_is_rfc_5869():
    """The library's extract and expand, as `secagg.keys` calls them, on the RFC's own vectors."""
    with cryptography_vectors.open_vector_file("KDF/rfc-5869-HKDF-SHA256.txt", "r") as lines:
        current, tested = {}, 0
        for line in map(str.strip, lines):
            if "=" not in line:
                continue
            name, value = (part.strip() for part in line.split("=", 1))
            current[name] = value
            if name == "OKM":
                ikm, salt, info = (bytes.fromhex(current[n]) for n in ("IKM", "salt", "info"))
                assert HKDF.extract(keys._SHA256, salt or None, ikm).hex() == current["PRK"]
                okm = HKDFExpand(keys._SHA256, int(current["L"]), info).derive(bytes.fromhex(current["PRK"]))
                assert okm.hex() == current["OKM"]
                tested += 1
    assert tested == 3


def test_keys_are_extracted_and_expanded_as_the_rfc_says():
    """The library's own HKDF, with the context as its salt, given whole or made ready."""
    one, two = pair("one"), pair("two")
    shared = one.private.exchange(two.private.public_key())
    for salt in (CONTEXT, keys.salt_of(CONTEXT)):
        root = keys.channel_root(one, two.public, salt, 2)
        assert root == HKDF.extract(keys._SHA256, CONTEXT, shared)
        for label in ("seal", "tag"):
            there, back = keys.directional(label, root, one.public, two.public, me=1, them=2)
            for key, fields in (
                (there, (label, 1, 2, one.public, two.public)),
                (back, (label, 2, 1, two.public, one.public)),
            ):
                assert key == HKDFExpand(keys._SHA256, 32, enc(*fields)).derive(root)
        for index, vector in enumerate(VECTORS):
            info = enc("mask", 1, 2, one.public, two.public) + vector
            expected = HKDFExpand(keys._SHA256, 32, info).derive(root)
            assert keys.mask_keys(one, two.public, salt, 1, 2, VECTORS)[index] == expected
            of_seed = HKDF.extract(keys._SHA256, CONTEXT, bytes(32))
            expected = HKDFExpand(keys._SHA256, 32, enc("self", 1) + vector).derive(of_seed)
            assert keys.self_mask_keys(bytes(32), salt, 1, VECTORS)[index] == expected


def test_both_ends_derive_the_same_keys_and_no_two_purposes_share_one():
    one, two = pair("one"), pair("two")
    root = keys.channel_root(one, two.public, CONTEXT, 2)
    assert root == keys.channel_root(two, one.public, CONTEXT, 1)
    derived = []
    for label in ("seal", "tag"):
        there, back = keys.directional(label, root, one.public, two.public, me=1, them=2)
        assert (back, there) == keys.directional(label, root, two.public, one.public, me=2, them=1)
        derived += [there, back]
    masks = keys.mask_keys(one, two.public, CONTEXT, 1, 2, VECTORS)
    assert masks == keys.mask_keys(two, one.public, CONTEXT, 2, 1, VECTORS)
    derived += [*masks, *keys.self_mask_keys(bytes(32), CONTEXT, 1, VECTORS)]
    assert len(set(derived)) == len(derived)


def test_another_context_id_or_vector_gives_another_mask_key():
    one, two = pair("one"), pair("two")
    base = keys.mask_keys(one, two.public, CONTEXT, 1, 2, VECTORS)[0]
    assert base != keys.mask_keys(one, two.public, b"d" * 32, 1, 2, VECTORS)[0]
    assert base != keys.mask_keys(one, two.public, CONTEXT, 1, 3, VECTORS)[0]
    for vector in (Vector("x", 4, 16), Vector("a", 5, 16), Vector("a", 4, 17)):
        assert base != keys.mask_keys(one, two.public, CONTEXT, 1, 2, [vector_fields(0, vector)])[0]
    assert base != keys.mask_keys(one, two.public, CONTEXT, 1, 2, [vector_fields(1, Vector("a", 4, 16))])[0]


def test_mask_pair_follows_from_seed_and_session_and_is_not_the_clamped_seed():
    """Raw clamped seeds would give one public key for the 32 seeds that differ in the clamped bits only."""
    seeds = [bytes([low]) + bytes(31) for low in range(8)]
    publics = {keys.derive_mask_pair(seed, CONTEXT).public for seed in seeds}
    assert len(publics) == 8
    assert keys.derive_mask_pair(seeds[0], b"d" * 32).public not in publics


@pytest.mark.parametrize("value", sorted(int.from_bytes(point, "little") for point in keys._LOW_ORDER))
def test_low_order_points_are_refused_by_list_and_by_trial_exchange(value):
    point = value.to_bytes(32, "little")
    assert not keys.is_sound(point)
    with pytest.raises(MalformedMessage, match="low order") as caught:
        keys.channel_root(pair("one"), point, CONTEXT, 9)
    assert caught.value.sender == 9
    with pytest.raises(MalformedMessage, match="low order"):
        keys.refuse_unsound(pair("one").public + point, [1, 2])


@pytest.mark.parametrize("value", [*range(P, P + 19), 9 + 2**255, P - 2 + 2**255])
def test_non_canonical_points_are_refused(value):
    """The library accepts p+2 to p+18 and ignores bit 255: two encodings of one key."""
    point = value.to_bytes(32, "little")
    assert not keys.is_sound(point)
    with pytest.raises(MalformedMessage):
        keys.refuse_unsound(point, [7])


@given(st.integers(2, P - 2))
def test_every_other_point_is_sound(value):
    point = value.to_bytes(32, "little")
    if point not in keys._LOW_ORDER:
        assert keys.is_sound(point)
        keys.refuse_unsound(point, [1])


def test_a_repeated_key_names_its_second_owner():
    publics = pair("one").public + pair("two").public + pair("one").public
    with pytest.raises(MalformedMessage, match="twice") as caught:
        keys.refuse_unsound(publics, [4, 5, 6])
    assert caught.value.sender == 6


def test_equal_second_words_alone_are_no_repetition():
    """The filter compares eight bytes of each key; two keys that agree there go on to the exact check."""
    one = bytes(range(8)) + b"same_byt" + bytes(16)
    two = bytes(range(8, 16)) + b"same_byt" + bytes(16)
    keys.refuse_unsound(one + two, [1, 2])


def test_sealed_bytes_open_for_one_key_and_one_route_only():
    sealed = keys.seal(bytes(32), b"share", b"route")
    assert keys.open_sealed(bytes(32), sealed, b"route") == b"share"
    for key, data, route in [
        (b"k" * 32, sealed, b"route"),
        (bytes(32), sealed, b"other"),
        (bytes(32), sealed[:-1], b"route"),
        (bytes(32), b"", b"route"),
        (bytes(32), bytes([sealed[0] ^ 1]) + sealed[1:], b"route"),
    ]:
        with pytest.raises(AuthenticationFailed):
            keys.open_sealed(key, data, route)


def test_no_private_byte_is_in_a_repr():
    assert "private" not in repr(pair("one")).lower()
    assert json.dumps(pair("one").public.hex()) in repr(pair("one")).replace("=", '="').replace(")", '")')
