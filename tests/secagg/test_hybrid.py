"""ML-KEM-768 and HPKE give the published answers, and a tampered edge or row is refused by name."""

import hashlib
import json

import cryptography_vectors
import pytest
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given
from hypothesis import strategies as st

from secagg import hybrid
from secagg.entropy import SeededEntropy
from secagg.errors import AuthenticationFailed, MalformedMessage

CONTEXT = b"c" * 32
SESSION = b"s" * 32


def known_answers():
    """Records of the ML-KEM-768 file: seed d || z, key, and one ciphertext with its secret."""
    with cryptography_vectors.open_vector_file("asymmetric/MLKEM/kat_MLKEM_768.rsp", "r") as lines:
        records, current = [], {}
        for line in map(str.strip, lines):
            if line.startswith("count") and current:
                records.append(current)
                current = {}
            elif " = " in line and not line.startswith("#"):
                name, value = line.split(" = ", 1)
                if name != "count":
                    current[name] = bytes.fromhex(value)
        return [*records, current]


def test_ml_kem_768_known_answers():
    records = known_answers()
    assert len(records) >= 50
    for record in records:
        key = MLKEM768PrivateKey.from_seed_bytes(record["d"] + record["z"])
        assert key.public_key().public_bytes_raw() == record["pk"]
        assert key.decapsulate(record["ct"]) == record["ss"]
        assert key.decapsulate(record["ct_n"]) == record["ss_n"]


def test_hpke_with_the_hybrid_kem_opens_published_ciphertexts():
    """The HPKE working group's vectors for KEM 0x647a, through our own key format and halves."""
    with cryptography_vectors.open_vector_file("HPKE/hpke-pq-test-vectors.json", "r") as file:
        vectors = [v for v in json.load(file) if v["kem_id"] == 0x647A and v["kdf_id"] == 1]
    assert vectors
    for vector in vectors:
        expanded = hashlib.shake_256(bytes.fromhex(vector["skRm"])).digest(96)
        pair = hybrid.hybrid_pair(expanded[:64], expanded[64:])
        assert pair.public.hex() == vector["pkRm"]
        assert len(pair.public) == hybrid.HYBRID_KEY_BYTES
        suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
        first = vector["encryptions"][0]
        opened = openssl.hpke._decrypt_with_aad(
            suite,
            bytes.fromhex(vector["enc"] + first["ct"]),
            pair.private,
            bytes.fromhex(vector["info"]),
            bytes.fromhex(first["aad"]),
        )
        assert opened.hex() == first["pt"]


def pair_of(label):
    entropy = SeededEntropy(bytes(32)).derive(label)
    return hybrid.hybrid_pair(entropy(64), entropy(32))


def sealed_edge(sealer=3, receiver=8, key=b"k" * 32):
    pair = pair_of("receiver")
    return pair, hybrid.seal_edge(key, pair.public, CONTEXT, sealer, receiver)


def test_the_seed_alone_gives_every_key_back():
    """What the server recovers from a dropped client's shares is what that client advertised and sealed."""
    mine, again = (hybrid.derive_mask_keys(b"r" * 32, SESSION) for _ in range(2))
    assert mine.pair.public == again.pair.public
    assert hybrid.edge_key(mine.edge_seed, CONTEXT, 8) == hybrid.edge_key(again.edge_seed, CONTEXT, 8)
    message = hybrid.seal_edge(b"k" * 32, mine.pair.public, CONTEXT, 3, 8)
    assert hybrid.open_edge(again.pair, message, CONTEXT, 3, 8) == b"k" * 32


def test_keys_of_other_sessions_receivers_and_purposes_differ():
    one, other = (hybrid.derive_mask_keys(b"r" * 32, session) for session in (SESSION, b"t" * 32))
    edges = {
        hybrid.edge_key(seed, context, receiver)
        for seed in (one.edge_seed, other.edge_seed)
        for context in (CONTEXT, b"d" * 32)
        for receiver in (7, 8)
    }
    halves = {
        pair.public[part] for pair in (one.pair, other.pair) for part in (slice(1184), slice(1184, None))
    }
    assert len(edges) == 8
    assert len(halves) == 4


def test_an_edge_travels_in_its_stated_size():
    pair, message = sealed_edge()
    assert len(message) == hybrid.EDGE_BYTES == 1168 + 32
    assert len(pair.public) == hybrid.HYBRID_KEY_BYTES == 1216
    assert hybrid.open_edge(pair, memoryview(message), CONTEXT, 3, 8) == b"k" * 32


@pytest.mark.parametrize(
    ("context", "sealer", "receiver"), [(b"d" * 32, 3, 8), (CONTEXT, 4, 8), (CONTEXT, 3, 9)]
)
def test_an_edge_of_another_pair_or_round_does_not_open(context, sealer, receiver):
    pair, message = sealed_edge()
    with pytest.raises(AuthenticationFailed, match="does not open") as caught:
        hybrid.open_edge(pair, message, context, sealer, receiver)
    assert caught.value.sender == sealer


def test_a_wrong_key_with_a_right_ciphertext_is_refused_by_name():
    pair, message = sealed_edge()
    _, other = sealed_edge(key=b"x" * 32)
    with pytest.raises(AuthenticationFailed, match="another edge key") as caught:
        hybrid.open_edge(pair, message[:-32] + other[-32:], CONTEXT, 3, 8)
    assert caught.value.sender == 3


@given(st.integers(0, 8 * hybrid.EDGE_BYTES - 1))
def test_any_flipped_bit_of_an_edge_is_refused(bit):
    pair, message = EDGE
    flipped = bytearray(message)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(AuthenticationFailed):
        hybrid.open_edge(pair, bytes(flipped), CONTEXT, 3, 8)
    assert hybrid.edge_binding(bytes(flipped)) != hybrid.edge_binding(message)


EDGE = sealed_edge()


def test_rows_open_for_their_holder_only():
    pair = pair_of("holder")
    sealed = hybrid.seal_inner(b"row of shares", pair.public, CONTEXT, 1, 2)
    assert len(sealed) == len(b"row of shares") + hybrid.SEALED_OVERHEAD
    assert hybrid.open_inner(pair, sealed, CONTEXT, 1, 2) == b"row of shares"
    with pytest.raises(AuthenticationFailed):
        hybrid.open_inner(pair, sealed, CONTEXT, 2, 1)
    with pytest.raises(AuthenticationFailed):
        hybrid.open_inner(pair_of("other"), sealed, CONTEXT, 1, 2)
    with pytest.raises(AuthenticationFailed):
        hybrid.open_inner(pair, sealed[:-1], CONTEXT, 1, 2)


def test_an_edge_is_no_row_and_a_row_is_no_edge():
    pair = pair_of("receiver")
    row = hybrid.seal_inner(b"k" * 32, pair.public, CONTEXT, 3, 8)
    with pytest.raises(AuthenticationFailed):
        hybrid.open_edge(pair, row + hybrid.confirmation(b"k" * 32, CONTEXT, 3, 8), CONTEXT, 3, 8)


@pytest.mark.parametrize("public", [b"", bytes(1215), b"\xff" * 1216, pair_of("x").public[:1184] + bytes(32)])
def test_what_is_no_hybrid_key_is_its_owners_fault(public):
    """Empty, short, coefficients past the modulus, a low-order X25519 half."""
    with pytest.raises(MalformedMessage) as caught:
        hybrid.seal_edge(b"k" * 32, public, CONTEXT, 3, 8)
    assert caught.value.sender == 8


@given(st.integers(2, 60), st.data())
def test_exactly_one_end_seals_each_edge(clients, data):
    one, other = data.draw(st.lists(st.integers(0, clients - 1), min_size=2, max_size=2, unique=True))
    assert hybrid.seals(one, other, clients) != hybrid.seals(other, one, clients)
    load = [sum(hybrid.seals(a, b, clients) for b in range(clients) if a != b) for a in range(clients)]
    assert max(load) - min(load) <= 1


def test_halves_are_cut_from_concatenated_keys():
    one, two = pair_of("1").public, pair_of("2").public
    assert hybrid.x25519_halves(one + two) == one[-32:] + two[-32:]


def test_no_secret_is_in_a_repr():
    keys = hybrid.derive_mask_keys(b"r" * 32, SESSION)
    for thing in (keys, keys.pair, hybrid.edge_of(b"k" * 32, EDGE[1])):
        assert repr(thing) == f"{type(thing).__name__}(...)"
