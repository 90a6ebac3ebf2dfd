"""Partial sums: the same round whether masked inputs come one by one or added up before, and what is refused."""

import numpy as np
import pytest

from secagg import (
    Client,
    DuplicateMessage,
    LocalProtocolError,
    MalformedMessage,
    PartialSum,
    RoundParameters,
    SeededEntropy,
    Server,
    UnexpectedMessage,
    Vector,
    partial_sum,
)
from secagg.phases import Phase
from tests.secagg.rounds import meanwhile

N, LENGTH = 12, 70
VECTORS = (Vector("a", LENGTH, 20), Vector("b", 3, 40))
ROOT = SeededEntropy(bytes(32))


def values(client):
    rng = np.random.default_rng(client)
    return {v.name: rng.integers(0, 1 << v.modulus_bits, v.length, dtype=np.uint64) for v in VECTORS}


class Round:
    """A round up to the masked inputs, client 3 gone before; `masked` holds what each of the others sends."""

    def __init__(self, graph="complete", spoil=None):
        sizes = {"neighbours": 6, "threshold": 4} if graph == "sparse" else {}
        self.parameters = RoundParameters.choose(
            clients=N, vectors=VECTORS, dropout=0.25, corruption=0.0, graph=graph, task="t", round=1,
            model_hash=bytes(32), application=b"", **sizes,
        )  # fmt: skip
        self.server = Server(self.parameters, entropy=ROOT.derive("server"))
        self.clients = {c: Client(self.parameters, c, entropy=ROOT.derive(c)) for c in range(N)}
        self.exchange()
        del self.clients[3]
        self.exchange(spoil)
        self.masked = {}
        for c, client in self.clients.items():
            client.receive(self.server.message_for(c))
            self.masked[c] = client.mask(values(c))

    def exchange(self, spoil=None):
        for c, client in self.clients.items():
            answer = client.receive(self.server.message_for(c))
            self.server.receive(c, spoil(c, answer) if spoil else answer)
        self.server.advance()

    def partial(self, clients):
        partial = PartialSum(self.parameters, *self.server.partial_opening)
        for c in clients:
            partial.receive(c, self.masked[c])
        return partial

    def finish(self):
        self.server.advance()
        self.exchange()
        assert self.server.phase is Phase.DONE
        return self.server.result


def remove_silent(round_, survivors):
    for c in set(round_.clients) - set(survivors):
        del round_.clients[c]


def plain_sum(survivors):
    return {v.name: sum(values(c)[v.name] for c in survivors) % (1 << v.modulus_bits) for v in VECTORS}


@pytest.mark.parametrize("graph", ["complete", "sparse"])
def test_a_round_over_a_tree_of_partial_sums_gives_the_survivors_sum(graph):
    """Two leaves merged, a third handed up alone, one client sending directly, two (3 and 11) missing."""
    round_ = Round(graph)
    left, right = round_.partial([0, 5, 2]), round_.partial([9, 1])
    left.add(right.encode())
    sizes = round_.server.receive_partial(left.encode())
    assert sizes == {c: len(round_.masked[c]) for c in (0, 1, 2, 5, 9)}
    round_.server.receive_partial(round_.partial([4, 6, 7, 8]).encode())
    round_.server.receive(10, round_.masked[10])
    survivors = (0, 1, 2, 4, 5, 6, 7, 8, 9, 10)
    remove_silent(round_, survivors)
    result = round_.finish()
    assert result.survivors == survivors
    for name, expected in plain_sum(survivors).items():
        np.testing.assert_array_equal(result.totals[name], expected)


def test_complaints_travel_with_a_partial_sum():
    """Client 4 sent a spoilt share to somebody: the holder complains, and the round still unmasks."""

    def spoil(client, message):
        return message[:-1] + bytes([message[-1] ^ 1]) if client == 4 else message

    round_ = Round(spoil=spoil)
    round_.server.receive_partial(round_.partial(round_.clients).encode())
    result = round_.finish()
    assert [(fault.dealer, fault.holder) for fault in round_.server.faults] == [(4, 11)]
    np.testing.assert_array_equal(result.totals["b"], plain_sum(round_.clients)["b"])


def test_nobody_is_summed_twice():
    round_ = Round()
    partial = round_.partial([0, 1])
    with pytest.raises(DuplicateMessage):
        partial.receive(0, round_.masked[0])
    with pytest.raises(DuplicateMessage):
        partial.add(round_.partial([1, 2]).encode())
    round_.server.receive_partial(partial.encode())
    for again in (round_.partial([1, 2]), partial):
        with pytest.raises(DuplicateMessage):
            round_.server.receive_partial(again.encode())
    with pytest.raises(DuplicateMessage):
        round_.server.receive(1, round_.masked[1])
    round_.server.receive_partial(round_.partial([c for c in round_.clients if c > 1]).encode())
    result = round_.finish()
    np.testing.assert_array_equal(result.totals["a"], plain_sum(round_.clients)["a"])


def test_a_refused_message_leaves_no_trace():
    """Bad padding in the last vector, a stranger, a client that shared nothing: the sum is as if they had not come."""
    round_ = Round()
    partial, before = round_.partial([0]), round_.partial([0]).encode()
    flipped = bytearray(round_.masked[1])
    flipped[-3] ^= 0x80  # The last byte of the packed vectors; the bitmap of complaints is two bytes long.
    for sender, message, error in [
        (1, bytes(flipped), MalformedMessage),
        (1, round_.masked[1][:-1], MalformedMessage),
        (3, round_.masked[1], UnexpectedMessage),
        (99, round_.masked[1], UnexpectedMessage),
    ]:
        with pytest.raises(error):
            partial.receive(sender, message)
    assert partial.encode() == before


def test_complaints_about_clients_that_shared_nothing_are_refused():
    """Client 3 never shared; position 3 is bit 2 of client 1's neighbours (0, 2, 3, ...)."""
    round_ = Round()
    strange = bytearray(round_.masked[1])
    strange[-2] |= 1 << 2
    with pytest.raises(MalformedMessage, match="shared nothing"):
        round_.partial([0]).receive(1, bytes(strange))
    data = bytearray(round_.partial([1]).encode())
    data[32 + 2] |= 1 << 2
    with pytest.raises(MalformedMessage, match="shared nothing"):
        round_.server.receive_partial(bytes(data))


@pytest.mark.parametrize("change", ["session", "length", "short", "stranger", "padding", "empty"])
def test_malformed_partial_sums_are_refused_and_have_no_effect(change):
    round_ = Round()
    data = bytearray(round_.partial([0, 1]).encode())
    if change == "session":
        data[0] ^= 1
    elif change == "length":
        data += b"\0"
    elif change == "short":
        del data[-1]
    elif change == "stranger":
        data[32] |= 1 << 3
        data[34:34] = bytes(2)
    elif change == "padding":
        data[33] |= 0x80
    else:
        data.clear()
    with pytest.raises(MalformedMessage):
        round_.server.receive_partial(bytes(data))
    with pytest.raises(MalformedMessage):
        round_.partial([]).add(bytes(data))
    round_.server.receive_partial(round_.partial(round_.clients).encode())
    assert round_.finish().survivors == tuple(round_.clients)


def test_partial_sums_have_their_stage():
    round_ = Round()
    data = round_.partial(round_.clients).encode()
    round_.server.receive_partial(data)
    round_.server.advance()
    with pytest.raises(LocalProtocolError, match="phase unmask"):
        _ = round_.server.partial_opening
    with pytest.raises(UnexpectedMessage):
        round_.server.receive_partial(data)


def test_two_threads_cannot_add_one_input_twice():
    round_ = Round()
    partial, before = round_.partial([0]), round_.partial([0, 1]).encode()
    refused = meanwhile(partial._codec, "decode_masked_input", lambda: partial.receive(1, round_.masked[1]))
    partial.receive(1, round_.masked[1])
    (error,) = refused
    assert isinstance(error, LocalProtocolError)
    assert partial.encode() == before


def test_a_sum_written_while_an_input_is_added_holds_no_half_of_it(monkeypatch):
    """The vector without its sender in the bitmap would spoil the round's sum, and name nobody."""
    round_ = Round()
    partial, before = round_.partial([0]), round_.partial([0, 1]).encode()
    written, add = [], partial_sum.add_vectors

    def interrupted(*args):
        add(*args)
        with pytest.raises(LocalProtocolError, match="at work on another call"):
            written.append(partial.encode())

    monkeypatch.setattr(partial_sum, "add_vectors", interrupted)
    partial.receive(1, round_.masked[1])
    assert not written
    assert partial.encode() == before


def test_a_client_bound_to_one_place_costs_nobody_in_another():
    """Client 5 sends its input to both places; the second does not take it, and all others get through."""
    round_ = Round()
    places = [[0, 1, 2, 4, 5], [6, 7, 8, 9, 10, 11]]
    parts = [PartialSum(round_.parameters, *round_.server.partial_opening, clients=own) for own in places]
    for part in parts:
        with pytest.raises(UnexpectedMessage, match="no part in this sum"):
            part.receive(99, round_.masked[5])
    for part, own in zip(parts, places, strict=True):
        for c in own:
            part.receive(c, round_.masked[c])
    with pytest.raises(UnexpectedMessage, match="client 5 is bound to another place") as caught:
        parts[1].receive(5, round_.masked[5])
    assert caught.value.sender == 5
    parts[0].add(parts[1].encode())
    round_.server.receive_partial(parts[0].encode())
    assert round_.finish().survivors == tuple(round_.clients)


def test_the_refusal_of_a_sum_names_who_came_before_and_the_rest_gets_through_without_them():
    round_ = Round()
    round_.server.receive_partial(round_.partial([0, 1, 2]).encode())
    with pytest.raises(DuplicateMessage, match=r"came before: 1, 2; bind every client") as caught:
        round_.server.receive_partial(round_.partial([c for c in round_.clients if c]).encode())
    assert caught.value.sender == 1
    round_.server.receive_partial(round_.partial([c for c in round_.clients if c > 2]).encode())
    result = round_.finish()
    np.testing.assert_array_equal(result.totals["a"], plain_sum(round_.clients)["a"])


def test_a_long_list_of_those_who_came_before_is_cut():
    round_ = Round()
    everyone = round_.partial(round_.clients).encode()
    round_.server.receive_partial(everyone)
    with pytest.raises(DuplicateMessage, match="0, 1, 2, 4, 5, 6, 7, 8, 9, 10 and 1 more;"):
        round_.server.receive_partial(everyone)
