"""Dealing examples to clients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedavg.datasets import dirichlet
from fedavg.errors import ParameterError


def deal(labels, clients, each, concentration=1.0, seed=0):
    return dirichlet(
        np.asarray(labels), clients=clients, examples_per_client=each, concentration=concentration, seed=seed
    )


@settings(max_examples=60)
@given(st.data())
def test_every_client_gets_exactly_its_number_and_no_example_twice(data):
    clients, each = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 7))
    spare = data.draw(st.integers(0, 5))
    size = clients * each + spare
    labels = data.draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))
    concentration = data.draw(st.sampled_from([1e-300, 1e-6, 0.1, 1.0, 1e6]))
    dealt = deal(labels, clients, each, concentration, seed=data.draw(st.integers(0, 99)))
    assert dealt.shape == (clients, each)
    assert len(np.unique(dealt)) == clients * each
    assert dealt.min() >= 0
    assert dealt.max() < size


def test_concentration_says_how_much_clients_differ():
    """Mean largest share of one label a client holds: 20 examples, 10 labels, 300 clients, fixed seeds."""
    labels = np.arange(10_000) % 10

    def largest_share(concentration):
        counts = np.array(
            [np.bincount(labels[row]).max() for row in deal(labels, 300, 20, concentration, seed=3)]
        )
        return counts.mean() / 20

    alike, usual, apart = map(largest_share, (1000.0, 1.0, 0.05))
    assert alike < 0.25  # 20 draws from ten equal labels: the largest holds about 4.2 of 20
    assert 0.28 < usual < 0.42
    assert apart > 0.75


def test_the_same_seed_deals_the_same_way():
    labels = np.arange(100) % 10
    np.testing.assert_array_equal(deal(labels, 10, 5, seed=1), deal(labels, 10, 5, seed=1))
    assert (deal(labels, 10, 5, seed=1) != deal(labels, 10, 5, seed=2)).any()


@pytest.mark.parametrize(
    ("clients", "each", "concentration", "sentence"),
    [
        (
            11,
            10,
            1.0,
            "11 clients of 10 examples need 110 examples and there are 100; take at most 10 clients",
        ),
        (0, 10, 1.0, "at least 1"),
        (1, 0, 1.0, "at least 1"),
        (1, 1, 0.0, "concentration is 0.0"),
        (1, 1, float("nan"), "concentration is nan"),
        (1, 1, float("inf"), "concentration is inf"),
    ],
)
def test_impossible_deals_are_refused(clients, each, concentration, sentence):
    with pytest.raises(ParameterError, match=sentence):
        deal(np.zeros(100, np.int64), clients, each, concentration)
