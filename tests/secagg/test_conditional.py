"""Conditional secrets: revealed by rule, of survivors only, on the sets each holder knows itself."""

import numpy as np
import pytest

from secagg import (
    AuthenticationFailed,
    LocalProtocolError,
    ParameterError,
    RevealRule,
    TooFewClients,
    run_round,
)
from secagg.messages import HEADER_BYTES, bitmap
from tests.secagg.rounds import Round, choose, new_client, new_server, stages_of

MODES = ["semi_honest", "malicious"]


def missing(parameters, shared, survivors):
    """Reveal as many seeds as fewer planned clients are missing than two; refuse where more are."""
    gone = parameters.clients - int(survivors.sum())
    if gone > 2:
        raise TooFewClients(
            int(survivors.sum()), parameters.clients - 2, "survivors that the noise is planned for"
        )
    return range(gone + 1, 3)


RULE = RevealRule("missing v1", missing)


def conditional(adversary="semi_honest", clients=10, **settings):
    parameters = choose(
        clients=clients, adversary=adversary, conditional_secrets=2, reveal_rule=RULE.name, **settings
    )
    return Round(parameters, rule=RULE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("stage", "revealed"), [(None, {1, 2}), ("share", {2}), ("masked_input", {2})])
def test_the_rule_counts_the_planned_clients_that_are_missing(mode, stage, revealed):
    round_ = conditional(mode)
    own, stages = {}, stages_of(round_.parameters)
    for number, name in enumerate(stages):
        if name == "masked_input":
            own = {
                c: client._secrets.seeds[2:] for c, client in round_.clients.items() if c != 4 or not stage
            }
        gone = stage is not None and number >= stages.index(stage)
        round_.play(silent=[4] if gone else [])
    result = round_.server.result
    assert set(result.revealed) == set(result.survivors)
    for client, seeds in result.revealed.items():
        assert seeds == {number: own[client][number - 1] for number in revealed}
    assert result.totals["v"].tolist() == round_.plain(result.survivors)


@pytest.mark.parametrize("mode", MODES)
def test_also_of_a_client_that_fell_silent_after_its_input(mode):
    round_ = conditional(mode).play_until("unmask")
    round_.play(silent=[7])
    assert set(round_.server.result.revealed[7]) == {1, 2}


@pytest.mark.parametrize("mode", MODES)
def test_never_of_a_client_outside_the_sum(mode):
    round_ = conditional(mode).play_until("masked_input")
    round_.play(silent=[4])
    codec = round_.server._codec
    rows = {c: client._secrets.rows for c, client in round_.clients.items() if c != 4}
    result = round_.finish()
    assert 4 not in result.revealed
    for client, held in rows.items():
        row = held[4 - (client < 4)]
        answer = round_.up["unmask"][client]
        for number in (1, 2):
            assert codec.record(row, 1 + number)[codec.salt_bytes :] not in answer


@pytest.mark.parametrize("mode", MODES)
def test_a_rule_that_refuses_stops_the_server_and_every_holder(mode):
    """Three missing where two are planned for."""
    round_ = conditional(mode).play_until("masked_input")
    with pytest.raises(TooFewClients, match="planned for"):
        round_.play(silent=[3, 4, 5])
    lied_to = conditional(mode).play_until("masked_input")
    lied_to.play()
    seven = bitmap(np.arange(10) < 7)
    if mode == "semi_honest":
        with pytest.raises(TooFewClients, match="planned for"):
            lied_to.clients[0].receive(lied_to.server.message_for(0)[:HEADER_BYTES] + seven)
        return
    lied_to.play(down=lambda c, message: message[:HEADER_BYTES] + seven, close=False)
    tags = {c: lied_to.up["consistency"][c][HEADER_BYTES:] for c in range(7)}
    to_zero = b"".join(tags[c][:32] for c in range(1, 7))
    with pytest.raises(TooFewClients, match="planned for"):
        lied_to.clients[0].receive(lied_to.server._codec.encode_tags(to_zero))


def test_holders_evaluate_the_rule_on_the_set_they_tagged():
    """The server evaluates it on a set of its own and asks for more; the lengths do not even fit."""
    round_ = conditional("malicious").play_until("masked_input")
    round_.play(silent=[4])
    round_.play()
    round_.server._numbers = [1, 2]
    round_.server._shares.open_slots(3)
    with pytest.raises(TooFewClients):
        round_.play()
    assert all("exactly" in str(error) for error in round_.refused.values())
    assert len(round_.refused) == 9


def test_counting_over_u2_instead_of_the_planned_clients_would_reveal_too_much():
    """One client missing at share: U2 has nine, U3 has nine, and one is missing all the same."""
    round_ = conditional("malicious")
    round_.play().play(silent=[9])
    while round_.stage != "done":
        round_.play()
    assert all(set(seeds) == {2} for seeds in round_.server.result.revealed.values())


def test_the_rule_is_part_of_the_session_and_must_be_the_one_named():
    parameters = choose(conditional_secrets=2, reveal_rule=RULE.name)
    for wrong in (None, RevealRule("missing v2", missing)):
        with pytest.raises(ParameterError, match="the round's is 'missing v1'"):
            new_client(parameters, 0, rule=wrong)
        with pytest.raises(ParameterError, match="the round's is"):
            new_server(parameters, rule=wrong)
    with pytest.raises(ParameterError, match="the round's is ''"):
        new_client(choose(), 0, rule=RULE)


@pytest.mark.parametrize("numbers", [(0,), (3,), (1, 4)])
def test_a_rule_that_names_a_seed_that_does_not_exist_is_refused(numbers):
    rule = RevealRule("r", lambda parameters, shared, survivors: numbers)
    parameters = choose(conditional_secrets=2, reveal_rule="r")
    with pytest.raises(ParameterError, match="named seeds"):
        Round(parameters, rule=rule).finish()


def test_a_rule_cannot_change_the_sets():
    def meddling(parameters, shared, survivors):
        survivors[:] = False
        return ()

    parameters = choose(conditional_secrets=1, reveal_rule="r")
    round_ = Round(parameters, rule=RevealRule("r", meddling))
    assert round_.finish().survivors == tuple(range(8))


def test_a_seed_that_is_not_the_committed_one_releases_nothing():
    round_ = conditional("malicious").play_until("unmask")
    position = 3
    commitments = round_.server._commitments
    commitments[position] = commitments[position][:-1] + bytes([commitments[position][-1] ^ 1])
    with pytest.raises(AuthenticationFailed, match="client 3"):
        round_.finish()


def test_run_round_hands_each_client_its_own_secrets():
    parameters = choose(clients=6, conditional_secrets=2, reveal_rule=RULE.name)
    given = {}

    def inputs(client, secrets):
        given[client] = secrets
        return {"v": Round(parameters, rule=RULE).inputs[client]["v"]}

    result = run_round(parameters, range(6), inputs, rule=RULE, dropouts={"unmask": [2]})
    assert result.revealed == {c: {1: given[c][0], 2: given[c][1]} for c in range(6)}
    assert len({seed for seeds in given.values() for seed in seeds}) == 12


def test_secrets_are_to_be_had_before_the_input_is_masked_and_not_after():
    round_ = conditional().play_until("masked_input")
    client = round_.clients[0]
    for attempt in range(2):
        with pytest.raises(LocalProtocolError, match="not to be had"):
            _ = client.conditional_secrets
        if attempt == 0:
            client.receive(round_.server.message_for(0))
            assert [len(seed) for seed in client.conditional_secrets] == [32, 32]
            client.mask(round_.inputs[0])


def test_malicious_sparse_graphs_refuse_the_facility():
    with pytest.raises(ParameterError, match="complete"):
        choose(
            clients=100, graph="sparse", dropout=0.05, corruption=0.05, adversary="malicious",
            conditional_secrets=1, reveal_rule="r",
        )  # fmt: skip
