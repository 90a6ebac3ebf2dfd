import dataclasses

import pytest

from secagg import ParameterError, RevealRule, RoundParameters, Vector, graph_parameters
from tests.secagg.rounds import Round, choose


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"clients": 1}, "number of clients is 1"),
        ({"clients": 10**6 + 1}, "number of clients"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": -0.1}, "dropout"),
        ({"corruption": 1.5}, "corruption is 1.5"),
        ({"dropout": float("nan")}, "dropout"),
        ({"round": -1}, "the round is -1"),
        ({"model_hash": bytes(31)}, "31 bytes"),
        ({"vectors": ()}, "at least one"),
        ({"vectors": (Vector("a", 1, 8), Vector("a", 2, 8))}, "its own name"),
        ({"threshold": 1}, "threshold is 1"),
        ({"threshold": 9}, "threshold is 9"),
        ({"graph": "sparse", "neighbours": 3, "threshold": 2}, "3 neighbours"),
        ({"graph": "sparse", "neighbours": 8, "threshold": 2}, "8 neighbours"),
        ({"neighbours": 4, "threshold": 3}, "complete graph is 4"),
        ({"minimum_survivors": 9}, "floor of survivors is 9"),
        ({"minimum_survivors": 1}, "floor of survivors is 1"),
        ({"corruption": 0.5, "threshold": 4}, "lets 4 corrupted"),
        ({"dropout": 0.6}, "8"),
        ({"conditional_secrets": -1}, "conditional secrets is -1"),
    ],
)
def test_values_out_of_range_are_named_with_their_limit(change, match):
    with pytest.raises(ParameterError, match=match):
        choose(**change)


@pytest.mark.parametrize(("length", "bits"), [(0, 8), (-1, 8), (2**32 + 1, 8), (1, 0), (1, 63)])
def test_vectors_out_of_range_are_refused(length, bits):
    with pytest.raises(ParameterError):
        Vector("v", length, bits)


@pytest.mark.parametrize(("bits", "checks"), [(1, 64), (2, 32), (24, 3), (31, 3), (32, 2), (33, 2), (62, 2)])
def test_check_coordinates_hold_64_bits(bits, checks):
    assert Vector("v", 10, bits).checks == checks
    assert Vector("v", 10, bits).padded_length == 10 + checks


def test_auto_is_sparse_exactly_where_feasible_with_fewer_than_half_the_clients():
    for clients in (10, 20, 40, 90, 100, 300):
        parameters = choose(clients=clients, graph="auto", dropout=0.05, corruption=0.05)
        try:
            found = graph_parameters(clients, dropout=0.05, corruption=0.05)
        except ParameterError:
            assert parameters.graph == "complete"
            continue
        if clients >= 20:
            sparse = 2 * found.neighbours < clients
            assert (parameters.graph == "sparse") is sparse
            if sparse:
                assert (parameters.neighbours, parameters.threshold) == (found.neighbours, found.threshold)
    complete = choose(clients=20, graph="complete", dropout=0.1, corruption=0.1)
    assert (complete.neighbours, complete.threshold) == (19, 12)


def test_auto_never_plans_for_nobody():
    """A ring of 8 that tolerates no dropout at all would be feasible with k = 2."""
    assert graph_parameters(8, dropout=0.1, corruption=0.1).neighbours == 2
    assert choose(clients=8, graph="auto", dropout=0.1, corruption=0.1).graph == "complete"


def test_neighbours_under_auto_ask_for_the_sparse_graph():
    parameters = choose(clients=30, graph="auto", neighbours=8, threshold=5)
    assert (parameters.graph, parameters.neighbours, parameters.threshold) == ("sparse", 8, 5)


def test_corrupted_is_absolute_and_exact():
    assert choose(clients=100, corruption=0.29).corrupted == 29
    assert choose(clients=100, dropout=0.29).dropped == 29


def test_malicious_mode_needs_its_own_choice_and_a_roster():
    with pytest.raises(ParameterError, match="roster of identity keys"):
        choose(adversary="malicious", roster_hash=b"")
    with pytest.raises(ParameterError, match="do not meet"):
        choose(adversary="malicious", threshold=3)
    explicit = choose(
        clients=100, graph="sparse", neighbours=52, dropout=0.05, corruption=0.05, adversary="malicious"
    )
    assert (explicit.neighbours, explicit.threshold) == (52, 30)


def test_a_threshold_is_found_for_given_neighbours_or_there_is_none():
    settings = {"clients": 100, "graph": "sparse", "dropout": 0.05, "corruption": 0.05}
    assert choose(**settings, neighbours=20).threshold == 6
    assert choose(**settings, neighbours=20, threshold=11).threshold == 11
    with pytest.raises(ParameterError, match="no threshold makes 4 neighbours"):
        choose(**settings, neighbours=4)


def test_malicious_parameters_below_the_conditions_are_refused_however_made():
    complete = choose(clients=20, adversary="malicious")
    with pytest.raises(ParameterError, match="do not meet"):
        dataclasses.replace(complete, threshold=complete.threshold - 1)
    sparse = choose(clients=100, graph="sparse", dropout=0.05, corruption=0.05, adversary="malicious")
    with pytest.raises(ParameterError, match=r"do not meet .*E4"):
        dataclasses.replace(sparse, threshold=sparse.threshold - 1)
    with pytest.raises(ParameterError, match="do not meet"):
        dataclasses.replace(sparse, neighbours=sparse.neighbours - 2)


def test_malicious_sparse_choice_holds_for_the_smallest_roster_too():
    """C and D stay absolute when a tenth of the planned clients does not show up."""
    settings = {
        "clients": 100,
        "graph": "sparse",
        "dropout": 0.05,
        "corruption": 0.05,
        "adversary": "malicious",
    }
    parameters = choose(**settings, minimum_survivors=13)
    on_fewer = graph_parameters(90, dropout=5 / 90, corruption=5 / 90, adversary="malicious")
    assert (parameters.neighbours, parameters.threshold) == (on_fewer.neighbours, on_fewer.threshold)
    assert parameters.minimum_roster == 90
    assert choose(**settings).minimum_roster == 95


def test_conditional_secrets_against_an_active_server_need_the_complete_graph():
    settings = {"clients": 100, "dropout": 0.05, "corruption": 0.05, "adversary": "malicious"}
    choose(**settings, graph="complete", conditional_secrets=1, reveal_rule="r")
    with pytest.raises(ParameterError, match="complete"):
        choose(**settings, graph="sparse", conditional_secrets=1, reveal_rule="r")


def test_differences_name_the_fields_of_an_offer():
    mine = choose()
    assert mine.differences(mine.canonical) == []
    assert mine.differences(choose(round=4, task="x").canonical) == ["task", "round"]
    assert len(mine.differences(b"rubbish")) == len(dataclasses.fields(RoundParameters))


@pytest.mark.parametrize("adversary", ["semi_honest", "malicious"])
def test_minimum_survivors_defaults_to_what_planned_dropouts_leave(adversary):
    """On the ring t says nothing about the sum: 18 of 1,000 with 50 corrupted, where 951 lets planned dropouts pass."""
    settings = {"clients": 1000, "dropout": 0.049, "corruption": 0.05, "adversary": adversary}
    sparse = choose(**settings, graph="sparse")
    assert sparse.minimum_survivors == 951
    complete = choose(**settings, graph="complete")
    assert complete.minimum_survivors == complete.threshold > complete.corrupted + 1
    assert choose(minimum_survivors=7).minimum_roster == 7


def test_the_default_floor_leaves_two_honest_clients_in_any_sum():
    """A threshold of C + 1 on the complete graph, a ring of which nearly all may drop out; never above the clients."""
    assert choose(clients=8, corruption=0.25, threshold=3).minimum_survivors == 4
    ring = choose(clients=12, graph="sparse", neighbours=4, threshold=3, dropout=0.9, corruption=0.5)
    assert ring.minimum_survivors == 8
    assert choose(clients=2, corruption=0.5, dropout=0, threshold=2).minimum_survivors == 2
    assert choose(clients=12, graph="sparse", neighbours=4, threshold=3, dropout=0).minimum_survivors == 11


def test_rounds_with_a_message_that_is_too_large_are_refused():
    """26 bits a value: 2^31-1 bytes hold some 660 million. 41 bytes of a masked input are no values."""
    choose(vectors=(Vector("v", 660_000_000, 26),))
    choose(vectors=(Vector("v", 2**32, 3),))
    for vectors in ((Vector("v", 661_000_000, 26),), (Vector("a", 2**32, 3), Vector("b", 2**32, 3))):
        with pytest.raises(ParameterError, match="sum fewer values"):
            choose(vectors=vectors)
    columns = (2**31 - 1 - 41) // 16
    choose(vectors=(Vector("v", columns * 32 - 16, 4),))
    with pytest.raises(ParameterError, match=rf"{16 * (columns + 1) + 41} bytes and one holds 2147483647;"):
        choose(vectors=(Vector("v", columns * 32 - 15, 4),))


def test_so_many_conditional_secrets_that_shares_are_too_large_are_refused():
    settings = {"clients": 65_000, "reveal_rule": "r", "key_agreement": "x25519-mlkem768"}
    choose(**settings, conditional_secrets=850)
    with pytest.raises(ParameterError, match="fewer neighbours or conditional secrets"):
        choose(**settings, conditional_secrets=860)


@pytest.mark.parametrize(
    "mode", [{}, {"adversary": "malicious"}, {"key_agreement": "x25519-mlkem768", "dropout": 0.3}]
)
def test_no_client_sends_more_than_the_largest_message(mode):
    round_ = Round(
        choose(**mode, conditional_secrets=2, reveal_rule="all"), rule=RevealRule("all", lambda *_: (1, 2))
    )
    round_.finish()
    codec, sent = round_.server._codec, [len(m) for stage in round_.up.values() for m in stage.values()]
    largest = codec.largest_from_client(7)
    assert largest - 4 * 1200 <= max(sent) <= largest
