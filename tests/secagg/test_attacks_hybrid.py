"""Attacks on hybrid key agreement: an edge is trusted with its sealer's row or not at all.

Row of the attack table: an edge ciphertext made by the server, the wrong key under the right ciphertext, a
confirmation that does not match, dropouts on each side of an edge, the recovered seed tried on the channel,
bit 255 set in a hybrid half, one half used twice.
"""

import numpy as np
import pytest

from secagg import AuthenticationFailed, MalformedMessage, hybrid, keys
from secagg import client as client_module
from secagg.agreement import derive_mask_keys, edges_sealed
from secagg.binding import associated_data, vector_fields
from secagg.hybrid import EDGE_BYTES, HYBRID_KEY_BYTES
from secagg.messages import HEADER_BYTES
from secagg.phases import Phase
from tests.secagg.rounds import Round, choose, new_client

MODES = ["semi_honest", "malicious"]


def hybrid_round(mode="semi_honest", clients=6, **settings):
    return Round(choose(clients=clients, adversary=mode, key_agreement="x25519-mlkem768", **settings))


def edge_into(round_, receiver, message):
    """(sealer, slice) of the first edge in an inbox."""
    neighbours = round_.server._routing.neighbours(receiver)
    sealers = [int(n) for n in neighbours if hybrid.seals(int(n), receiver, len(round_.clients))]
    start = len(message) - len(sealers) * EDGE_BYTES
    return sealers[0], slice(start, start + EDGE_BYTES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("clients", [5, 6])
def test_every_edge_has_one_sealer_and_the_sum_is_exact(mode, clients):
    round_ = hybrid_round(mode, clients)
    assert round_.finish().totals["v"].tolist() == round_.plain(range(clients))
    everyone = np.arange(clients)
    for one in range(clients):
        for other in range(clients):
            if one != other:
                here = edges_sealed(one, everyone, clients)[other]
                there = edges_sealed(other, everyone, clients)[one]
                assert here != there


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dropped", [(0,), (5,), (0, 3)])
def test_a_dropout_on_each_side_of_an_edge_is_recovered(mode, dropped):
    """Client 0 seals the edges to 1 and 2 and receives those of 4 and 5; the threshold of six is four."""
    round_ = hybrid_round(mode, 6, corruption=0.0).play_until("masked_input")
    round_.play(silent=dropped)
    result = round_.finish()
    assert result.survivors == tuple(c for c in range(6) if c not in dropped)
    assert result.totals["v"].tolist() == round_.plain(result.survivors)


@pytest.mark.parametrize("mode", MODES)
def test_an_edge_made_by_the_server_is_refused_naming_its_sealer(mode):
    """HPKE's base mode has no sender: the server seals a key of its own, with a confirmation that fits."""
    round_ = hybrid_round(mode).play_until("masked_input")
    message = round_.server.message_for(1)
    sealer, place = edge_into(round_, 1, message)
    public = round_.server._roster.hybrid_mask_key(1)
    forged = hybrid.seal_edge(b"k" * 32, public, round_.server._context, sealer, 1)
    with pytest.raises(AuthenticationFailed, match="no edge key") as caught:
        round_.clients[1].receive(message[: place.start] + forged + message[place.stop :])
    assert caught.value.sender == sealer
    assert round_.clients[1].phase is Phase.FAILED


@pytest.mark.parametrize("at", [0, 500, EDGE_BYTES - 33, EDGE_BYTES - 32, EDGE_BYTES - 1])
def test_a_changed_edge_or_confirmation_is_refused(at):
    round_ = hybrid_round().play_until("masked_input")
    message = bytearray(round_.server.message_for(1))
    sealer, place = edge_into(round_, 1, bytes(message))
    message[place.start + at] ^= 1
    with pytest.raises(AuthenticationFailed) as caught:
        round_.clients[1].receive(bytes(message))
    assert caught.value.sender == sealer


@pytest.mark.parametrize("bend", ["key", "confirmation"])
def test_a_sealer_that_confirms_another_key_than_it_sealed_is_named(bend, monkeypatch):
    """A byzantine sealer commits to the bent edge in its own row, so only the confirmation can tell."""
    round_ = hybrid_round().play_until("share")
    honest = hybrid.seal_edge

    def seal_edge(key, public, context, sealer, receiver):
        message = honest(key, public, context, sealer, receiver)
        if (sealer, receiver) != (0, 1):
            return message
        other = honest(b"x" * 32, public, context, sealer, receiver)
        if bend == "key":
            return other[:-32] + message[-32:]
        return message[:-32] + other[-32:]

    monkeypatch.setattr("secagg.hybrid.seal_edge", seal_edge)
    round_.play()
    with pytest.raises(AuthenticationFailed) as caught:
        round_.clients[1].receive(round_.server.message_for(1))
    assert caught.value.sender == 0
    assert round_.clients[1].phase is Phase.FAILED


def test_a_dropped_sealer_whose_confirmation_is_not_that_of_its_seed_releases_nothing(monkeypatch):
    """It sealed and confirmed a key that its shared seed does not give: recovery must not go on."""
    round_ = hybrid_round().play_until("share")
    monkeypatch.setattr("secagg.hybrid.edge_key", lambda seed, context, receiver: b"y" * 32)
    data = round_.answer(0, round_.server.message_for(0))
    monkeypatch.undo()
    round_.server.receive(0, data)
    round_.play(silent=[0])
    round_.play(silent=[0])
    with pytest.raises(AuthenticationFailed, match="confirmed another edge key") as caught:
        round_.finish()
    assert caught.value.sender == 0


def test_the_recovered_seed_opens_no_row_of_the_channel():
    """A dropped client's seed gives its mask keys, classical and hybrid, and neither channel key."""
    round_ = hybrid_round().play_until("masked_input")
    secrets = round_.clients[5]._secrets
    inbox = round_.server.message_for(5)
    codec = round_.server._codec
    row = inbox[HEADER_BYTES + 1 : HEADER_BYTES + 1 + codec.row_bytes]
    recovered = derive_mask_keys(round_.parameters, secrets.seeds[1], round_.server._session)
    context, roster = round_.server._context, round_.server._roster
    assert recovered.publics == (roster.mask_key(5), roster.hybrid_mask_key(5))
    assert recovered.hybrid.pair.public != roster.hybrid_channel_key(5)
    root = keys.channel_root(recovered.pair, roster.channel_key(0), context, 0)
    _, incoming = keys.directional("seal", root, roster.channel_key(5), roster.channel_key(0), me=5, them=0)
    with pytest.raises(AuthenticationFailed):
        keys.open_sealed(incoming, row, b"")
    inner = keys.open_sealed(secrets.pairs._seal_keys[0][1], row, associated_data(context, 0, 5))
    assert hybrid.open_inner(secrets.keys.hybrid_channel, inner, context, 0, 5)
    with pytest.raises(AuthenticationFailed):
        hybrid.open_inner(recovered.hybrid.pair, inner, context, 0, 5)


def test_both_secrets_are_in_a_hybrid_mask_key():
    pair, peer = keys.new_channel_pair(b"a" * 32), keys.new_channel_pair(b"b" * 32)
    fields = [vector_fields(0, choose().vectors[0])]
    edges = [
        None,
        hybrid.Edge(b"k" * 32, b"d" * 32),
        hybrid.Edge(b"l" * 32, b"d" * 32),
        hybrid.Edge(b"k" * 32, b"e" * 32),
    ]
    agreed = [keys.mask_keys(pair, peer.public, b"c" * 32, 1, 2, fields, edge)[0] for edge in edges]
    other = keys.mask_keys(peer, pair.public, b"c" * 32, 2, 1, fields, edges[1])[0]
    assert other == agreed[1]
    assert len(set(agreed)) == 4


@pytest.mark.parametrize("half", ["channel", "mask"])
def test_bit_255_in_a_hybrid_half_is_refused(half):
    round_ = hybrid_round()
    round_.play(close=False)
    adverts = dict(round_.server._adverts)
    end = 64 + HYBRID_KEY_BYTES * (1 if half == "channel" else 2)
    bent = bytearray(adverts[4])
    bent[end - 1] |= 0x80
    roster = round_.server._codec.encode_roster({**adverts, 4: bytes(bent)})
    with pytest.raises(MalformedMessage, match="not canonical") as caught:
        round_.clients[0].receive(roster)
    assert caught.value.sender == 4
    fresh = hybrid_round().server
    with pytest.raises(MalformedMessage, match="not canonical"):
        fresh.receive(4, fresh._codec.encode_advertise(bytes(bent), b""))


@pytest.mark.parametrize("part", ["mlkem", "x25519", "classical"])
def test_a_half_that_appears_twice_is_refused(part):
    """Another client's half, or a classical key of somebody as a hybrid half."""
    round_ = hybrid_round()
    round_.play(close=False)
    adverts = dict(round_.server._adverts)
    stolen, bent = adverts[2], bytearray(adverts[4])
    if part == "mlkem":
        bent[64 : 64 + 1184] = stolen[64 + HYBRID_KEY_BYTES : 64 + HYBRID_KEY_BYTES + 1184]
    elif part == "x25519":
        bent[64 + 1184 : 64 + 1216] = stolen[64 + 1184 : 64 + 1216]
    else:
        bent[64 + 1184 : 64 + 1216] = stolen[:32]
    with pytest.raises(MalformedMessage, match="twice"):
        round_.clients[0].receive(round_.server._codec.encode_roster({**adverts, 4: bytes(bent)}))
    fresh = hybrid_round().server
    fresh.receive(2, fresh._codec.encode_advertise(stolen, b""))
    with pytest.raises(MalformedMessage, match="another client's key"):
        fresh.receive(4, fresh._codec.encode_advertise(bytes(bent), b""))


@pytest.mark.parametrize("mode", MODES)
def test_a_client_whose_own_half_appears_twice_stops_nobody(mode, monkeypatch):
    """One ML-KEM half for channel and masks: every client refuses a roster with it, so that it must not get there."""
    round_, make = hybrid_round(mode, 10), client_module.new_key_set

    def twice(parameters, mask_seed, session, entropy):
        own = make(parameters, mask_seed, session, entropy)
        half = hybrid._expand(mask_seed, "mask key ml-kem-768", session, 64)
        return own._replace(hybrid_channel=hybrid.hybrid_pair(half, entropy(32)))

    with monkeypatch.context() as patch:
        patch.setattr(client_module, "new_key_set", twice)
        advert = round_.clients[3].receive(round_.server.message_for(3))
    with pytest.raises(MalformedMessage, match="twice") as caught:
        round_.server.receive(3, advert)
    assert caught.value.sender == 3
    round_.play(silent=[3])
    assert round_.finish().survivors == (0, 1, 2, 4, 5, 6, 7, 8, 9)


def test_one_bad_row_without_an_edge_stops_nobody():
    """The row of a neighbour that this client seals to itself: a complaint, as without hybrid keys."""
    round_ = hybrid_round().play_until("masked_input")
    codec = round_.server._codec

    def spoil(client, message):
        if client != 0:
            return message
        place = 0
        assert hybrid.seals(0, 1, 6)
        start = HEADER_BYTES + 1 + place * codec.row_bytes
        return message[:start] + bytes(codec.row_bytes) + message[start + codec.row_bytes :]

    round_.play(down=spoil)
    assert round_.finish().totals["v"].tolist() == round_.plain(range(6))
    assert [(fault.dealer, fault.holder) for fault in round_.server.faults] == [(1, 0)]


def test_a_hybrid_key_that_openssl_refuses_is_its_owners_fault():
    parameters = choose(clients=6, key_agreement="x25519-mlkem768")
    round_ = Round(parameters)
    bad = new_client(parameters, 3)
    advert = bytearray(bad.receive(round_.server.message_for(3)))
    start = HEADER_BYTES + 64 + HYBRID_KEY_BYTES
    advert[start : start + 1184] = b"\xff" * 1184
    with pytest.raises(MalformedMessage, match="not valid") as caught:
        round_.server.receive(3, bytes(advert))
    assert caught.value.sender == 3
    round_.play(silent=[3], close=False)
    adverts = {**round_.server._adverts, 3: bytes(advert[HEADER_BYTES:])}
    with pytest.raises(MalformedMessage, match="not valid") as caught:
        round_.clients[2].receive(round_.server._codec.encode_roster(adverts))
    assert caught.value.sender == 3
