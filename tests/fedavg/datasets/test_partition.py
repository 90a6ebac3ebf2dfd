"""Dealing examples to clients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedavg import ClientData
from fedavg.datasets import dirichlet, iid, natural, quantity_skew, shards
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


@given(st.integers(1, 12), st.integers(1, 7), st.integers(0, 5), st.integers(0, 99))
def test_iid_gives_everybody_its_number_and_no_example_twice(clients, each, spare, seed):
    dealt = iid(clients * each + spare, clients=clients, examples_per_client=each, seed=seed)
    assert dealt.shape == (clients, each)
    assert len(np.unique(dealt)) == clients * each
    assert 0 <= dealt.min() <= dealt.max() < clients * each + spare


def test_iid_clients_differ_as_little_as_chance_allows():
    """Labels of 200 clients of 50, 10 labels: the mean of the 200 chi-squares (9 degrees of freedom) is 9 +- 0.3.

    Standard error sqrt(18/200) = 0.3, four of them allowed. The same labels in file order give 450, and shards 400.
    """
    labels = np.repeat(np.arange(10), 1000)

    def mean_chi_square(parts):
        counts = np.array([np.bincount(labels[part], minlength=10) for part in parts])
        return (((counts - 5) ** 2 / 5).sum(axis=1)).mean()

    assert abs(mean_chi_square(iid(10_000, clients=200, examples_per_client=50, seed=5)) - 9) < 1.2
    assert mean_chi_square(np.arange(10_000).reshape(200, 50)) == 450
    assert mean_chi_square(shards(labels, clients=200, shards_per_client=1, seed=5)) == 450


@given(st.data())
def test_shards_are_of_one_size_and_hold_few_labels(data):
    clients, each = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    labels = np.array(data.draw(st.lists(st.integers(0, 5), min_size=clients * each, max_size=120)))
    dealt = shards(labels, clients=clients, shards_per_client=each, seed=data.draw(st.integers(0, 99)))
    size = len(labels) // (clients * each)
    assert dealt.shape == (clients, each * size)
    assert len(np.unique(dealt)) == clients * each * size
    borders = len(np.unique(labels)) - 1
    crossed = sum(len(np.unique(labels[shard])) > 1 for hand in dealt for shard in np.split(hand, each))
    assert crossed <= borders


def test_shards_are_mcmahans_for_mnist():
    """60,000 examples, 100 clients, 2 shards of 300: no client holds more than two labels, and most hold two."""
    labels = np.random.default_rng(0).permutation(np.arange(60_000) % 10)
    dealt = shards(labels, clients=100, seed=0)
    assert dealt.shape == (100, 600)
    held = np.array([len(np.unique(labels[hand])) for hand in dealt])
    assert held.max() <= 2
    assert (held == 2).mean() > 0.8
    assert (shards(labels, clients=100, seed=1) != dealt).any()
    np.testing.assert_array_equal(shards(labels, clients=100, seed=0), dealt)


def test_examples_left_out_of_shards_are_not_those_of_one_label():
    """19 of 119 examples are left out; taking them off the sorted end would lose only the last label."""
    labels = np.arange(119) % 10
    out = np.setdiff1d(np.arange(119), shards(labels, clients=10, shards_per_client=10, seed=0))
    assert len(out) == 19
    assert len(np.unique(labels[out])) > 3


@given(st.data())
def test_quantities_add_up_to_everything(data):
    clients, minimum = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 4))
    examples = clients * minimum + data.draw(st.integers(0, 200))
    concentration = data.draw(st.sampled_from([1e-300, 1e-3, 0.5, 1e6]))
    parts = quantity_skew(
        examples,
        clients=clients,
        concentration=concentration,
        minimum=minimum,
        seed=data.draw(st.integers(0, 9)),
    )
    assert len(parts) == clients
    assert min(map(len, parts)) >= minimum
    assert sorted(np.concatenate(parts)) == list(range(examples))


def test_concentration_says_how_unequal_quantities_are():
    """Share of the largest of 50 clients, 10,000 examples, mean of 40 seeds: 1/50 if equal."""

    def largest(concentration):
        parts = (
            quantity_skew(10_000, clients=50, concentration=concentration, seed=seed) for seed in range(40)
        )
        return np.mean([max(map(len, part)) / 10_000 for part in parts])

    assert largest(1000.0) < 0.025
    assert 0.07 < largest(1.0) < 0.11  # The largest of 50 exponentials over their sum: H(50)/50 = 0.09.
    assert largest(0.05) > 0.25


def test_natural_users_keep_their_own():
    users = np.array([4, 2, 4, 4])
    data = ClientData.from_parts(np.arange(4) * 1.5, parts=natural(users))
    assert data.client_ids == [2, 4]
    np.testing.assert_array_equal(data.for_client(4)[0], [0.0, 3.0, 4.5])


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: iid(9, clients=2, examples_per_client=5, seed=0), "need 10 examples and there are 9"),
        (lambda: iid(9, clients=0, examples_per_client=5, seed=0), "at least 1"),
        (lambda: shards(np.zeros(5, int), clients=3, seed=0), "3 clients of 2 examples need 6"),
        (lambda: shards(np.zeros(5, int), clients=3, shards_per_client=0, seed=0), "at least 1"),
        (lambda: quantity_skew(5, clients=6, concentration=1.0, seed=0), "need 6 examples"),
        (lambda: quantity_skew(5, clients=2, concentration=0.0, seed=0), "concentration is 0.0"),
        (lambda: quantity_skew(5, clients=2, concentration=1.0, minimum=0, seed=0), "at least 1"),
        (lambda: natural([]), "for each example"),
    ],
)
def test_other_impossible_deals_are_refused(build, sentence):
    with pytest.raises(ParameterError, match=sentence):
        build()


@pytest.mark.parametrize("labels", [[0, 1, -1, -1], [0.0, 0.5, 1.0, 1.5], [[0], [0], [1], [1]]])
def test_labels_that_are_no_whole_numbers_from_zero_are_refused(labels):
    with pytest.raises(ParameterError, match="give whole numbers from 0, one for each example"):
        deal(labels, clients=2, each=2)
