"""The bench's own adversaries: each one really does what it says, and is caught where the protocol promises it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import AuthenticationFailed, IdentityRoster, InconsistentSets, SeededEntropy, TooFewClients
from secagg.phases import Kind
from secagg.recovery import Fault
from secagg.testing import (
    BendableServer,
    ByzantineClient,
    Network,
    drop,
    no_secret,
    one_wrong_share,
    play,
    too_high_a_degree,
)
from tests.secagg.rounds import choose, identity_of, new_client

CLIENTS = 8
EVERYONE = range(CLIENTS)
HALVES = {"first": EVERYONE[:4], "second": EVERYONE[4:]}
MODES = ["semi_honest", "malicious"]


def values(client):
    return {"v": [client, 65_535, 0, 7 * client, 1]}


def plain(survivors):
    rows = [values(client)["v"] for client in survivors]
    return [sum(column) % 2**16 for column in zip(*rows, strict=True)]


def parameters_of(mode, **settings):
    return choose(clients=CLIENTS, adversary=mode, **{"dropout": 0.25, "corruption": 0.0, **settings})


def bendable(parameters, **options):
    if parameters.is_malicious:
        options["identities"] = IdentityRoster.of({client: identity_of(client) for client in EVERYONE})
    return BendableServer(parameters, entropy=SeededEntropy(b"s" * 32), **options)


def byzantine(parameters, client, **options):
    """A byzantine client with everything an honest one has."""
    if parameters.is_malicious:
        everyone = {other: identity_of(other) for other in EVERYONE}
        options |= {"identity": everyone[client], "identities": IdentityRoster.of(everyone)}
    return ByzantineClient(parameters, client, entropy=SeededEntropy(b"b" * 32).derive(client), **options)


def round_of(server, parameters, bad=None, network=None):
    clients = {client: new_client(parameters, client) for client in EVERYONE} | (bad or {})
    return play(server, clients, values, network=network)


@pytest.mark.parametrize("mode", MODES)
def test_unbent_they_are_honest(mode):
    parameters = parameters_of(mode)
    server = bendable(parameters)
    outcome = round_of(server, parameters, {3: byzantine(parameters, 3)})
    assert outcome.sum.totals["v"].tolist() == plain(EVERYONE)
    assert not outcome.refusals
    assert server.faults == ()
    assert server.unmasked == ()
    assert len(server.received) == CLIENTS * (4 if mode == "semi_honest" else 5)


def equivocating(parameters, **options):
    server = bendable(parameters, **options)
    server.show_survivors(HALVES["first"], among=EVERYONE[:7])
    server.show_survivors(HALVES["second"], among=EVERYONE)
    return server


def test_equivocation_unmasks_a_client_under_a_threshold_of_half():
    """Power of `unmasked`: a semi-honest round whose threshold the caller set too low is broken by a lie."""
    parameters = parameters_of("semi_honest", threshold=4)
    server = equivocating(parameters)
    round_of(server, parameters)
    assert server.unmasked == (7,)


@pytest.mark.parametrize("reflect", [False, True])
def test_equivocation_unmasks_nobody_in_malicious_mode(reflect):
    parameters = parameters_of("malicious")
    server = equivocating(parameters, floors=False, reflect_tags=reflect)
    outcome = round_of(server, parameters)
    assert outcome.sum is None
    assert server.unmasked == ()
    assert {type(refusal.error) for refusal in outcome.refusals} == {TooFewClients}
    assert not [stage for stage, _, _ in server.received if stage == "unmask"]


@pytest.mark.parametrize("mode", MODES)
def test_a_u2_without_the_client_itself_is_refused(mode):
    parameters = parameters_of(mode)
    server = bendable(parameters)
    server.show_shared([0], among=EVERYONE[1:])
    outcome = round_of(server, parameters)
    assert [type(refusal.error) for refusal in outcome.refusals] == [InconsistentSets]
    assert outcome.sum.totals["v"].tolist() == plain(EVERYONE[1:])


@pytest.mark.parametrize("mode", MODES)
def test_a_client_that_never_shared_can_be_pretended_to_and_the_sum_still_is_exact_or_absent(mode):
    parameters = parameters_of(mode)
    server = bendable(parameters)
    server.show_shared(EVERYONE[:7], among=EVERYONE)
    outcome = round_of(server, parameters, network=Network(drop(stage="share", sender=7)))
    assert outcome.sum is None or outcome.sum.totals["v"].tolist() == plain(outcome.sum.survivors)
    assert server.unmasked == ()


@pytest.mark.parametrize("mode", MODES)
def test_one_spoiled_row_costs_one_share_and_names_both_ends(mode):
    parameters = parameters_of(mode)
    server = bendable(parameters)
    server.spoil_row(2, 5)
    outcome = round_of(server, parameters)
    assert outcome.sum.totals["v"].tolist() == plain(EVERYONE)
    assert [(fault.dealer, fault.holder) for fault in server.faults] == [(2, 5)]


def test_a_message_can_be_bent_as_a_whole():
    parameters = parameters_of("semi_honest")
    server = bendable(parameters)
    server.bend(Kind.ROSTER, lambda client, message: message[:-1] if client == 4 else message)
    outcome = round_of(server, parameters)
    assert [refusal.letter.receiver for refusal in outcome.refusals] == [4]
    assert outcome.sum.survivors == (0, 1, 2, 3, 5, 6, 7)


BENT = {
    "one wrong share": {"delta": one_wrong_share(3)},
    "too high a degree": {"delta": too_high_a_degree(5)},
    "no secret": {"delta": no_secret()},
    "unreadable for one": {"unreadable_for": [5]},
    "unreadable for all": {"unreadable_for": EVERYONE},
    "wrong hashes": {"wrong_hashes": True},
    "denounces": {"denounce": [1, 6]},
    "reveals falsely": {"reveals_falsely": True},
}


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, CLIENTS - 1), st.sampled_from(sorted(BENT)), max_size=3),
    st.sets(st.integers(0, CLIENTS - 1), max_size=2),
    st.sampled_from(MODES),
)
def test_byzantine_clients_end_a_round_or_do_not_and_honest_ones_are_never_blamed_alone(bent, silent, mode):
    parameters = parameters_of(mode)
    server = bendable(parameters)
    bad = {client: byzantine(parameters, client, **BENT[name]) for client, name in bent.items()}
    network = Network(*(drop(stage="masked_input", sender=client) for client in silent))
    outcome = round_of(server, parameters, bad, network)
    if outcome.sum:
        assert outcome.sum.totals["v"].tolist() == plain(outcome.sum.survivors)
    for fault in server.faults:
        assert {fault.dealer, fault.holder} & bent.keys(), fault
    assert server.unmasked == ()


@pytest.mark.parametrize("name", ["one wrong share", "too high a degree", "no secret"])
def test_a_bad_dealing_names_its_dealer_alone(name):
    parameters = parameters_of("malicious")
    server = bendable(parameters)
    outcome = round_of(server, parameters, {2: byzantine(parameters, 2, **BENT[name])})
    if name == "one wrong share":
        assert outcome.sum.totals["v"].tolist() == plain(EVERYONE)
    else:
        assert isinstance(outcome.error, AuthenticationFailed)
    assert [(fault.dealer, fault.holder) for fault in server.faults] == [(2, None)]


def test_wrong_hashes_name_the_dealer_with_each_holder():
    parameters = parameters_of("malicious")
    server = bendable(parameters)
    outcome = round_of(server, parameters, {2: byzantine(parameters, 2, **BENT["wrong hashes"])})
    assert isinstance(outcome.error, TooFewClients)
    assert {(fault.dealer, fault.holder) for fault in server.faults} >= {(2, c) for c in EVERYONE if c != 2}


def test_a_false_complaint_costs_one_share_and_names_both():
    parameters = parameters_of("malicious")
    server = bendable(parameters)
    outcome = round_of(server, parameters, {2: byzantine(parameters, 2, **BENT["denounces"])})
    assert outcome.sum.totals["v"].tolist() == plain(EVERYONE)
    assert {(fault.dealer, fault.holder) for fault in server.faults} == {(1, 2), (6, 2)}


def test_a_false_share_is_not_used_and_names_its_holder_alone():
    parameters = parameters_of("malicious")
    server = bendable(parameters)
    outcome = round_of(server, parameters, {2: byzantine(parameters, 2, **BENT["reveals falsely"])})
    assert outcome.sum.totals["v"].tolist() == plain(EVERYONE)
    assert {(fault.dealer, fault.holder) for fault in server.faults} == {(None, 2)}
    assert all(isinstance(fault, Fault) for fault in server.faults)


def test_without_hashes_a_holder_of_false_shares_is_outvoted_and_named_with_every_dealer():
    parameters = parameters_of("semi_honest")
    server = bendable(parameters)
    outcome = round_of(server, parameters, {0: byzantine(parameters, 0, **BENT["reveals falsely"])})
    assert outcome.sum.totals["v"].tolist() == plain(EVERYONE)
    assert {fault.holder for fault in server.faults} == {0}
    assert {fault.dealer for fault in server.faults} == {c for c in EVERYONE if c}
