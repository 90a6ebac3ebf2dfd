import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secagg.graph import holder_table
from secagg.routing import Routing


@st.composite
def graphs(draw):
    clients = draw(st.integers(2, 25))
    neighbours = draw(st.sampled_from([clients - 1, *range(2, clients - 1, 2)]))
    return clients, Routing(
        holder_table(clients, neighbours=neighbours, seed=draw(st.binary(min_size=32, max_size=32)))
    )


@given(graphs())
def test_place_is_the_index_in_the_others_list(graph):
    clients, routing = graph
    for client in range(clients):
        for other, place in zip(routing.holders[client], routing.places[client], strict=True):
            assert routing.holders[other][place] == client
        assert client not in routing.neighbours(client)
        assert len(routing.neighbours(client)) == routing.width - 1


@given(graphs(), st.data())
def test_rows_and_tags_go_where_they_were_sent(graph, data):
    clients, routing = graph
    alive = np.array(data.draw(st.lists(st.booleans(), min_size=clients, max_size=clients)))

    def tag(sender, receiver):
        return sender.to_bytes(16, "big") + receiver.to_bytes(16, "big")

    silent = data.draw(st.integers(0, clients - 1))
    for sender in np.flatnonzero(alive).tolist():
        neighbours = routing.neighbours(sender)
        tags = b"".join(tag(sender, receiver) for receiver in neighbours[alive[neighbours]].tolist())
        if sender != silent:
            routing.put_tags(sender, memoryview(tags), alive)
    for receiver in np.flatnonzero(alive).tolist():
        senders = [sender for sender, _ in routing.rows_for(receiver, alive)]
        assert senders == [c for c in routing.neighbours(receiver).tolist() if alive[c]]
        if alive.sum() > (1 if alive[silent] else 0):
            expected = b"".join(bytes(32) if s == silent else tag(s, receiver) for s in senders)
            assert routing.tags_for(receiver, alive) == expected
