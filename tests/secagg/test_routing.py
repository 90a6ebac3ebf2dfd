import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secagg.graph import holder_table
from secagg.routing import Routing, Rows


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
def test_rows_go_where_they_were_sent(graph, data):
    clients, routing = graph
    alive = np.array(data.draw(st.lists(st.booleans(), min_size=clients, max_size=clients)))
    silent = data.draw(st.integers(0, clients - 1))

    def row(sender, receiver):
        return sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")

    to_all, to_holders, to_alive = (Rows(routing, width=8, to_itself=own) for own in (False, True, False))
    for sender in range(clients):
        neighbours, holders = routing.neighbours(sender).tolist(), routing.holders[sender].tolist()
        if sender != silent:
            to_all.put(sender, b"".join(row(sender, other) for other in neighbours))
            to_holders.put(sender, b"".join(row(sender, other) for other in holders))
            kept = b"".join(row(sender, other) for other in neighbours if alive[other])
            to_alive.put_for(sender, memoryview(kept), alive)
    for receiver in np.flatnonzero(alive).tolist():
        senders = [c for c in routing.neighbours(receiver).tolist() if alive[c]]
        assert routing.incoming(receiver, alive)[0].tolist() == senders
        expected = b"".join(bytes(8) if s == silent else row(s, receiver) for s in senders)
        assert to_all.incoming(receiver, alive) == expected
        assert to_holders.incoming(receiver, alive) == expected
        assert to_alive.incoming(receiver, alive) == expected
        for sender, place in zip(*routing.incoming(receiver, alive), strict=True):
            assert sender == silent or to_holders.rows([sender], [place]) == row(int(sender), receiver)
