"""An active server lies about who takes part and on what terms: the client refuses before it masks anything.

Rows of the attack table: downgrades, parallel rosters, sybils, keys with torsion or of low order, weak graphs,
another model for one client, messages of another round, ciphertexts that change pair or direction.
"""

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from secagg import (
    AuthenticationFailed,
    InconsistentSets,
    MalformedMessage,
    ParameterError,
    RefusedParameters,
    TooFewClients,
    Vector,
)
from secagg import keys as keys_module
from secagg.binding import advert_statement, session_of, vector_fields
from secagg.graph_parameters import unmet_conditions
from secagg.messages import HEADER_BYTES, encode_offer
from tests.secagg.rounds import Round, choose, identity_of, new_client, new_server

P = 2**255 - 19


def offer_of(parameters):
    """What a server that runs these parameters would offer."""
    return encode_offer(session_of(parameters, bytes(32)), bytes(32), parameters.canonical)


MINE = choose(clients=100, graph="complete", dropout=0.05, corruption=0.05, adversary="malicious")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("adversary", {"adversary": "semi_honest", "roster_hash": b""}),
        ("graph", {"graph": "sparse", "neighbours": 40, "threshold": 31}),
        ("key_agreement", {"key_agreement": "x25519-mlkem768"}),
        ("corruption", {"corruption": 0.01}),
        ("dropout", {"dropout": 0.2}),
        ("security_bits", {"security_bits": 20}),
        ("failure_bits", {"failure_bits": 10}),
        ("clients", {"clients": 3, "neighbours": 2, "threshold": 2, "minimum_survivors": 2}),
        ("threshold", {"threshold": 60}),
        ("minimum_survivors", {"minimum_survivors": 2}),
        ("roster_hash", {"roster_hash": b"r" * 32}),
        ("application", {"application": b"half the noise"}),
        ("vectors", {"vectors": (Vector("v", 5, 17),)}),
        ("round", {"round": 2}),
        ("model_hash", {"model_hash": b"m" * 32}),
        ("conditional_secrets", {"conditional_secrets": 1, "reveal_rule": "all"}),
    ],
)
def test_a_downgraded_offer_is_refused_by_name(field, changes):
    offered = dataclasses.replace(MINE, **changes)
    with pytest.raises(RefusedParameters, match=field):
        new_client(MINE, 0).receive(offer_of(offered))


def test_the_downgrade_of_hybrid_keys_is_refused():
    hybrid = choose(key_agreement="x25519-mlkem768")
    with pytest.raises(RefusedParameters, match="key_agreement"):
        new_client(hybrid, 0).receive(offer_of(choose()))


def advertised(clients=20, **settings):
    """A malicious-mode round in which everybody advertised, and the advertised rows by client."""
    round_ = Round(choose(clients=clients, adversary="malicious", **settings))
    round_.play(close=False)
    return round_, dict(round_.server._adverts)


def test_a_second_roster_with_half_of_the_clients_is_refused():
    """Two parallel rosters over the same corrupted clients: each is below nine tenths of the planned ones."""
    round_, adverts = advertised()
    for half in (range(0, 12), range(8, 20)):
        message = round_.server._codec.encode_roster({c: adverts[c] for c in half})
        with pytest.raises(TooFewClients) as caught:
            round_.clients[half[0]].receive(message)
        assert (caught.value.have, caught.value.need) == (12, 18)


def test_a_victim_among_sybils_refuses_strangers():
    round_, adverts = advertised()
    sybils = {c: bytes([c - 98]) * 32 + bytes([c - 60]) * 32 + bytes(64) for c in range(100, 119)}
    message = round_.server._codec.encode_roster({0: adverts[0], **sybils})
    with pytest.raises(InconsistentSets, match="client 100 is not in the trusted roster"):
        round_.clients[0].receive(message)


def test_a_victim_among_sybils_refuses_keys_that_trusted_clients_did_not_sign():
    round_, adverts = advertised()
    sybil = keys_module.new_channel_pair(b"y" * 32).public + keys_module.new_channel_pair(b"z" * 32).public
    adverts[7] = sybil + identity_of(8).sign(
        advert_statement(round_.server._session, 7, round_.parameters.roster_hash, sybil)
    )
    with pytest.raises(AuthenticationFailed) as caught:
        round_.clients[0].receive(round_.server._codec.encode_roster(adverts))
    assert caught.value.sender == 7


@pytest.mark.parametrize("change", ["session", "id", "roster", "keys"])
def test_a_signature_covers_session_id_roster_and_keys(change):
    round_, adverts = advertised()
    session, roster = round_.server._session, round_.parameters.roster_hash
    publics, client = adverts[7][:64], 7
    if change == "session":
        session = b"x" * 32
    elif change == "id":
        client = 8
    elif change == "roster":
        roster = b"x" * 32
    else:
        publics = keys_module.new_channel_pair(b"y" * 32).public + publics[32:]
    signature = identity_of(7).sign(advert_statement(session, client, roster, adverts[7][:64]))
    adverts[7] = publics + signature
    with pytest.raises(AuthenticationFailed):
        round_.clients[0].receive(round_.server._codec.encode_roster(adverts))


def test_the_server_refuses_an_advertisement_that_its_sender_did_not_sign():
    round_, adverts = advertised()
    fresh = new_server(round_.parameters)
    for data in round_.up["advertise"].values():
        assert data[HEADER_BYTES:] in adverts.values()
    data = round_.up["advertise"][3]
    with pytest.raises(AuthenticationFailed) as caught:
        fresh.receive(4, data)
    assert caught.value.sender == 4


@pytest.mark.parametrize("position", [0, 32])
@pytest.mark.parametrize("mode", ["semi_honest", "malicious"])
def test_a_key_that_appears_twice_anywhere_is_refused(position, mode):
    """Also a channel key that appears as somebody's mask key."""
    round_ = Round(choose(adversary=mode))
    round_.play(close=False)
    adverts = dict(round_.server._adverts)
    stolen = adverts[5][32:64]
    forged = adverts[6][:position] + stolen + adverts[6][position + 32 : 64]
    adverts[6] = forged + adverts[6][64:]
    with pytest.raises(MalformedMessage, match="twice") as caught:
        round_.clients[0].receive(round_.server._codec.encode_roster(adverts))
    assert caught.value.sender in (5, 6)


@pytest.mark.parametrize("value", [0, 1, P - 1, P, P + 2, P + 18, 9 + 2**255])
def test_unsound_keys_are_refused_by_server_and_client(value):
    bad = value.to_bytes(32, "little")
    round_ = Round(choose())
    round_.play(close=False)
    adverts = dict(round_.server._adverts)
    adverts[6] = bad + adverts[6][32:]
    with pytest.raises(MalformedMessage, match="low order") as caught:
        round_.clients[0].receive(round_.server._codec.encode_roster(adverts))
    assert caught.value.sender == 6
    fresh = new_server(round_.parameters)
    with pytest.raises(MalformedMessage) as caught:
        fresh.receive(6, fresh._codec.encode_advertise(adverts[6], b""))
    assert caught.value.sender == 6


def test_honest_key_plus_torsion_point_gives_other_masks_than_the_honest_key():
    """On the curve, adding the point of order two maps u to 1/u: canonical, distinct, the same exchanges.

    Without both keys in the info, a sybil with 1/u would share a mask key with everyone that u shares one with.
    """
    honest = keys_module.new_channel_pair(b"h" * 32)
    victim = keys_module.new_channel_pair(b"v" * 32)
    u = int.from_bytes(honest.public, "little")
    shifted = pow(u, -1, P).to_bytes(32, "little")
    assert keys_module.is_sound(shifted)
    assert shifted != honest.public
    exchanged = [
        victim.private.exchange(X25519PublicKey.from_public_bytes(key)) for key in (honest.public, shifted)
    ]
    assert exchanged[0] == exchanged[1]
    fields = [vector_fields(0, Vector("v", 4, 16))]
    one, other = (
        keys_module.mask_keys(victim, key, b"c" * 32, 1, 2, fields)[0] for key in (honest.public, shifted)
    )
    assert one != other
    root = keys_module.channel_root(victim, honest.public, b"c" * 32, 2)
    sealing = [
        keys_module.directional("seal", root, victim.public, key, me=1, them=2)
        for key in (honest.public, shifted)
    ]
    assert set(sealing[0]).isdisjoint(sealing[1])


def test_a_ring_that_meets_e4_only_is_refused():
    """Dropping two half-windows would cut such a ring into two sums."""
    limits = {"dropout": 0.0, "corruption": 0.1, "adversary": "malicious"}
    weak = None
    for k in range(40, 200, 2):
        for t in range(k // 2 + 2, k + 1):
            if unmet_conditions(1000, k, t, **limits) == ("E5",):
                weak = (k, t)
                break
        if weak:
            break
    assert weak, "some ring meets every condition but E5"
    good = choose(clients=1000, graph="sparse", dropout=0.0, corruption=0.1, adversary="malicious")
    with pytest.raises(ParameterError, match="E5"):
        dataclasses.replace(good, neighbours=weak[0], threshold=weak[1], minimum_survivors=weak[1])


def test_another_model_shown_to_one_client_is_refused_at_the_offer():
    told = choose(model_hash=b"w" * 32)
    with pytest.raises(RefusedParameters, match="model_hash"):
        new_client(told, 0).receive(offer_of(choose()))


@pytest.mark.parametrize("what", ["model_hash", "round", "application"])
def test_nothing_opens_for_a_client_that_was_lied_to_about_the_round(what):
    """The server offers the victim what it wants to hear and splices it into the round of the others."""
    change = {"model_hash": b"w" * 32, "round": 4, "application": b"less noise"}[what]
    truth, lie = choose(), choose(**{what: change})
    round_ = Round(truth)
    victim = new_client(lie, 0)
    spliced = Round(lie)
    true_codec, false_codec = round_.server._codec, spliced.server._codec
    advert = victim.receive(spliced.server.message_for(0))
    with pytest.raises(MalformedMessage, match="another session"):
        round_.server.receive(0, advert)
    round_.play(silent=[0], close=False)
    round_.server.receive(0, true_codec.encode_advertise(advert[HEADER_BYTES:], b""))
    round_.server.advance()

    def falsely(message):
        return message[: HEADER_BYTES - 32] + false_codec._session + message[HEADER_BYTES:]

    share = victim.receive(falsely(round_.server.message_for(0)))
    round_.play(silent=[0], close=False)
    round_.server.receive(0, share[: HEADER_BYTES - 32] + true_codec._session + share[HEADER_BYTES:])
    round_.server.advance()
    with pytest.raises(AuthenticationFailed, match="nothing opened"):
        victim.receive(falsely(round_.server.message_for(0)))
    round_.play(silent=[0])
    assert all(not client._secrets.rows[0] for c, client in round_.clients.items() if c != 0)
    with pytest.raises(TooFewClients, match="share holders of client 0"):
        round_.finish()


@pytest.mark.parametrize("stage", ["share", "masked_input", "unmask"])
def test_messages_of_one_round_are_refused_in_the_next(stage):
    old, new = Round(choose(round=3)), Round(choose(round=4))
    old.play_until("done")
    new.play_until(stage)
    with pytest.raises(MalformedMessage, match="another session"):
        new.server.receive(1, old.up[stage][1])
    with pytest.raises(MalformedMessage, match="another session"):
        new.clients[1].receive(old.down[stage][1])


@pytest.mark.parametrize("swap", ["pairs", "directions"])
def test_ciphertexts_that_change_pair_or_direction_do_not_open(swap):
    round_ = Round(choose()).play_until("masked_input")
    width = round_.server._codec.row_bytes

    def exchange(client, message):
        start = HEADER_BYTES + 1
        rows = [message[start + i * width : start + (i + 1) * width] for i in range(7)]
        if swap == "pairs":
            rows[0], rows[1] = rows[1], rows[0]
        else:
            peer = 0 if client else 1
            own = round_.up["share"][client][HEADER_BYTES + 32 :]
            at = peer - (peer > client)
            rows[at] = own[at * width : (at + 1) * width]
        return message[:start] + b"".join(rows)

    round_.play(down=lambda client, message: exchange(client, message) if client == 3 else message)
    assert [fault.holder for fault in round_.server.faults] == [3] * (2 if swap == "pairs" else 1)
    assert round_.finish().totals["v"].tolist() == round_.plain(range(8))


def test_two_vectors_of_equal_shape_have_distinct_masks():
    vectors = (Vector("a", 50, 16), Vector("b", 50, 16))
    round_ = Round(choose(vectors=vectors)).play_until("masked_input")
    for values in round_.inputs.values():
        values["b"] = values["a"]
    round_.play()
    message = round_.up["masked_input"][0]
    _, (one, other) = round_.server._codec.decode_masked_input(message, neighbours=7, sender=0)
    assert one != other
    result = round_.finish()
    assert result.totals["a"].tolist() == result.totals["b"].tolist() == round_.plain(range(8), "a")


def test_wrong_masks_of_one_vector_show_in_its_check_coordinates():
    """A byzantine client masks the second vector under another name, so that it cancels with nobody."""
    vectors = (Vector("a", 5, 16), Vector("b", 5, 16))
    round_ = Round(choose(vectors=vectors)).play_until("masked_input")
    bad = round_.clients[3]
    renamed = (Vector("a", 5, 16), Vector("c", 5, 16))
    bad._parameters = dataclasses.replace(round_.parameters, vectors=renamed)
    round_.inputs[3]["c"] = round_.inputs[3].pop("b")
    round_.play()
    assert not round_.refused
    with pytest.raises(AuthenticationFailed, match="'b' do not cancel"):
        round_.play()
