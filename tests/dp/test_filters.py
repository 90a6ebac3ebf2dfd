"""Filters: what adaptive choices may add up to, and never a release more."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.accounting import epsilon
from dp.amplification import poisson_renyi
from dp.errors import BudgetExceeded, ParameterError, UnsupportedEvent
from dp.events import BandedGaussian, Composed, DiscreteGaussianShares, FixedSize, Gaussian, Poisson, Skellam
from dp.filters import GaussianFilter, RenyiFilter
from dp.gaussian import gaussian_epsilon
from dp.renyi import renyi_curve, renyi_epsilon

STEP = Poisson(Gaussian(1.5), 0.1)


def charged_until_full(budget, step):
    count = 0
    while True:
        try:
            budget = budget.charge(step)
        except BudgetExceeded:
            return budget, count
        count += 1


def test_a_refusal_names_what_would_be_reached():
    budget, _ = charged_until_full(GaussianFilter(5.0, 1e-5), Gaussian(1.5))
    with pytest.raises(BudgetExceeded, match=r"of epsilon 5 at .* sum of 1/z\^2 to .*; stop here") as caught:
        budget.charge(Gaussian(1.5))
    assert caught.value.would_reach > caught.value.budget == 5.0


def test_a_renyi_filter_stops_where_its_order_does():
    budget = RenyiFilter.planned(epsilon=3.0, delta=1e-5, expected=Composed(STEP, 50))
    _, count = charged_until_full(budget, STEP)
    curve = renyi_curve(lambda order: poisson_renyi(lambda a: a / 4.5, 0.1, order))
    assert renyi_epsilon(count * curve, delta=1e-5) <= 3.0
    assert count == pytest.approx(54, abs=2)


def test_a_filter_never_allows_more_than_a_fixed_plan():
    for target in (1.0, 3.0, 8.0):
        budget = RenyiFilter.planned(epsilon=target, delta=1e-5, expected=Composed(STEP, 50))
        _, count = charged_until_full(budget, STEP)
        assert epsilon(Composed(STEP, count), delta=1e-5) <= target
    _, count = charged_until_full(GaussianFilter(10.7, 1e-5), Gaussian(1.5))
    assert count == 10
    assert (
        epsilon(Composed(Gaussian(1.5), 10), delta=1e-5)
        <= 10.7
        < epsilon(Composed(Gaussian(1.5), 11), delta=1e-5)
    )


@given(st.lists(st.floats(0.5, 20.0), min_size=1, max_size=40), st.floats(0.5, 10.0))
@settings(max_examples=50, deadline=None)
def test_whatever_noise_is_chosen_the_sum_keeps_the_budget(multipliers, target):
    budget, taken = GaussianFilter(target, 1e-6), []
    for multiplier in multipliers:
        try:
            budget = budget.charge(Gaussian(multiplier))
        except BudgetExceeded:
            continue
        taken.append(multiplier)
    if taken:
        shift = math.sqrt(sum(z**-2 for z in taken))
        assert gaussian_epsilon(shift=shift, delta=1e-6) <= target


def test_a_refused_release_leaves_the_filter_as_it_was():
    budget, _ = charged_until_full(GaussianFilter(5.0, 1e-5), Gaussian(1.5))
    assert budget.charge(Gaussian(100.0)).spent > budget.spent


@pytest.mark.parametrize("cost", [math.inf, math.nan])
@pytest.mark.parametrize(
    "budget", [RenyiFilter(3.0, 1e-5, 6), GaussianFilter(3.0, 1e-5)], ids=["renyi", "gaussian"]
)
def test_a_cost_that_is_no_finite_number_is_refused(budget, cost):
    for spent in ((cost, 0.0), (0.0, cost)):
        with pytest.raises((BudgetExceeded, ParameterError)):
            budget.charged(*spent)


def test_slack_is_limited_and_paid_beforehand():
    with pytest.raises(BudgetExceeded, match="slack"):
        GaussianFilter(5.0, 1e-5).charge(Gaussian(100.0, 2e-6))
    with pytest.raises(BudgetExceeded, match="slack"):
        RenyiFilter(5.0, 1e-5, 8).charge(Poisson(Gaussian(100.0, 2e-6), 0.1))


def test_every_kind_of_event_with_a_divergence_is_charged():
    budget = RenyiFilter(50.0, 1e-5, 4)
    for step in (
        Gaussian(1.5),
        BandedGaussian(Gaussian(1.5), 4),
        Skellam(900.0, 30.0, 60.0),
        DiscreteGaussianShares(1.0, 100, 5.0, 10.0, 20),
        Poisson(Skellam(900.0, 30.0, 60.0), 0.1),
    ):
        assert budget.charge(step).spent > 0
    assert GaussianFilter(50.0, 1e-5).charge(BandedGaussian(Gaussian(2.0), 4)).spent == pytest.approx(0.25)
    assert GaussianFilter(50.0, 1e-5).charge(FixedSize(Gaussian(2.0), 0.1)).spent == pytest.approx(0.25)


def test_events_without_one_are_refused():
    with pytest.raises(UnsupportedEvent, match="coins"):
        RenyiFilter(50.0, 1e-5, 4).charge(FixedSize(Gaussian(1.5), 0.1))
    with pytest.raises(UnsupportedEvent, match="Renyi filter"):
        GaussianFilter(50.0, 1e-5).charge(Skellam(900.0, 30.0, 60.0))


def test_an_order_that_can_show_nothing_is_refused():
    with pytest.raises(ParameterError, match="use a larger order"):
        RenyiFilter(1.0, 1e-5, 2)
    with pytest.raises(ParameterError, match="cannot show"):
        RenyiFilter.planned(epsilon=1e-3, delta=1e-9, expected=Composed(STEP, 1))


@pytest.mark.parametrize("kind", [lambda e, d: RenyiFilter(e, d, 32), GaussianFilter])
@pytest.mark.parametrize(
    ("target", "delta"), [(0, 1e-5), (-1, 1e-5), (math.nan, 1e-5), (1, 0), (1, 1), (1e-6, 1e-5)]
)
def test_impossible_budgets_are_refused(kind, target, delta):
    with pytest.raises(ParameterError):
        kind(target, delta)


@pytest.mark.parametrize("target", [0.5, 3.0, 20.0])
def test_a_filter_that_is_full_is_worth_exactly_its_budget(target):
    full = math.sqrt(GaussianFilter(target, 1e-6).limit)
    assert 0.999 * target < gaussian_epsilon(shift=full, delta=1e-6) <= target
    order, delta = 32, 1e-6
    if target < 1:
        return
    limit = RenyiFilter(target, delta, order).limit
    reached = limit + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
    assert 0.999 * target < reached <= target


@given(
    st.lists(st.tuples(st.floats(0.3, 50.0), st.floats(1e-6, 1.0)), min_size=1, max_size=30),
    st.sampled_from([2, 8, 64]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=50, deadline=None)
def test_costs_add_up_exactly_in_any_order_and_a_refund_takes_off_what_was_charged(steps, order, shuffle):
    budget = RenyiFilter(1000.0, 1e-6, order)
    costs = [budget.cost(Poisson(Gaussian(noise, slack=1e-30), rate)) for noise, rate in steps]
    forwards = sum(divergence for divergence, _ in costs)
    shuffled = shuffle.sample(costs, len(costs))
    assert sum(divergence for divergence, _ in shuffled) == forwards
    assert forwards - costs[0][0] == sum(divergence for divergence, _ in costs[1:])
    slack = sum(part for _, part in costs)
    assert slack - costs[0][1] == sum(part for _, part in costs[1:])


def test_a_cost_is_never_rounded_down():
    budget = RenyiFilter(10.0, 1e-6, 4)
    assert budget.cost(Poisson(Gaussian(1.0, 1e-40), 1e-9))[0] > 0
    assert budget.cost(Gaussian(3.0))[0] >= 4 / 18
    assert budget.cost(Gaussian(3.0, 1e-25))[1] >= 1e-25
    assert GaussianFilter(10.0, 1e-6).cost(Gaussian(3.0))[0] >= 1 / 9


def test_what_was_reached_is_the_budget_of_a_filter_that_would_be_full():
    for budget in (RenyiFilter(3.0, 1e-5, 8), GaussianFilter(3.0, 1e-5)):
        assert budget.reached == 0
        after = budget.charge(Gaussian(5.0))
        assert 0 < after.reached < 3
        full = type(budget)(after.reached, 1e-5, *([8] if isinstance(budget, RenyiFilter) else []))
        assert full.limit == pytest.approx(after.spent, rel=1e-9)
