"""Whatever the network does, a round ends in the survivors' plain sum or in a typed error."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import AuthenticationFailed, DuplicateMessage, MalformedMessage, UnexpectedMessage
from secagg.messages import HEADER_BYTES
from secagg.testing import (
    SERVER,
    Letter,
    Network,
    delay,
    drop,
    duplicate,
    extend,
    flip,
    play,
    replay,
    rewrite,
    truncate,
)
from tests.secagg.rounds import STAGE_NAMES, choose, new_client, new_server

CLIENTS = 7
MODES = ["semi_honest", "malicious"]


def inputs(client):
    return {"v": [client, 65_535, 0, 7 * client, 1]}


def plain(survivors):
    rows = [inputs(client)["v"] for client in survivors]
    return [sum(column) % 2**16 for column in zip(*rows, strict=True)]


def round_over(network, mode="semi_honest"):
    parameters = choose(clients=CLIENTS, adversary=mode, dropout=0.3, corruption=0)
    clients = {client: new_client(parameters, client) for client in range(CLIENTS)}
    return play(new_server(parameters), clients, inputs, network=network)


@st.composite
def rules(draw):
    """One rule on some letters. Bits of masked inputs are left alone: see the last test."""
    make = draw(st.sampled_from([drop, delay, duplicate, replay, flip, truncate, extend]))
    stage = draw(st.sampled_from(STAGE_NAMES))
    client = draw(st.integers(0, CLIENTS - 1))
    where = {"sender": SERVER, "receiver": client} if draw(st.booleans()) else {"sender": client}
    if make is flip:
        if stage == "masked_input":
            where = {"sender": SERVER, "receiver": client}
        return flip(draw(st.integers(0, 4_000)), stage=stage, **where)
    return make(stage=stage, **where)


@settings(max_examples=150, deadline=None)
@given(st.lists(rules(), max_size=4), st.one_of(st.none(), st.binary(min_size=32, max_size=32)), st.data())
def test_the_sum_is_the_survivors_plain_sum_or_there_is_a_typed_error(script, shuffle, data):
    outcome = round_over(Network(*script, shuffle=shuffle), data.draw(st.sampled_from(MODES)))
    assert (outcome.sum is None) != (outcome.error is None)
    if outcome.sum:
        assert len(outcome.sum.survivors) > CLIENTS // 2
        assert outcome.sum.totals["v"].tolist() == plain(outcome.sum.survivors)


@pytest.mark.parametrize("mode", MODES)
def test_a_faithful_network_loses_nothing(mode):
    outcome = round_over(None, mode)
    assert outcome.sum.survivors == tuple(range(CLIENTS))
    assert outcome.sum.totals["v"].tolist() == plain(range(CLIENTS))
    assert not outcome.refusals
    stages = 4 if mode == "semi_honest" else 5
    assert len(outcome.delivered) == 2 * CLIENTS * stages


def test_late_letters_are_refused_and_their_sender_is_gone():
    outcome = round_over(Network(delay(stage="masked_input", sender=3)))
    assert outcome.sum.survivors == (0, 1, 2, 4, 5, 6)
    assert [(r.letter.sender, type(r.error)) for r in outcome.refusals] == [(3, UnexpectedMessage)]


def test_replayed_letters_change_nothing():
    outcome = round_over(Network(replay(), duplicate()))
    assert outcome.sum.totals["v"].tolist() == plain(outcome.sum.survivors)
    assert outcome.sum.survivors == tuple(range(CLIENTS))


def test_a_second_different_letter_is_refused():
    network = Network(lambda letter: [(0, letter), (0, second_of(letter))])
    outcome = round_over(network)
    assert {type(r.error) for r in outcome.refusals} >= {DuplicateMessage}


def second_of(letter):
    return Letter(
        letter.stage, letter.sender, letter.receiver, letter.data[:-1] + bytes([letter.data[-1] ^ 1])
    )


@pytest.mark.parametrize("rule", [truncate, extend])
@pytest.mark.parametrize("stage", [stage for stage in STAGE_NAMES if stage != "consistency"])
def test_letters_of_another_length_are_refused_and_blame_their_sender(rule, stage):
    outcome = round_over(Network(rule(stage=stage, sender=2)))
    assert [(type(r.error), r.error.sender) for r in outcome.refusals] == [(MalformedMessage, 2)]
    assert outcome.sum.totals["v"].tolist() == plain(outcome.sum.survivors)


def test_losing_more_than_the_threshold_allows_ends_in_an_error():
    lost = [drop(stage="unmask", sender=client) for client in range(4)]
    outcome = round_over(Network(*lost))
    assert outcome.sum is None
    assert "needed" in str(outcome.error)


def test_shuffled_letters_arrive_in_another_order_and_give_the_same_sum():
    orders = []
    for shuffle in (None, bytes(32)):
        outcome = round_over(Network(shuffle=shuffle))
        assert outcome.sum.totals["v"].tolist() == plain(range(CLIENTS))
        orders.append([x.sender for x in outcome.delivered if x.stage == "share" and x.receiver == SERVER])
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_rules_apply_in_order_and_see_what_the_earlier_ones_left():
    network = Network(duplicate(3, sender=1), drop(receiver=2), rewrite(lambda data: data + b"!"))
    out = network.send(Letter("share", 1, SERVER, b"x"))
    assert [letter.data for letter in out] == [b"x!"] * 3
    assert network.send(Letter("share", SERVER, 2, b"x")) == []


def test_delays_count_in_stages():
    network = Network(delay(2, sender=1))
    letter = Letter("share", 1, SERVER, b"x")
    assert network.send(letter) == []
    assert network.next_stage() == []
    assert network.next_stage() == [letter]
    assert network.next_stage() == []


def test_masked_inputs_have_no_integrity_of_their_own():
    """A network that may write masked inputs may change the sum: only the check coordinates are guarded, so
    the transport must authenticate senders. One bit of a value goes through, one of a check does not.
    """
    values = HEADER_BYTES
    changed = round_over(Network(flip(8 * values, stage="masked_input", sender=2)))
    seen = round_over(Network(flip(8 * (values + 2 * 5), stage="masked_input", sender=2)))
    assert changed.sum.totals["v"].tolist() != plain(range(CLIENTS))
    assert changed.sum.totals["v"].tolist()[1:] == plain(range(CLIENTS))[1:]
    assert isinstance(seen.error, AuthenticationFailed)
