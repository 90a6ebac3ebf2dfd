"""The codec: what it writes it reads, and any other bytes raise `MalformedMessage` and nothing else."""

import random
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import MalformedMessage, Vector
from secagg.hybrid import EDGE_BYTES
from secagg.identities import SIGNATURE_BYTES
from secagg.messages import HEADER_BYTES, Codec, bitmap, decode_offer, encode_offer, kind_of
from secagg.phases import Kind
from tests.secagg.rounds import choose

SESSION = b"s" * 32
MODES = {
    "semi_honest": Codec(choose(), SESSION),
    "malicious": Codec(choose(adversary="malicious"), SESSION),
    "conditional": Codec(choose(conditional_secrets=2, reveal_rule="r"), SESSION),
    "hybrid": Codec(choose(key_agreement="x25519-mlkem768"), SESSION),
    "vectors": Codec(choose(vectors=(Vector("a", 40, 31), Vector("b", 1, 62))), SESSION),
}
CLIENTS, NEIGHBOURS = 8, np.array([0, 2, 3, 4, 5, 6, 7])
SEALERS = np.array([1, 1, 1, 0, 0, 0, 0], np.bool_)
SHARED = np.array([1, 1, 1, 0, 1, 1, 1, 0], np.bool_)


def samples(codec):
    """One good message of every kind with the call that reads it."""
    rng = np.random.default_rng(3)
    signature = rng.bytes(codec._signature_bytes)
    publics = {c: rng.bytes(codec.public_bytes) + signature for c in range(CLIENTS)}
    edges = [rng.bytes(EDGE_BYTES) for _ in range(3)] if codec.public_bytes > 64 else []
    rows = [rng.bytes(codec.row_bytes) for _ in range(7)]
    hashes = [rng.bytes(codec.hash_row_bytes) for _ in range(8)]
    commitments = [rng.bytes(codec._commitment_bytes)]
    tags = [rng.bytes(32) for _ in range(4)]
    packed = [rng.bytes(size) for size in codec._packed]
    records = [rng.bytes(codec.record_bytes) for _ in range(6)]
    decode = codec
    return {
        Kind.ADVERTISE: (
            codec.encode_advertise(publics[1][: codec.public_bytes], signature),
            lambda data: decode.decode_advertise(data, sender=1),
        ),
        Kind.ROSTER: (codec.encode_roster(publics), lambda data: decode.decode_roster(data)),
        Kind.SHARE: (
            codec.encode_share(commitments, rows, hashes, edges),
            lambda data: decode.decode_share(data, neighbours=7, edges=len(edges), sender=1),
        ),
        Kind.INBOX: (
            codec.encode_inbox(SHARED, b"".join(rows[:5]), b"".join(hashes[:5]), edges[:2]),
            lambda data: decode.decode_inbox(
                data, clients=CLIENTS, neighbours=NEIGHBOURS, sealers=SEALERS & bool(edges)
            ),
        ),
        Kind.MASKED_INPUT: (
            codec.encode_masked_input(SHARED[:7], packed),
            lambda data: decode.decode_masked_input(data, neighbours=7, sender=1),
        ),
        Kind.SURVIVORS: (
            codec.encode_survivors(SHARED),
            lambda data: decode.decode_survivors(data, clients=CLIENTS),
        ),
        Kind.CONSISTENCY: (
            codec.encode_consistency(tags),
            lambda data: decode.decode_consistency(data, neighbours=4, sender=1),
        ),
        Kind.TAGS: (codec.encode_tags(b"".join(tags)), lambda data: decode.decode_tags(data, neighbours=4)),
        Kind.UNMASK: (
            codec.encode_unmask(records),
            lambda data: decode.decode_unmask(data, records=6, sender=1),
        ),
    }


CASES = [(mode, kind) for mode, codec in MODES.items() for kind in samples(codec)]


@pytest.mark.parametrize(("mode", "kind"), CASES)
def test_a_good_message_is_read_and_no_other_length_kind_session_or_version(mode, kind):
    data, decode = samples(MODES[mode])[kind]
    decode(data)
    assert kind_of(data) is kind
    wrong = [
        data[:-1],
        data + b"\0",
        data[:HEADER_BYTES],
        data[: HEADER_BYTES - 1],
        b"",
        b"XSUM" + data[4:],
        data[:5] + bytes([data[5] + 1]) + data[6:],
        data[:4] + bytes([data[4] + 1]) + data[5:],
        data[:7] + bytes([kind % 10 + 1]) + data[8:],
        data[:7] + b"\x63" + data[8:],
        data[:6] + b"\x01" + data[7:],
        data[:8] + bytes([data[8] ^ 1]) + data[9:],
    ]
    for bad in wrong:
        with pytest.raises(MalformedMessage):
            decode(bad)


@pytest.mark.parametrize(("mode", "kind"), CASES)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_bytes_are_read_or_refused(mode, kind, data):
    good, decode = samples(MODES[mode])[kind]
    bent = bytearray(good)
    for _ in range(data.draw(st.integers(0, 4))):
        bent[data.draw(st.integers(0, len(bent) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 1, 7]))
    for attempt in (bytes(bent), bytes(bent)[cut:], bytes(bent)[: len(bent) - cut], data.draw(st.binary())):
        with suppress(MalformedMessage):
            decode(attempt)


def bent(good, rng):
    """A message with bytes changed, cut off or added, or no message at all."""
    way = rng.random()
    if way < 0.6:
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 60))] = rng.randrange(256)
        return bytes(data)
    if way < 0.75:
        return good[: rng.randrange(len(good))]
    if way < 0.9:
        return good + rng.randbytes(rng.randrange(1, 40))
    return rng.randbytes(rng.randrange(120))


@pytest.mark.drill
@pytest.mark.parametrize("kind", samples(MODES["malicious"]))
def test_a_million_bent_messages_are_read_or_refused(kind):
    """Of every kind, over all modes, fixed seed; both answers must occur, and no other error ever does."""
    rng = random.Random(int(kind))
    cases = [samples(codec)[kind] for codec in MODES.values()]
    taken = refused = 0
    for _ in range(10**6):
        good, decode = rng.choice(cases)
        try:
            decode(bent(good, rng))
            taken += 1
        except MalformedMessage:
            refused += 1
    assert taken > 1000
    assert refused > 1000


def test_headers_of_any_bytes():
    for data in (b"", bytes(HEADER_BYTES), b"VSUM\0\1\0\1" + bytes(31), b"VSUM\0\1\0\0" + bytes(32)):
        with pytest.raises(MalformedMessage):
            kind_of(data)
    assert kind_of(b"VSUM\0\1\0\1" + bytes(32)) is Kind.OFFER


def test_offer_round_trip_and_too_short():
    data = encode_offer(SESSION, b"n" * 32, b"parameters")
    assert decode_offer(data) == (SESSION, b"n" * 32, b"parameters")
    with pytest.raises(MalformedMessage, match="too short"):
        decode_offer(data[: HEADER_BYTES + 31])


@pytest.mark.parametrize("mode", MODES)
def test_contents_come_back(mode):
    codec = MODES[mode]
    everything = samples(codec)
    publics, signature = everything[Kind.ADVERTISE][1](everything[Kind.ADVERTISE][0])
    roster = everything[Kind.ROSTER][1](everything[Kind.ROSTER][0])
    assert roster.publics(1) == publics
    assert roster.channel_key(1) + roster.mask_key(1) == publics[:64]
    assert roster.hybrid_channel_key(1) + roster.hybrid_mask_key(1) == publics[64:]
    assert b"".join(codec.keys_in(publics)) == publics
    assert roster.signature(1) == signature
    assert len(signature) in (0, SIGNATURE_BYTES)
    assert roster.ids.tolist() == list(range(CLIENTS))
    inbox = everything[Kind.INBOX][1](everything[Kind.INBOX][0])
    share = everything[Kind.SHARE][1](everything[Kind.SHARE][0])
    assert inbox.shared.tolist() == SHARED.tolist()
    for received, sent in zip(inbox[1:], share[1:], strict=True):
        assert bytes(received) == sent[: len(received)]
    assert len(share.edges) == (3 * EDGE_BYTES if mode == "hybrid" else 0)
    assert len(inbox.edges) == (2 * EDGE_BYTES if mode == "hybrid" else 0)
    complaints, packed = everything[Kind.MASKED_INPUT][1](everything[Kind.MASKED_INPUT][0])
    assert complaints.tolist() == SHARED[:7].tolist()
    assert [len(part) for part in packed] == codec._packed


def test_roster_must_ascend_and_be_no_larger_than_planned():
    codec = MODES["semi_honest"]
    good = codec.encode_roster({c: bytes(64) for c in range(8)})
    assert len(codec.decode_roster(good).ids) == 8
    too_many = codec.encode_roster({c: bytes(64) for c in range(9)})
    with pytest.raises(MalformedMessage, match="exactly"):
        codec.decode_roster(too_many)
    row = 72
    body = good[HEADER_BYTES:]
    swapped = good[:HEADER_BYTES] + body[row : 2 * row] + body[:row] + body[2 * row :]
    repeated = good[:HEADER_BYTES] + body[:row] + body[: 7 * row]
    negative = good[:-row] + b"\xff" + good[-row + 1 :]
    for bad in (swapped, repeated, negative, good[:HEADER_BYTES]):
        with pytest.raises(MalformedMessage, match="ascending"):
            codec.decode_roster(bad)


def test_roster_hash_is_that_of_its_bytes():
    codec = MODES["semi_honest"]
    one = codec.decode_roster(codec.encode_roster({1: bytes(64), 2: b"k" * 64}))
    same = codec.decode_roster(codec.encode_roster({2: b"k" * 64, 1: bytes(64)}))
    other = codec.decode_roster(codec.encode_roster({1: b"k" * 64, 2: bytes(64)}))
    assert one.hash == same.hash != other.hash


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bitmaps_are_canonical(bits):
    mask = np.array(bits, np.bool_)
    codec = Codec(choose(clients=40), SESSION)
    data = codec.encode_survivors(mask)
    assert codec.decode_survivors(data, clients=len(bits)).tolist() == bits
    assert data[HEADER_BYTES:] == bitmap(mask)
    if len(bits) % 8:
        padded = data[:-1] + bytes([data[-1] | 0x80])
        with pytest.raises(MalformedMessage, match="padded"):
            codec.decode_survivors(padded, clients=len(bits))


@pytest.mark.parametrize("mode", ["semi_honest", "malicious"])
def test_rows_hold_shares_only_when_every_word_is_in_the_field(mode):
    codec = MODES[mode]

    def row_with(word, at):
        row = bytearray(codec.plain_row_bytes)
        row[at : at + 2] = word.to_bytes(2, "little")
        return bytes(row)

    first, last = codec.salt_bytes, codec.plain_row_bytes - 2
    good = [row_with(0, first), row_with(65520, first), row_with(65520, last)]
    bad = [row_with(65521, first), row_with(65535, last), row_with(0, first)[:-1], None, b""]
    salted = b"\xff" * codec.salt_bytes + row_with(0, first)[codec.salt_bytes :]
    mixed = [good[0], None, salted, bad[0], good[1], bad[2], good[2], bad[1], b""]
    assert codec.holding_shares(good) == [True] * 3
    assert codec.holding_shares(bad) == [False] * 5
    assert codec.holding_shares(mixed) == [row in (*good, salted) for row in mixed]
    assert codec.holding_shares([]) == []
