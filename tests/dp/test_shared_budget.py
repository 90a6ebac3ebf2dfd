"""Several runs on one ledger: whatever is chosen after looking, all of it together keeps one promise."""

import math
import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.accounting import RunAccountant, epsilon
from dp.central import CentralGaussian
from dp.cohorts import PaddedPoisson, SelfSampling
from dp.errors import BudgetExceeded, LedgerError, ParameterError, UnsupportedEvent
from dp.events import Composed, Gaussian, Poisson
from dp.filters import RenyiFilter
from dp.fixed_cohorts import FixedOrder, FixedSizeSample
from dp.gaussian import gaussian_epsilon
from dp.ledger import Ledger
from dp.mechanisms import DistributedDiscreteGaussian, DistributedSkellam
from dp.privacy import Epsilons, Privacy
from dp.shared_budget import SharedBudget

SAMPLER = PaddedPoisson(1000, 100)
FIGURES = {"sensitivity": 9000.0, "dimension": 100, "honest_survivors": 100}


def accountant(noise_multiplier=3.0, *, sampler=SAMPLER, mechanism=None, rounds=50, delta=1e-5, **promise):
    promise = {"noise_multiplier": noise_multiplier, **promise}
    privacy = Privacy(delta=delta, l2_clip_norm=1.0, **promise)
    noise = mechanism or DistributedDiscreteGaussian(noise_multiplier=noise_multiplier, **FIGURES)
    return RunAccountant(noise, sampler, privacy, rounds)


def join(path, name="one", noise_multiplier=3.0, **changes):
    return Ledger.attach(path, accountant=accountant(noise_multiplier, **changes), run={"name": name})


def settled(ledger):
    ledger.settle(ledger.reserve(), survivors=9, model_hash=bytes(32))


def until_refused(ledger):
    for rounds in range(200):
        try:
            ledger.reserve()
        except BudgetExceeded as refused:
            return rounds, refused
    raise AssertionError("200 rounds were charged, and no budget stopped them")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shared.sqlite"


def test_runs_join_are_numbered_and_continued(path):
    Ledger.share(path, budget=SharedBudget(delta=1e-5, readers_epsilon=4.0, server_epsilon=20.0))
    first, second = join(path), join(path, "two", 5.0)
    assert (first.reserve(), second.reserve(), first.reserve()) == (1, 2, 3)
    again = join(path)
    assert (again.charged, second.charged, Ledger.open(path).charged) == (2, 1, 3)
    kinds = [(row.kind, row.run, row.round) for row in Ledger.open(path).rows()]
    assert kinds == [
        ("shared", 0, 0), ("run", 1, 0), ("run", 2, 0), ("reserve", 1, 1), ("reserve", 2, 2), ("reserve", 1, 3)
    ]  # fmt: skip
    assert again.sharing.runs == 2
    assert first.spent() == second.spent()
    again.verify()


@pytest.mark.parametrize("seeded_first", [True, False])
def test_a_seeded_run_shares_no_budget_with_one_that_promises_something(path, seeded_first):
    """Its noise is known to whoever knows the seed, so what both released would be no promise kept."""
    Ledger.share(path, budget=SharedBudget(delta=1e-5, readers_epsilon=4.0))

    def attach(task, seeded):
        return Ledger.attach(path, accountant=accountant(), run={"task": task, "seeded": seeded})

    attach("first", seeded_first)
    with pytest.raises(ParameterError, match="this run and first, which is on the ledger, is seeded"):
        attach("second", not seeded_first)
    assert attach("third", seeded_first).sharing.runs == 2
    assert attach("first", seeded_first).run == 1


def test_a_run_without_masks_shares_no_budget_against_the_server_with_one_that_has_them(tmp_path):
    for promised, path in ((9.0, tmp_path / "both.sqlite"), (None, tmp_path / "readers.sqlite")):
        budget = SharedBudget(delta=1e-5, readers_epsilon=4.0, server_epsilon=promised)
        Ledger.share(path, budget=budget)
        Ledger.attach(path, accountant=accountant(), run={"task": "ideal", "masked": False})
        if promised is None:
            join(path)
            continue
        with pytest.raises(
            ParameterError, match="this run and ideal, which is on the ledger, is without masks"
        ):
            join(path)


def test_one_runs_ledger_is_not_shared(path):
    ledger = join(path)
    assert ledger.sharing is None
    with pytest.raises(LedgerError, match="single run"):
        Ledger.share(path, budget=SharedBudget(delta=1e-5, readers_epsilon=4.0))
    with pytest.raises(LedgerError, match="another run"):
        join(path, "two")


def test_a_shared_budget_is_fixed_when_it_is_made(path):
    budget = SharedBudget(delta=1e-5, readers_epsilon=4.0)
    Ledger.share(path, budget=budget)
    Ledger.share(path, budget=budget)
    with pytest.raises(LedgerError, match="join it as it is"):
        Ledger.share(path, budget=SharedBudget(delta=1e-5, readers_epsilon=8.0))


def test_everything_charged_by_all_runs_is_what_the_filters_add_up(path):
    budget = SharedBudget(delta=1e-5, readers_epsilon=4.0, server_epsilon=20.0)
    Ledger.share(path, budget=budget)
    first, second = join(path, max_participations=2), join(path, "two", 6.0)
    assert first.spent() == Epsilons(0.0, 0.0)
    for _ in range(5):
        settled(first)
        settled(second)
    readers = budget.readers
    for step in [Poisson(first._accountant.mechanism.event, 0.1)] * 5 + [
        Poisson(second._accountant.mechanism.event, 0.1)
    ] * 5:
        readers = readers.charge(step)
    # One client contributes to the first run at most twice, to the second at most five times.
    server = gaussian_epsilon(shift=math.sqrt(2 / 9 + 5 / 36), delta=1e-5)
    assert second.spent().readers == readers.reached
    assert second.spent().server == pytest.approx(server, rel=1e-3)
    assert second.spent().server >= server


def test_a_refund_takes_back_from_the_filters_exactly_what_was_charged(path):
    Ledger.share(path, budget=SharedBudget(delta=1e-5, readers_epsilon=4.0, server_epsilon=20.0))
    first, second = join(path), join(path, "two", 6.0)
    settled(first)
    before = first.spent()
    number = second.reserve()
    assert second.spent().readers > before.readers
    settled(first)
    second.refund(number, reason="too few")
    assert second.spent().server < gaussian_epsilon(shift=math.sqrt(2 / 9 + 1 / 36), delta=1e-5)
    assert first.spent() == second.spent()
    second.verify()
    with pytest.raises(LedgerError, match="another run's"):
        second.settle(first.reserve(), survivors=1, model_hash=bytes(32))


@pytest.mark.parametrize("observer", ["readers", "server"])
def test_either_shared_budget_stops_every_run(path, observer):
    Ledger.share(path, budget=SharedBudget(delta=1e-5, **{f"{observer}_epsilon": 3.0}))
    first, second = join(path, noise_multiplier=2.0), join(path, "two", 1.5)
    rounds, refused = until_refused(first)
    before = path.read_bytes()
    assert rounds > 1
    assert refused.observer == observer
    assert refused.would_reach > refused.budget == 3.0
    assert "over all runs that share the ledger" in str(refused)
    with pytest.raises(BudgetExceeded):
        second.reserve()
    assert path.read_bytes() == before
    assert getattr(second.spent(), observer) <= 3.0


def test_a_run_also_keeps_its_own_budget(path):
    Ledger.share(path, budget=SharedBudget(delta=1e-5, readers_epsilon=8.0))
    own = accountant(3.0).epsilons(4).readers
    _, refused = until_refused(join(path, readers_epsilon=own))
    assert refused.budget == own
    settled(join(path, "two"))


@given(st.lists(st.tuples(st.floats(0.5, 8.0), st.integers(1, 6), st.booleans()), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_noise_chosen_after_looking_keeps_the_budget_and_totals_are_what_the_rows_add_up_to(choices):
    budget = SharedBudget(delta=1e-5, readers_epsilon=5.0, server_epsilon=9.0)
    shared = Ledger.share(None, budget=budget)
    released = []
    for index, (noise, rounds, refund) in enumerate(choices):
        run = Ledger(shared._file, accountant(noise))
        run._take_part({"run": {"name": index}, "accountant": dict(run._accountant.describe())})
        for _ in range(rounds):
            try:
                number = run.reserve()
            except BudgetExceeded:
                break
            if refund:
                run.refund(number, reason="none")
            else:
                released.append(noise)
    shared.verify()
    totals = [row.body["totals"]["spent"] for row in shared.rows() if row.kind != "shared"][-1]
    server, readers = budget.server, budget.readers
    for noise in released:
        event = accountant(noise).mechanism.event
        server, readers = server.charge(event), readers.charge(Poisson(event, SAMPLER.sampling_rate))
    assert totals == {"readers": [readers.spent, readers.slack], "server": [server.spent, server.slack]}
    if released:
        shift = math.sqrt(sum(noise**-2 for noise in released))
        assert gaussian_epsilon(shift=shift, delta=1e-5) <= 9.0


def test_a_shared_ledger_never_promises_less_than_a_plan_would_cost(path):
    """The same rounds as one fixed plan, by loss distributions, cost no more than the filters charged."""
    Ledger.share(path, budget=SharedBudget(delta=1e-5, readers_epsilon=3.0, server_epsilon=90.0))
    ledger = join(path, noise_multiplier=1.0)
    rounds, _ = until_refused(ledger)
    event = ledger._accountant.mechanism.event
    assert (
        epsilon(Composed(Poisson(event, SAMPLER.sampling_rate), rounds), delta=1e-5) <= ledger.spent().readers
    )
    assert ledger.spent().readers <= 3.0


def test_turns_in_a_fixed_order_are_charged_when_a_client_may_have_another(path):
    Ledger.share(path, budget=SharedBudget(delta=1e-5, server_epsilon=50.0))
    ledger = join(path, sampler=FixedOrder(1000, 250))
    for _ in range(9):
        ledger.reserve()
    costs = [row.body["cost"]["server"][0] for row in Ledger.open(path).rows() if row.kind == "reserve"]
    assert [cost > 0 for cost in costs] == [number % 4 == 0 for number in range(9)]


def test_what_a_shared_ledger_cannot_promise_for_a_run_is_refused_when_it_joins(path):
    Ledger.share(path, budget=SharedBudget(delta=1e-5, readers_epsilon=4.0, server_epsilon=20.0))
    before = path.read_bytes()
    central = CentralGaussian(noise_multiplier=3.0, sensitivity=9000.0, dimension=100, trusted_server=True)
    with pytest.raises(LedgerError, match="delta 1e-05, and this run promises delta 1e-06"):
        join(path, delta=1e-6)
    with pytest.raises(ParameterError, match="against the server, which the mechanism trusts"):
        join(path, mechanism=central)
    with pytest.raises(UnsupportedEvent, match="Gaussian filter"):
        join(path, mechanism=DistributedSkellam(noise_multiplier=3.0, **FIGURES))
    with pytest.raises(UnsupportedEvent, match="coins"):
        join(path, sampler=FixedSizeSample(1000, 100))

    class Untold:
        budgets = Epsilons(math.inf, math.inf)

        def epsilons(self, rounds):
            return self.budgets

        def describe(self):
            return {"delta": 1e-5}

    with pytest.raises(LedgerError, match="does not tell its events"):
        Ledger.attach(path, accountant=Untold(), run={})
    assert path.read_bytes() == before


def test_a_renyi_filter_against_the_server_takes_any_mechanism_and_credits_self_sampling(path):
    Ledger.share(path, budget=SharedBudget(delta=1e-5, server_epsilon=20.0, server_order=8))
    settled(join(path, mechanism=DistributedSkellam(noise_multiplier=3.0, **FIGURES)))
    unsampled = join(path, "two")
    settled(unsampled)
    half = unsampled.spent().server
    coins = join(path, "three", sampler=SelfSampling(SAMPLER, 0.1))
    settled(coins)
    divergence = RenyiFilter(20.0, 1e-5, 8).cost(Poisson(coins._accountant.mechanism.event, 0.1))[0]
    assert coins.spent().server - half == pytest.approx(divergence, rel=1e-6)
    assert coins.spent().readers == coins.spent().server


def test_without_a_promise_against_the_server_its_epsilon_is_infinite(path):
    Ledger.share(path, budget=SharedBudget(delta=1e-5, readers_epsilon=4.0))
    central = CentralGaussian(noise_multiplier=3.0, sensitivity=9000.0, dimension=100, trusted_server=True)
    ledger = join(path, mechanism=central)
    assert ledger.spent() == Epsilons(0.0, 0.0)
    settled(ledger)
    assert 0 < ledger.spent().readers <= 4.0
    assert ledger.spent().server == math.inf


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"delta": 1e-5}, "No budget"),
        ({"delta": 0.0, "readers_epsilon": 1.0}, "delta"),
        ({"delta": 1e-5, "readers_epsilon": -1.0}, "readers_epsilon"),
        ({"delta": 1e-5, "readers_epsilon": 1.0, "readers_order": 2}, "Order 2 cannot show"),
        (
            {"delta": 1e-5, "server_epsilon": 1.0, "readers_order": 8},
            "readers_order is 8 without readers_epsilon",
        ),
    ],
)
def test_impossible_shared_budgets_are_refused(figures, said):
    with pytest.raises(ParameterError, match=said):
        SharedBudget(**figures)


@pytest.mark.parametrize("noise", [1e-100, 1e-153, 1e-155])
def test_noise_too_small_for_its_cost_to_be_a_float_is_never_free(noise):
    budget = SharedBudget(delta=1e-6, readers_epsilon=2.0)
    nothing, one = (budget.cost(Composed(Gaussian(noise), count), None) for count in (0, 1))
    with pytest.raises(BudgetExceeded):
        budget.after(one.plus(nothing.negative()))


def test_a_budget_is_told_in_full_by_its_description():
    budget = SharedBudget(delta=1e-5, readers_epsilon=4.0, server_epsilon=20.0, server_order=8)
    assert SharedBudget.from_description(budget.describe()) == budget
    only = SharedBudget(delta=1e-5, server_epsilon=20.0)
    assert SharedBudget.from_description(only.describe()) == only
    assert only.epsilons == Epsilons(20.0, 20.0)


RACE = """
    import sys
    sys.path.insert(0, sys.argv[2])
    from test_shared_budget import join, until_refused
    ledger = join(sys.argv[1], sys.argv[3], float(sys.argv[4]))
    print("ready", flush=True)
    sys.stdin.readline()
    print(until_refused(ledger)[0])
"""


def test_two_runs_in_two_processes_cannot_overspend_what_they_share(path):
    budget = SharedBudget(delta=1e-5, readers_epsilon=9.0, server_epsilon=6.0)
    Ledger.share(path, budget=budget)
    script, here = textwrap.dedent(RACE), os.path.dirname(__file__)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), here, name, noise],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, noise in (("one", "3.0"), ("two", "4.0"))
    ]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    threes, fours = (int(racer.communicate(timeout=60)[0]) for racer in racers)
    ledger = Ledger.open(path)
    ledger.verify()
    assert ledger.charged == threes + fours
    shift = math.sqrt(threes / 9 + fours / 16)
    assert 0.95 * 6.0 < gaussian_epsilon(shift=shift, delta=1e-5) <= 6.0


def test_a_row_that_charges_less_than_the_filters_add_up_is_named(path):
    Ledger.share(path, budget=SharedBudget(delta=1e-5, readers_epsilon=4.0))
    ledger = join(path)
    settled(ledger)
    body = {**next(row.body for row in ledger.rows() if row.kind == "reserve")}
    body["totals"] = {**body["totals"], "charged": 2}
    with ledger._file.writing():
        ledger._file.append("reserve", 1, 2, body)
    with pytest.raises(LedgerError, match=r"row 4 .* totals that are not those of the rows above"):
        ledger.verify()


def test_gaussian_steps_cost_the_server_their_squared_shift_alone():
    budget = SharedBudget(delta=1e-5, server_epsilon=6.0)
    costs = budget.cost(Composed(Poisson(Gaussian(2.0), 0.1), 3), Composed(Gaussian(2.0), 3))
    assert costs.readers is None
    assert costs.server[0] == pytest.approx(0.75)
