"""Accounting: known answers, the exact truth of small mechanisms, and never a smaller epsilon than either."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.accounting import RunAccountant, epsilon, epsilon_of
from dp.central import CentralGaussian, CentralMatrix
from dp.cohorts import PaddedPoisson
from dp.errors import BudgetExceeded, ParameterError, UnsupportedEvent
from dp.events import Composed, Gaussian, Poisson
from dp.fixed_cohorts import FixedOrder, FixedSizeSample
from dp.ledger import Ledger
from dp.mechanisms import DistributedDiscreteGaussian, DistributedSkellam, NarrowDiscreteGaussian
from dp.privacy import Epsilons, Privacy
from tests.dp import exact

KNOWN = json.loads((Path(__file__).parents[1] / "vectors" / "dp_epsilons.json").read_text())

MATRIX = CentralMatrix(noise_multiplier=1.0, sensitivity=9.0, dimension=3, bands=4, trusted_server=True)


def mechanism(noise_multiplier=1.5, **changes):
    facts = {"sensitivity": 9000.0, "dimension": 7850, "honest_survivors": 333}
    return DistributedDiscreteGaussian(noise_multiplier=noise_multiplier, **{**facts, **changes})


@pytest.mark.parametrize("answer", KNOWN["unsampled"], ids=lambda answer: str(answer["epsilon"]))
def test_known_answers_without_sampling(answer):
    cost = Composed(Gaussian(answer["noise_multiplier"]), answer["count"])
    assert epsilon(cost, delta=answer["delta"]) == pytest.approx(answer["epsilon"], abs=answer["tolerance"])


@pytest.mark.parametrize("answer", KNOWN["poisson"], ids=lambda answer: str(answer["epsilon"]))
def test_known_answers_with_poisson_sampling(answer):
    cost = Composed(Poisson(Gaussian(answer["noise_multiplier"]), answer["rate"]), answer["count"])
    assert epsilon(cost, delta=answer["delta"]) == pytest.approx(answer["epsilon"], abs=answer["tolerance"])


GRID = list(itertools.product((0.7, 1.5, 4.0), (0.005, 0.1, 0.5), (1, 20, 500)))


@pytest.mark.parametrize(
    ("noise_multiplier", "rate", "count"), [*GRID, (1.0, 0.02, 3000), (0.5, 0.01, 50), (10, 0.9, 100)]
)
def test_thirty_settings_agree_with_dp_accounting(noise_multiplier, rate, count):
    """Within 1e-3 of dp-accounting's own answer on its default grid, a thousandth relative where epsilon is large."""
    theirs = (
        from_gaussian_mechanism(noise_multiplier, sampling_prob=rate)
        .self_compose(count)
        .get_epsilon_for_delta(1e-6)
    )
    ours = epsilon(Composed(Poisson(Gaussian(noise_multiplier), rate), count), delta=1e-6)
    assert ours == pytest.approx(theirs, abs=1e-3, rel=1e-4)


@pytest.mark.parametrize("noise_multiplier", [0.6, 1.0, 3.0])
def test_a_rate_just_below_one_costs_what_no_sampling_costs(noise_multiplier):
    closed = epsilon(Composed(Gaussian(noise_multiplier), 8), delta=1e-5)
    sampled = epsilon(Composed(Poisson(Gaussian(noise_multiplier), 1 - 1e-12), 8), delta=1e-5)
    assert sampled == pytest.approx(closed, abs=1e-3)
    assert epsilon(Composed(Poisson(Gaussian(noise_multiplier), 1.0), 8), delta=1e-5) == closed


sampled = st.sampled_from([1.0, 0.6, 0.25, 0.05])
small_deltas = st.sampled_from([1e-1, 1e-2, 1e-3, 1e-5, 1e-7])


def cost_of(noise_multiplier, slack, rate, count):
    event = Gaussian(noise_multiplier, slack)
    return Composed(Poisson(event, rate) if rate < 1 else event, count)


@given(st.floats(2.0, 3.0), st.integers(1, 3), st.integers(1, 9), sampled, st.integers(1, 2), small_deltas)
@settings(max_examples=60, deadline=None)
def test_never_below_the_truth_in_one_dimension(stddev, shares, shift, rate, rounds, delta):
    """Against every outcome of one or two composed rounds of the discrete mechanism itself."""
    reach = 60
    present = exact.shifted_sum(stddev, shares, reach=reach, shift=shift)
    absent = exact.shifted_sum(stddev, shares, reach=reach, shift=0)
    mixture = rate * present + (1 - rate) * absent
    first, second = exact.product(*[mixture] * rounds), exact.product(*[absent] * rounds)
    check(stddev, shares, float(shift), 1, rate, rounds, delta, first, second)


@given(st.floats(2.0, 3.0), st.tuples(st.integers(0, 6), st.integers(1, 6)), sampled, small_deltas)
@settings(max_examples=40, deadline=None)
def test_never_below_the_truth_in_two_dimensions(stddev, shift, rate, delta):
    """Two coordinates share one draw: their joint distribution is the mixture, not the product of mixtures."""
    present = exact.product(*(exact.discrete_gaussian(stddev, reach=40, shift=s) for s in shift))
    absent = exact.product(*(exact.discrete_gaussian(stddev, reach=40) for _ in shift))
    mixture = rate * present + (1 - rate) * absent
    check(stddev, 1, math.hypot(*shift), 2, rate, 1, delta, mixture, absent)


def check(stddev, shares, sensitivity, dimension, rate, rounds, delta, first, second):
    effective = shares * stddev**2 - 4
    if effective <= (0.15 * sensitivity) ** 2:
        return  # less noise than any accountant is asked about
    noise_multiplier = math.sqrt(effective) / sensitivity
    event = DistributedDiscreteGaussian(
        noise_multiplier=noise_multiplier,
        sensitivity=sensitivity,
        dimension=dimension,
        honest_survivors=shares,
    ).event
    claimed = epsilon(cost_of(noise_multiplier, event.slack, rate, rounds), delta=delta)
    assert exact.delta(first, second, claimed) <= delta * (1 + 1e-9)


def test_the_exact_test_has_power():
    """A multiplier 3/2 too large, or sampling claimed where there is none, is caught by the same comparison."""
    present = exact.discrete_gaussian(8.0, reach=90, shift=8)
    absent = exact.discrete_gaussian(8.0, reach=90)
    effective = math.sqrt(8.0**2 - 4) / 8
    honest = epsilon(cost_of(effective, 0, 1.0, 1), delta=1e-5)
    assert exact.delta(present, absent, honest) <= 1e-5
    for wrong in (
        cost_of(1.5 * effective, 0, 1.0, 1),
        cost_of(effective, 0, 0.5, 1),
        cost_of(1.1 * effective, 0, 1.0, 1),
    ):
        assert exact.delta(present, absent, epsilon(wrong, delta=1e-5)) > 1e-5


def test_the_tight_epsilon_is_tight():
    """Without the correction by s^2 the claim would be within a percent of, and on large noise below, the truth."""
    present = exact.discrete_gaussian(20.0, reach=250, shift=20)
    absent = exact.discrete_gaussian(20.0, reach=250)
    claimed = epsilon(cost_of(math.sqrt(20.0**2 - 4) / 20, 0, 1.0, 1), delta=1e-5)
    assert exact.delta(present, absent, claimed * 0.99) > 1e-5


def test_redrawing_above_the_cohort_size_never_hurts_readers():
    """Exact: four clients of rate 1/2 redrawn above two, each other client's data as large as the bound allows."""
    stddev, reach, rate = 3.0, 60, 0.5
    others = [3, -3, 3]
    lattice = {x: exact.discrete_gaussian(stddev, reach=reach, shift=x) for x in range(-20, 21)}
    first, second, total = np.zeros(2 * reach + 1), np.zeros(2 * reach + 1), 0.0
    for coins in itertools.product((0, 1), repeat=4):
        if sum(coins) > 2:
            continue
        total += (weight := rate ** sum(coins) * (1 - rate) ** (4 - sum(coins)))
        rest = sum(x * c for x, c in zip(others, coins[1:], strict=True))
        first += weight * lattice[rest + 4 * coins[0]]
        second += weight * lattice[rest]
    claimed = epsilon(cost_of(math.sqrt(stddev**2 - 4) / 4, 0, rate, 1), delta=1e-3)
    assert exact.delta(first / total, second / total, claimed) <= 1e-3


def test_slack_is_paid_in_epsilon_and_in_delta():
    plain = epsilon(Composed(Gaussian(1.0), 10), delta=1e-5 * math.exp(-0.1))
    assert epsilon(Composed(Gaussian(1.0, 0.01), 10), delta=1e-5) == pytest.approx(plain + 0.2, rel=1e-12)


def test_both_epsilons_of_the_demo():
    costs = epsilon_of(mechanism(), PaddedPoisson(3000, 300), 50, 1e-5, 10)
    assert costs.readers == pytest.approx(2.530, abs=5e-4)
    assert costs.server == pytest.approx(10.67, abs=5e-3)


def test_a_cap_binds_the_server_alone_and_only_once_reached():
    sampler = PaddedPoisson(3000, 300)
    free, capped = (epsilon_of(mechanism(), sampler, 20, 1e-5, cap) for cap in (None, 5))
    assert free.readers == capped.readers
    assert capped.server < free.server
    assert (
        epsilon_of(mechanism(), sampler, 4, 1e-5, 5).server
        == epsilon_of(mechanism(), sampler, 4, 1e-5).server
    )


def test_nothing_released_costs_nothing():
    assert epsilon_of(mechanism(), PaddedPoisson(3000, 300), 0, 1e-5) == Epsilons(0.0, 0.0)


def test_every_round_costs_more():
    costs = [epsilon_of(mechanism(), PaddedPoisson(3000, 300), rounds, 1e-5) for rounds in range(12)]
    assert all(a.readers < b.readers and a.server < b.server for a, b in itertools.pairwise(costs))


@pytest.mark.parametrize("delta", [0, 1, -1e-5, math.nan, 2])
def test_a_delta_outside_its_range_is_refused(delta):
    with pytest.raises(ParameterError, match="delta"):
        epsilon(Composed(Gaussian(1.0), 1), delta=delta)


def test_a_foreign_event_is_refused_not_approximated():
    with pytest.raises(UnsupportedEvent, match="covers"):
        epsilon(Composed("Laplace", 1), delta=1e-5)


def test_a_budget_against_a_trusted_server_is_refused_before_anything_is_charged():
    trusting = CentralGaussian(noise_multiplier=1.5, sensitivity=9000.0, dimension=10, trusted_server=True)
    promise = Privacy(delta=1e-5, l2_clip_norm=0.3, noise_multiplier=1.5, server_epsilon=9.0)
    with pytest.raises(ParameterError, match=r"server_epsilon is 9, .* leave it out"):
        RunAccountant(trusting, PaddedPoisson(3000, 300), promise, 50)


@pytest.mark.parametrize(
    ("noise", "sampler"),
    [
        (MATRIX, PaddedPoisson(30, 10)),
        (MATRIX, FixedOrder(30, 10)),
        (
            DistributedSkellam(noise_multiplier=1.0, sensitivity=9.0, dimension=3, honest_survivors=5),
            FixedSizeSample(30, 10),
        ),
    ],
)
def test_a_pairing_that_no_accountant_covers_is_refused_before_anything_is_charged(noise, sampler):
    with pytest.raises(UnsupportedEvent):
        RunAccountant(noise, sampler, Privacy(delta=1e-5, l2_clip_norm=0.3, noise_multiplier=1.0), 50)


@pytest.mark.parametrize(
    "noise",
    [
        DistributedSkellam(noise_multiplier=1.5, sensitivity=9000.0, dimension=7850, honest_survivors=333),
        NarrowDiscreteGaussian(noise_multiplier=1.5, sensitivity=90.0, dimension=7850, honest_survivors=333),
    ],
)
def test_renyi_accounting_costs_what_is_known_and_more_than_the_tight_one(noise):
    """Both come down to the Gaussian's integer-order answer of 2.872 where their corrections vanish."""
    costs = epsilon_of(noise, PaddedPoisson(3000, 300), 50, 1e-5, 10)
    assert costs.readers == pytest.approx(2.872, abs=0.01)
    assert 10.67 < costs.server < 11.6


def test_a_run_is_described_in_json_and_stopped_at_either_budget():
    promise = Privacy(
        delta=1e-5, l2_clip_norm=0.3, noise_multiplier=1.5, readers_epsilon=2.6, server_epsilon=9.0
    )
    accountant = RunAccountant(mechanism(), PaddedPoisson(3000, 300), promise, 50)
    assert json.loads(json.dumps(accountant.describe()))["sampler"]["cohort"] == 416
    ledger = Ledger.attach(None, accountant=accountant, run={})
    for _ in range(7):
        ledger.reserve()
    with pytest.raises(BudgetExceeded) as caught:
        ledger.reserve()
    assert caught.value.observer == "server"
    assert ledger.charged == 7
    assert ledger.spent().server <= 9.0 < caught.value.would_reach


def test_a_round_within_a_plan_that_fits_needs_no_epsilon_of_its_own(monkeypatch):
    mechanism = DistributedDiscreteGaussian(
        noise_multiplier=1.5, sensitivity=9000.0, dimension=100, honest_survivors=100
    )
    privacy = Privacy(delta=1e-5, l2_clip_norm=1.0, noise_multiplier=1.5, readers_epsilon=2.6)
    accountant = RunAccountant(mechanism, PaddedPoisson(3000, 300), privacy, 50)
    assert accountant.fits(50)
    asked = []
    monkeypatch.setattr(
        "dp.accounting.epsilon_of", lambda *history: asked.append(history[2]) or Epsilons(2.7, 9.0)
    )
    assert all(accountant.fits(rounds) for rounds in range(50))
    assert not asked
    assert not accountant.fits(51)
    assert asked == [51]


def test_a_plan_that_does_not_fit_is_looked_at_round_by_round():
    mechanism = DistributedDiscreteGaussian(
        noise_multiplier=1.5, sensitivity=9000.0, dimension=100, honest_survivors=100
    )
    privacy = Privacy(delta=1e-5, l2_clip_norm=1.0, noise_multiplier=1.5, server_epsilon=10.7)
    accountant = RunAccountant(mechanism, PaddedPoisson(3000, 300), privacy, 50)
    assert [accountant.fits(rounds) for rounds in (1, 10, 11, 50)] == [True, True, False, False]
    readers, server = accountant.events(10)
    assert server.count == readers.count == 10
    assert readers.step.event == server.step == mechanism.event
