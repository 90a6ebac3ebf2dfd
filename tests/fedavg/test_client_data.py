"""Populations: five ways in, one client at a time out."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedavg import ClientData, ParameterError
from fedavg.client_data import ByUser


def test_a_mapping_keeps_its_ids():
    data = ClientData.of({"ada": 1, "bob": 2})
    assert list(data.client_ids) == ["ada", "bob"]
    assert data.for_client("bob") == 2


def test_data_is_fetched_only_when_asked():
    fetched = []
    data = ClientData(range(10**6), lambda i: fetched.append(i) or i)
    assert len(ClientData.of(data)) == 10**6
    assert fetched == []
    assert data.for_client(7) == 7


@pytest.mark.parametrize("clients", [[], {}, "text", 3])
def test_what_is_no_population_is_refused(clients):
    with pytest.raises(ParameterError, match="give"):
        ClientData.of(clients)


@pytest.mark.parametrize("clients", [[[1], zip([1], [2], strict=True)], {"ada": [1], 1: iter([2])}])
def test_data_that_is_gone_after_one_round_is_refused(clients):
    with pytest.raises(ParameterError, match=r"client 1 holds a \w+, which can be gone through only once"):
        ClientData.of(clients)


@given(st.lists(st.integers(-3, 5), min_size=1, max_size=40))
def test_each_user_gets_its_own_examples_in_their_order(users):
    x = np.arange(len(users)) * 10
    data = ClientData.from_arrays(x, np.array(users), users=users)
    assert data.client_ids == sorted(set(users))
    for user in data.client_ids:
        mine, whose = data.for_client(user)
        np.testing.assert_array_equal(mine, [10 * i for i, owner in enumerate(users) if owner == user])
        assert set(whose.tolist()) == {user}


@given(st.lists(st.text("abÄ\x01", max_size=3), min_size=1, max_size=30))
def test_users_may_be_named_by_text(users):
    parts = ByUser(users)
    assert list(parts) == sorted(set(users))
    assert sorted(np.concatenate([*parts.values()])) == list(range(len(users)))
    assert all(users[i] == user for user in parts for i in parts[user])


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        (["ann", "bob", "ann"], "3 clients have 2 different ids"),
        (np.array([4, 4, 5]), "3 clients have 2 different ids"),
        ([["ann"], ["bob"]], "unhashable"),
    ],
)
def test_who_would_be_drawn_twice_as_often_is_refused(ids, complaint):
    with pytest.raises(ParameterError, match=complaint):
        ClientData(ids, lambda client: client)


@pytest.mark.parametrize(
    ("users", "nobody"), [([1, 3], 2), ([1, 3], 4), ([1, 3], "1"), (["a"], 1), (["a"], "b")]
)
def test_who_is_not_there_is_not_found(users, nobody):
    with pytest.raises(KeyError):
        ByUser(users)[nobody]
    assert nobody not in ByUser(users)


@pytest.mark.parametrize(
    "parts", [[[0, 2], [1]], {"ada": np.array([0, 2]), "bob": np.array([1])}, np.array([[0, 2], [1, 1]])]
)
def test_dealt_examples_come_as_rows_of_each_array(parts):
    data = ClientData.from_parts(np.array([5, 6, 7]), np.eye(3), parts=parts)
    x, y = data.for_client(data.client_ids[0])
    np.testing.assert_array_equal(x, [5, 7])
    np.testing.assert_array_equal(y, [[1, 0, 0], [0, 0, 1]])
    assert len(data) == 2


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: ClientData.from_arrays(np.zeros(3), users=[1, 2]), "3 examples and 2 entries in users"),
        (lambda: ClientData.from_arrays(users=[1, 2]), "0 examples and 2 entries"),
        (lambda: ClientData.from_arrays(np.zeros(2), np.zeros(3), users=[1, 2]), r"\[2, 3\] examples"),
        (
            lambda: ClientData.from_arrays(np.zeros(2), users=[1.5, 2.5]),
            "type float64; give a number or a text",
        ),
        (lambda: ClientData.from_arrays(np.zeros(1), users=[[1]]), r"shape \(1, 1\)"),
        (lambda: ClientData.from_arrays(np.zeros(0), users=np.zeros(0, int)), "for each example"),
        (lambda: ClientData.from_parts(parts=[[0]]), "at least one"),
        (lambda: ClientData.from_parts(np.zeros(1), parts=[]), "no clients"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(build, sentence):
    with pytest.raises(ParameterError, match=sentence):
        build()


def test_a_function_is_applied_when_a_client_is_fetched():
    fetched = []
    data = ClientData(["ada"], lambda i: fetched.append(i) or [1, 2]).map(sum).map(str)
    assert fetched == []
    assert data.for_client("ada") == "3"
    assert fetched == ["ada"]


def test_a_population_travels_to_another_process():
    data = ClientData.from_arrays(np.arange(3), users=["a", "b", "a"]).map(tuple)
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.for_client("a")[0], [0, 2])


def test_long_unsigned_ids_are_told_apart():
    """A user's number that is a hash: as floats, neighbours above 2^53 would be one."""
    users = np.array([2**60, 2**60 + 1, 2**60 + 1, 2**64 - 1], np.uint64)
    data = ClientData.from_arrays(np.arange(4), users=users)
    assert [data.for_client(user)[0].tolist() for user in data.client_ids] == [[0], [1, 2], [3]]
    small = ClientData.from_arrays(np.arange(1), users=np.array([2**16 - 1], np.uint16))
    for other in (-1, 2**17 - 1):
        with pytest.raises(KeyError):
            small.for_client(other)
