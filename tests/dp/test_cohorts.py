"""Cohorts: the sampler that runs is the one the accountant assumes, and nothing public tells who was drawn."""

from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from dp.accounting import epsilon
from dp.cohorts import PaddedPoisson, SelfSampling, _coins
from dp.errors import ParameterError
from dp.events import Composed, Gaussian, Poisson
from dp.keystream import Keystream


def stream(number: int) -> Keystream:
    return Keystream.seeded(number.to_bytes(32, "big"))


class Scripted:
    """A keystream that plays given words first."""

    def __init__(self, *scripted):
        self.scripted = list(scripted)
        self.rest = stream(99)

    def words(self, count, dtype):
        if self.scripted:
            words = np.asarray(self.scripted.pop(0), dtype=dtype)
            assert len(words) == count
            return words
        return self.rest.words(count, dtype)


@pytest.mark.parametrize(
    ("population", "expected", "size"),
    [(3000, 300, 416), (10, 10, 10), (10, 9.5, 10), (10**6, 1000, 1222), (7, 0.01, 1)],
)
def test_the_cohort_size_is_public_and_constant(population, expected, size):
    sampler = PaddedPoisson(population, expected)
    assert sampler.cohort_size == size
    for number in range(20):
        invited = sampler.draw(stream(number)).invited
        assert len(invited) == size
        assert invited.dtype == np.int64
        assert np.all(np.diff(invited) > 0)
        assert invited[0] >= 0
        assert invited[-1] < population


def contributions(sampler, draws, *, capped=()):
    drawn, invited = np.zeros(sampler.population), np.zeros(sampler.population)
    for number in range(draws):
        draw = sampler.draw(stream(number), capped=capped)
        drawn[draw.invited[draw.contributes]] += 1
        invited[draw.invited] += 1
    return drawn, invited


@pytest.mark.parametrize(("scale", "accepted"), [(1, True), (2 / 3, False), (3 / 2, False)])
def test_every_client_contributes_at_the_accountants_rate(scale, accepted):
    """Chi-squared over 300 clients and 400 draws at alpha = 1e-3; 2/3 and 3/2 of the rate are rejected."""
    sampler = PaddedPoisson(300, 30)
    drawn, _ = contributions(sampler, 400)
    rate = sampler.sampling_rate * scale
    statistic = np.sum((drawn - 400 * rate) ** 2) / (400 * rate * (1 - rate))
    assert (stats.chi2.sf(statistic, 300) > 1e-3) == accepted


def test_the_number_drawn_varies_as_a_binomial():
    """Fixed-size sampling would have no variance: chi-squared on the variance, 400 draws, alpha = 1e-3."""
    sampler = PaddedPoisson(300, 30)
    counts = [np.count_nonzero(sampler.draw(stream(number)).contributes) for number in range(400)]
    ratio = (len(counts) - 1) * np.var(counts, ddof=1) / (300 * 0.1 * 0.9)
    assert 1e-3 < stats.chi2.cdf(ratio, len(counts) - 1) < 1 - 1e-3


def test_padding_is_uniform_over_those_not_drawn():
    """Chi-squared over 60 clients and 2000 draws at alpha = 1e-3; one client at 3/2 or 2/3 of the rest is seen."""
    drawn, invited = contributions(PaddedPoisson(60, 3), 2000)
    padding = invited - drawn
    assert stats.chisquare(padding).pvalue > 1e-3
    for factor in (3 / 2, 2 / 3):
        unfair = np.where(np.arange(60) == 0, factor, 1) * padding
        assert stats.chisquare(unfair).pvalue < 1e-3


def test_too_large_a_draw_is_redrawn_in_full_never_truncated():
    sampler = PaddedPoisson(1000, 10)
    everybody = np.zeros(1000, dtype=np.uint64)
    somebody = np.full(1000, 2**64 - 1, dtype=np.uint64)
    somebody[[3, 500]] = 0
    draw = sampler.draw(Scripted(everybody, somebody))
    assert draw.invited[draw.contributes].tolist() == [3, 500]


@pytest.mark.parametrize("as_mask", [False, True])
def test_a_client_at_its_cap_is_invited_like_anybody_and_never_contributes(as_mask):
    """At its cap or not, a client is invited equally often: 20 of 100, 1000 draws, chi-squared, alpha = 1e-3."""
    capped = range(20)
    given = np.arange(100) < 20 if as_mask else capped
    drawn, invited = contributions(PaddedPoisson(100, 10), 1000, capped=given)
    assert drawn[:20].sum() == 0
    assert drawn[20:].min() > 0
    assert (
        stats.chisquare([invited[:20].sum(), invited[20:].sum()], invited.sum() * np.array([0.2, 0.8])).pvalue
        > 1e-3
    )


def test_everybody_contributes_at_rate_one():
    draw = PaddedPoisson(5, 5).draw(stream(0), capped=[2])
    assert draw.invited.tolist() == [0, 1, 2, 3, 4]
    assert draw.contributes.tolist() == [True, True, False, True, True]


def test_a_coin_is_exact_where_a_word_equals_the_threshold():
    """1/3 is no multiple of 2^-64: the word floor(2^64/3) is followed by a coin of the remaining third."""
    third = Fraction(1, 3)
    edge = 2**64 // 3
    below, above = [edge - 1, edge, edge + 1], [edge - 1, edge, edge + 1]
    assert _coins(Scripted(below, [0]), third, 3).tolist() == [True, True, False]
    assert _coins(Scripted(above, [2**64 - 1]), third, 3).tolist() == [True, False, False]
    # A dyadic rate is decided by its first word.
    assert _coins(Scripted([2**63 - 1, 2**63]), Fraction(1, 2), 2).tolist() == [True, False]


def test_a_tie_of_keys_is_drawn_again_when_padding():
    nobody = np.full(4, 2**64 - 1, dtype=np.uint64)
    draw = PaddedPoisson(4, 0.01).draw(Scripted(nobody, [9, 7, 7, 9], [3, 2, 1, 4]))
    assert draw.invited.tolist() == [2]


def test_the_rate_the_accountant_uses_is_never_below_the_coins():
    for population in range(1, 400):
        sampler = PaddedPoisson(population, 1)
        assert Fraction(sampler.sampling_rate) >= Fraction(1, population)
        assert sampler.sampling_rate - 1 / population < 1e-15


def test_the_sampler_brings_its_own_accounting():
    event, sampler = Gaussian(1.5), PaddedPoisson(3000, 300)
    assert sampler.readers_event(event, 50) == Composed(Poisson(event, 0.1), 50)
    assert sampler.server_event(event, 10) == Composed(event, 10)


def test_a_draw_does_not_show_who_contributes():
    assert "True" not in repr(PaddedPoisson(5, 5).draw(stream(0)))


@pytest.mark.parametrize(
    ("population", "expected"),
    [(0, 1), (-5, 1), (2.5, 1), (10, 0), (10, -1), (10, 11), (10, float("nan")), (True, 1)],
)
def test_impossible_cohorts_are_refused(population, expected):
    with pytest.raises(ParameterError):
        PaddedPoisson(population, expected)


def test_foreign_capped_clients_are_refused():
    sampler = PaddedPoisson(10, 2)
    for capped in ([10], [-1], np.zeros(9, dtype=bool)):
        with pytest.raises(ParameterError, match="apped"):
            sampler.draw(stream(0), capped=capped)


def test_a_carriers_own_coin_holds_against_the_server():
    """Coin .25 over 20 rounds: 4.2 against the server, where 10 draws of a padded cohort cost 10.7."""
    sampler = SelfSampling(PaddedPoisson(100, 100), 0.25)
    server = epsilon(sampler.server_event(Gaussian(1.5), 20), delta=1e-5)
    assert server == pytest.approx(4.2, abs=0.05)
    drawn = SelfSampling(PaddedPoisson(1000, 100), 0.25)
    assert drawn.sampling_rate == pytest.approx(0.025)
    assert epsilon(drawn.readers_event(Gaussian(1.5), 20), delta=1e-5) < server / 3


@pytest.mark.parametrize(("scale", "accepted"), [(1, True), (2 / 3, False), (3 / 2, False)])
def test_carriers_contribute_at_the_rate_of_their_coin(scale, accepted):
    """Chi-squared over 200 clients and 400 draws at alpha = 1e-3; 2/3 and 3/2 of the rate are rejected."""
    drawn, invited = contributions(SelfSampling(PaddedPoisson(200, 200), 0.25), 400)
    assert invited.min() == 400
    rate = 0.25 * scale
    statistic = np.sum((drawn - 400 * rate) ** 2) / (400 * rate * (1 - rate))
    assert (stats.chi2.sf(statistic, 200) > 1e-3) == accepted


def test_a_capped_carrier_never_contributes():
    drawn, _ = contributions(SelfSampling(PaddedPoisson(50, 50), 0.5), 50, capped=[3])
    assert drawn[3] == 0
    assert drawn.min(where=np.arange(50) != 3, initial=50) > 0


@pytest.mark.parametrize("coin", [0, 1, -0.5, float("nan")])
def test_a_coin_has_two_sides(coin):
    with pytest.raises(ParameterError, match="coin"):
        SelfSampling(PaddedPoisson(50, 50), coin)
