"""Parts of a population that travel: the same data for their clients, and nobody else's where that is plain to see."""

import pickle

import numpy as np
import pytest

from fedavg import ClientData

N = 40
ROWS = np.arange(10000.0).reshape(200, 50)
USERS = np.arange(200) % N


def lazy(client):
    return np.full(3, float(client))


POPULATIONS = {
    "a list": ClientData.of([np.full(3, float(i)) for i in range(N)]),
    "a mapping": ClientData.of({f"c{i}": np.full(3, float(i)) for i in range(N)}),
    "arrays": ClientData.from_arrays(ROWS, USERS, users=USERS),
    "rows": ClientData.from_parts(ROWS, parts=np.arange(200).reshape(N, 5)),
    "uneven parts": ClientData.from_parts(
        ROWS, parts=np.split(np.arange(200)[::-1], np.arange(1, N) ** 2 // 8)
    ),
    "shared rows": ClientData.from_parts(ROWS, parts=[[*range(i, 200), 0, 0] for i in range(N)]),
    "mapped": ClientData.from_arrays(ROWS, users=USERS).map(tuple).map(list),
    "lazy": ClientData(range(N), lazy),
}
POSITIONS = range(1, N, 4)


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_part_holds_the_same_data_at_the_same_positions(name):
    whole = POPULATIONS[name]
    part = pickle.loads(pickle.dumps(whole.part(POSITIONS)))
    assert len(part) == len(POSITIONS)
    for position in POSITIONS:
        client = part.client_ids[position]
        assert client == whole.client_ids[position]
        np.testing.assert_equal(part.for_client(client), whole.for_client(client))
    with pytest.raises(KeyError):
        part.client_ids[0]


@pytest.mark.parametrize("name", ["a list", "a mapping", "arrays", "rows", "uneven parts", "mapped"])
def test_what_others_hold_stays_behind(name):
    whole = POPULATIONS[name]
    assert len(pickle.dumps(whole.part(POSITIONS))) < 0.6 * len(pickle.dumps(whole))
    with pytest.raises(KeyError):
        whole.part(POSITIONS).for_client(whole.client_ids[0])


def test_examples_that_clients_share_travel_once():
    assert len(POPULATIONS["shared rows"].part(range(N))._for_client.arrays[0]) == len(ROWS)


def test_a_part_of_nobody():
    assert len(POPULATIONS["rows"].part([])) == 0


def test_what_fetches_its_data_itself_fetches_nothing_to_be_taken_elsewhere():
    fetched = []
    ClientData(range(10**6), fetched.append).part(range(0, 10**6, 1000))
    assert fetched == []
