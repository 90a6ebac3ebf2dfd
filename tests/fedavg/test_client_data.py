"""Populations: three ways in, one client at a time out."""

import pytest

from fedavg import ClientData, ParameterError


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
