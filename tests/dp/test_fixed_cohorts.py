"""Cohorts of a fixed number: uniform without replacement, or taking turns, each with its own accounting."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from dp.accounting import epsilon, epsilon_of
from dp.cohorts import PaddedPoisson
from dp.errors import ParameterError, UnsupportedEvent
from dp.events import Composed, FixedSize, Gaussian
from dp.fixed_cohorts import FixedOrder, FixedSizeSample
from dp.keystream import Keystream
from dp.mechanisms import DistributedDiscreteGaussian, DistributedSkellam

FIGURES = {"noise_multiplier": 1.5, "sensitivity": 9000.0, "dimension": 100, "honest_survivors": 250}


def stream(number):
    return Keystream.seeded(number.to_bytes(32, "big"))


def test_every_set_is_equally_likely():
    """All 10 samples of 3 out of 5, chi-squared over 3000 draws, alpha = 1e-3; one at 3/2 of its share is seen."""
    sampler = FixedSizeSample(5, 3)
    index = {sample: i for i, sample in enumerate(itertools.combinations(range(5), 3))}
    counts = np.zeros(10)
    for number in range(3000):
        counts[index[tuple(sampler.draw(stream(number)).invited.tolist())]] += 1
    assert stats.chisquare(counts).pvalue > 1e-3
    counts[0] *= 1.5
    assert stats.chisquare(counts).pvalue < 1e-3


def test_everybody_in_the_sample_contributes_unless_at_its_cap():
    draw = FixedSizeSample(6, 4).draw(stream(1), capped=[int(i) for i in range(3)])
    assert draw.contributes.tolist() == [i >= 3 for i in draw.invited]


def test_a_fixed_size_costs_more_than_coins_and_never_more_than_no_sampling():
    mechanism = DistributedDiscreteGaussian(**FIGURES)
    fixed = epsilon_of(mechanism, FixedSizeSample(3000, 300), 50, 1e-5)
    coins = epsilon_of(mechanism, PaddedPoisson(3000, 300), 50, 1e-5)
    assert coins.readers < fixed.readers < fixed.server == coins.server
    everybody = epsilon_of(mechanism, FixedSizeSample(300, 300), 50, 1e-5)
    assert everybody.readers == everybody.server


def test_no_renyi_accountant_is_paired_with_samples_of_fixed_size():
    with pytest.raises(UnsupportedEvent, match="use a Gaussian mechanism or Poisson sampling"):
        epsilon_of(DistributedSkellam(**FIGURES), FixedSizeSample(3000, 300), 5, 1e-5)


def test_turns_are_apart_and_counted():
    """Every client, 40 rounds, cohorts that divide the population and cohorts that do not."""
    for population, expected in [(10, 2), (10, 3), (7, 7), (11, 4)]:
        order = FixedOrder(population, expected)
        turns = {client: [] for client in range(population)}
        for number in range(1, 41):
            draw = order.draw(stream(0), number=number)
            assert len(set(draw.invited.tolist())) == expected
            for client in draw.invited.tolist():
                turns[client].append(number)
        for rounds in (1, 3, 17, 40):
            most = order.server_event(Gaussian(1.0), rounds).count
            assert all(sum(t <= rounds for t in taken) <= most for taken in turns.values())
        gaps = [b - a for taken in turns.values() for a, b in itertools.pairwise(taken)]
        assert min(gaps) == order.separation


def test_an_order_that_is_known_amplifies_nothing():
    order, event = FixedOrder(1000, 100), Gaussian(2.0)
    assert order.readers_event(event, 30) == order.server_event(event, 30) == Composed(event, 3)
    assert order.server_event(event, 30, 2) == Composed(event, 2)


def test_rates_are_rounded_up():
    for population in range(1, 200):
        rate = FixedSizeSample(population, 1).sampling_rate
        assert 0 <= rate - 1 / population < 1e-15
    assert FixedSizeSample(3, 3).sampling_rate == 1.0


@pytest.mark.parametrize("kind", [FixedSizeSample, FixedOrder])
@pytest.mark.parametrize(("population", "expected"), [(0, 1), (5, 0), (5, 6), (5, 2.5), (5, math.nan)])
def test_impossible_cohorts_are_refused(kind, population, expected):
    with pytest.raises(ParameterError):
        kind(population, expected)


def test_rounds_of_an_order_count_from_one():
    with pytest.raises(ParameterError, match="number"):
        FixedOrder(10, 2).draw(stream(0))


def test_the_accounting_is_that_of_sampling_without_replacement():
    assert FixedSizeSample(3000, 300).readers_event(Gaussian(1.5), 7) == Composed(
        FixedSize(Gaussian(1.5), 0.1), 7
    )
    assert epsilon(Composed(FixedSize(Gaussian(1.5), 0.1), 0), delta=1e-5) == 0
