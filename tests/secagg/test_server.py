"""The server's own rules: refused messages leave no trace, and memory does not grow with clients times length."""

import tracemalloc

import numpy as np
import pytest

from secagg import (
    AuthenticationFailed,
    DuplicateMessage,
    LocalProtocolError,
    MalformedMessage,
    ParameterError,
    RemoteProtocolError,
    TooFewClients,
    UnexpectedMessage,
    Vector,
    ring,
)
from secagg.messages import HEADER_BYTES
from secagg.phases import Kind, Phase
from tests.secagg.rounds import Round, choose, meanwhile, new_client, new_server, stages_of

MODES = ["semi_honest", "malicious"]


@pytest.mark.parametrize("mode", MODES)
def test_a_bad_message_at_any_stage_is_refused_blamed_and_replaced_by_a_good_one(mode):
    """Truncated, extended, bit-flipped in the header: nothing of it stays, the sender may send again."""
    round_ = Round(choose(adversary=mode))
    for stage in stages_of(round_.parameters):
        for client_id in round_.clients:
            good = round_.answer(client_id, round_.server.message_for(client_id))
            flipped = bytes([good[0] ^ 1]) + good[1:]
            other_session = good[:8] + bytes([good[8] ^ 1]) + good[9:]
            for bad in (b"", good[:-1], good + b"\0", flipped, other_session, good[:HEADER_BYTES]):
                with pytest.raises(RemoteProtocolError) as caught:
                    round_.server.receive(client_id, bad)
                assert caught.value.sender == client_id
            round_.server.receive(client_id, good)
            round_.server.receive(client_id, good)
        assert round_.stage == stage
        round_.server.advance()
    assert round_.server.result.totals["v"].tolist() == round_.plain(range(8))


def test_nothing_of_a_message_with_one_bad_vector_is_added():
    """The second vector has padding bits set; the first one must not be in the sum."""
    vectors = (Vector("a", 5, 16), Vector("b", 5, 16))
    round_ = Round(choose(vectors=vectors)).play_until("masked_input")

    def spoil(client, message):
        return message[:-1] + b"\xff" if client == 2 else message

    round_.play(up=spoil)
    assert isinstance(round_.refused[2], MalformedMessage)
    assert round_.refused[2].sender == 2
    result = round_.finish()
    assert 2 not in result.survivors
    for name in ("a", "b"):
        assert result.totals[name].tolist() == round_.plain(result.survivors, name)


def test_strangers_and_dropped_clients_are_refused_at_every_stage():
    round_ = Round(choose()).play_until("share")
    with pytest.raises(UnexpectedMessage, match="no part"):
        round_.server.receive(99, round_.answer(0, round_.server.message_for(0)))
    late = round_.answer(7, round_.server.message_for(7))
    round_.play(silent=[0, 7])
    with pytest.raises(LocalProtocolError, match="no part"):
        round_.server.message_for(7)
    with pytest.raises(UnexpectedMessage, match="share is not allowed"):
        round_.server.receive(7, late)
    assert not round_.server.expects(7)


def test_more_clients_than_planned_or_ids_out_of_range_are_refused():
    parameters = choose(clients=3)
    server = new_server(parameters)
    offer = server.message_for(0)
    for client_id in (0, 1):
        server.receive(client_id, new_client(parameters, client_id).receive(offer))
    spare = new_client(parameters, 7).receive(offer)
    for wrong in (-1, 2**63):
        with pytest.raises(UnexpectedMessage, match="planned"):
            server.receive(wrong, spare)
    server.receive(2, new_client(parameters, 2).receive(offer))
    with pytest.raises(UnexpectedMessage, match="planned"):
        server.receive(7, spare)


def test_a_second_advertisement_or_anothers_key_is_refused():
    parameters = choose()
    server = new_server(parameters)
    offer = server.message_for(0)
    advert = new_client(parameters, 0).receive(offer)
    server.receive(0, advert)
    with pytest.raises(DuplicateMessage):
        server.receive(0, new_client(parameters, 1).receive(offer))
    with pytest.raises(MalformedMessage, match="another client's key") as caught:
        server.receive(1, advert)
    assert caught.value.sender == 1
    mixed = advert[:HEADER_BYTES] + advert[HEADER_BYTES:][32:] + advert[HEADER_BYTES:][:32]
    with pytest.raises(MalformedMessage, match="another client's key"):
        server.receive(1, mixed)


def test_a_stage_with_too_few_is_over_for_good():
    for silent_from, what in [
        ("advertise", "advertised"),
        ("share", "shared"),
        ("masked_input", "survivors"),
    ]:
        round_ = Round(choose()).play_until(silent_from)
        with pytest.raises(TooFewClients, match=what) as caught:
            round_.play(silent=range(4))
        assert (caught.value.have, caught.value.need) == (4, 5)
        assert round_.server.phase is Phase.FAILED
        for call in (round_.server.advance, lambda: round_.server.message_for(5)):  # noqa: B023
            with pytest.raises(LocalProtocolError):
                call()


def test_the_floor_of_survivors_holds_above_the_threshold():
    round_ = Round(choose(minimum_survivors=7)).play_until("masked_input")
    with pytest.raises(TooFewClients) as caught:
        round_.play(silent=[0, 1])
    assert (caught.value.have, caught.value.need) == (6, 7)


def test_messages_are_the_same_whenever_asked():
    round_ = Round(choose(adversary="malicious"))
    while round_.stage != "done":
        assert round_.server.message_for(3) == round_.server.message_for(3)
        round_.play()


def test_a_roster_that_the_parameters_do_not_name_is_refused():
    with pytest.raises(ParameterError, match="trusted roster"):
        new_server(choose(adversary="malicious"), identities=None)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(threads):
    parameters = choose(vectors=(Vector("v", 100_000, 24),))
    round_ = Round(parameters)
    round_.server = new_server(parameters, threads=threads)
    round_.play_until("masked_input").play(silent=[3])
    assert round_.finish().totals["v"].tolist() == round_.plain([c for c in range(8) if c != 3])


def test_memory_of_the_sum_is_that_of_one_vector_not_of_all_clients():
    """30 clients of 400 KB each; the server may keep three vectors, and would need 12 MB to keep all."""
    vector = Vector("v", 100_000, 32)
    parameters = choose(clients=30, vectors=(vector,))
    round_ = Round(parameters)
    ones = np.ones(vector.length, np.uint32)
    round_.inputs = {client: {"v": ones} for client in range(30)}
    round_.play_until("masked_input")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for client_id in round_.clients:
        round_.server.receive(client_id, round_.answer(client_id, round_.server.message_for(client_id)))
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < 3 * 4 * vector.length
    round_.server.advance()
    assert set(round_.finish().totals["v"].tolist()) == {30}


def test_repr_names_the_phase_only():
    assert repr(new_server(choose())) == "Server(phase=advertise, arrived=0)"


def test_a_message_larger_than_any_is_refused_with_its_sender():
    """AES-GCM, which makes the fingerprint, takes 2^31-1 bytes; the bytes here are never touched."""
    round_ = Round(choose()).play_until("masked_input")
    huge = np.zeros(2**31, np.uint8)
    huge[:HEADER_BYTES] = np.frombuffer(round_.up["share"][2], np.uint8)[:HEADER_BYTES]
    huge[7] = Kind.MASKED_INPUT
    with pytest.raises(MalformedMessage, match="no message has more than 2147483647") as caught:
        round_.server.receive(2, memoryview(huge))
    assert caught.value.sender == 2
    assert round_.finish().survivors == tuple(range(8))


@pytest.mark.parametrize("again", [False, True])
def test_an_addition_that_is_interrupted_releases_no_wrong_sum(again, monkeypatch):
    """Some rows of the values are in and no check coordinate is; the caller goes on, or hands it over once more."""
    round_ = Round(choose(vectors=(Vector("v", 40_000, 16),))).play_until("masked_input")
    masked = {c: round_.answer(c, round_.server.message_for(c)) for c in round_.clients}
    rows, pieces = iter(range(10)), ring._pieces

    def interrupted(row, bits):
        if next(rows, None) is None:
            raise KeyboardInterrupt
        return pieces(row, bits)

    with monkeypatch.context() as patch:
        patch.setattr(ring, "_pieces", interrupted)
        with pytest.raises(KeyboardInterrupt):
            round_.server.receive(5, masked[5])
    for client, message in masked.items():
        if again or client != 5:
            round_.server.receive(client, message)
    round_.server.advance()
    with pytest.raises(AuthenticationFailed, match="do not cancel"):
        round_.finish()


@pytest.mark.parametrize("stage", [0, 1])
def test_a_round_that_ended_before_any_share_has_no_faults(stage):
    round_ = Round(choose())
    for _ in range(stage):
        round_.play()
    with pytest.raises(TooFewClients):
        round_.server.advance()
    assert round_.server.faults == ()


def test_two_threads_cannot_add_one_input_twice_or_close_the_stage_in_mid_message():
    round_ = Round(choose()).play_until("masked_input")
    server = round_.server
    masked = {c: round_.answer(c, server.message_for(c)) for c in round_.clients}
    for client, act in ((2, lambda: server.receive(2, masked[2])), (3, server.advance)):
        refused = meanwhile(server._codec, "decode_masked_input", act)
        server.receive(client, masked[client])
        (error,) = refused
        assert isinstance(error, LocalProtocolError)
    for client, message in masked.items():
        server.receive(client, message)
    server.advance()
    assert round_.finish().totals["v"].tolist() == round_.plain(range(8))
