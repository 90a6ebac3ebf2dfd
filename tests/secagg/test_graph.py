"""The ring is the documented shuffle, uniform, and everybody's neighbours agree with everybody's."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import graph
from secagg.entropy import SeededEntropy
from secagg.errors import ParameterError
from secagg.graph import holder_positions, holder_table, ring_order

SEEDS = st.binary(min_size=32, max_size=32)


@given(st.integers(1, 80), SEEDS)
def test_the_order_is_the_documented_shuffle(clients, seed):
    stream, order = SeededEntropy(seed), list(range(clients))
    for place in range(clients - 1, 0, -1):
        other = int.from_bytes(stream(8), "little") % (place + 1)
        order[place], order[other] = order[other], order[place]
    assert ring_order(clients, seed).tolist() == order


def test_draws_reject_words_past_the_last_multiple_of_the_bound():
    """2^64 = 1 modulo 3: the word 2^64 - 1 is thrown away, 2^64 - 2 is kept."""
    words = iter([2**64 - 1, 2**64 - 2])
    assert graph._below(3, words) == (2**64 - 2) % 3
    assert graph._below(4, iter([2**64 - 1])) == 3


def test_every_order_is_equally_likely():
    """Chi-square of all 24 orders of 4 clients, n = 4,800 seeds, alpha 1e-6: 23 degrees of freedom, limit 75.

    Power: a shuffle that never leaves a client in place (Sattolo's) reaches 6 orders only, statistic 14,400.
    """
    root = SeededEntropy(bytes(32))
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    for _ in range(4_800):
        counts[tuple(ring_order(4, root(32)).tolist())] += 1
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 75


@given(st.integers(2, 40), st.integers(1, 20), SEEDS)
def test_being_a_holder_is_mutual_and_rows_agree(clients, half, seed):
    table = holder_table(clients, neighbours=2 * half, seed=seed)
    assert table.shape == (clients, min(2 * half + 1, clients))
    adjacency = np.zeros((clients, clients), dtype=bool)
    for own, row in enumerate(table.tolist()):
        assert own in row
        assert row == sorted(set(row))
        assert row == holder_positions(clients, own, neighbours=2 * half, seed=seed).tolist()
        adjacency[own, row] = True
    np.testing.assert_array_equal(adjacency, adjacency.T)


def test_neighbours_are_the_half_windows_on_either_side():
    order = ring_order(50, bytes(32)).tolist()
    own = order[1]
    expected = sorted(order[place % 50] for place in range(-2, 5))
    assert holder_positions(50, own, neighbours=6, seed=bytes(32)).tolist() == expected


def test_another_seed_gives_another_ring():
    assert ring_order(100, bytes(32)).tolist() != ring_order(100, b"x" + bytes(31)).tolist()


def test_the_shared_order_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        ring_order(5, bytes(32))[0] = 1


@pytest.mark.parametrize("neighbours", [3, 1, 0, -2])
def test_a_lopsided_ring_is_refused(neighbours):
    with pytest.raises(ParameterError, match="even"):
        holder_table(50, neighbours=neighbours, seed=bytes(32))
