"""What a ledger says was spent: read from its totals, run by run, and what is left."""

import json
import math

import pytest

from dp.accounting import RunAccountant
from dp.cohorts import PaddedPoisson
from dp.errors import BudgetExceeded, LedgerError, ParameterError
from dp.ledger import Ledger
from dp.mechanisms import DistributedDiscreteGaussian
from dp.privacy import Epsilons, Privacy
from dp.shared_budget import SharedBudget
from dp.spending import accountant_of, spending

SAMPLER = PaddedPoisson(1000, 100)


def accountant(noise_multiplier=3.0, **promise):
    figures = {"sensitivity": 9000.0, "dimension": 100, "honest_survivors": 100}
    privacy = Privacy(delta=1e-5, l2_clip_norm=1.0, noise_multiplier=noise_multiplier, **promise)
    noise = DistributedDiscreteGaussian(noise_multiplier=noise_multiplier, **figures)
    return RunAccountant(noise, SAMPLER, privacy, 50)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def used(path, name, cost):
    ledger = Ledger.attach(path, accountant=cost, run={"name": name})
    for _ in range(3):
        ledger.settle(ledger.reserve(), survivors=9, model_hash=bytes(32))
    ledger.refund(ledger.reserve(), reason="too few")
    ledger.reserve()
    return ledger


def test_one_runs_spending_is_its_ledgers(path):
    ledger = used(path, "one", accountant(readers_epsilon=4.0))
    before = path.read_bytes()
    found = spending(path)
    (run,) = found.runs
    assert (run.charged, run.settled, run.refunded, run.aborted) == (4, 3, 1, 1)
    assert found.spent == run.spent == ledger.spent()
    assert found.budgets == Epsilons(4.0, math.inf)
    assert found.left == Epsilons(4.0 - found.spent.readers, math.inf)
    assert (found.delta, found.shared, found.rows) == (1e-5, None, 10)
    assert found.newest_hash == ledger.head[1]
    assert found.after(1) == accountant().epsilons(5)
    assert found.after(1, rounds=0) == found.spent
    assert path.read_bytes() == before


def test_a_shared_ledgers_spending_is_all_of_it_and_each_runs_own(path):
    budget = SharedBudget(delta=1e-5, readers_epsilon=4.0, server_epsilon=9.0)
    Ledger.share(path, budget=budget)
    used(path, "one", accountant())
    ledger = used(path, "two", accountant(5.0))
    found = spending(path)
    assert found.shared == budget
    assert found.spent == ledger.spent()
    assert found.budgets == Epsilons(4.0, 9.0)
    assert [run.run["name"] for run in found.runs] == ["one", "two"]
    assert [run.spent for run in found.runs] == [accountant().epsilons(4), accountant(5.0).epsilons(4)]
    after = found.after(2)
    ledger.reserve()
    assert ledger.spent() == after != found.spent
    with pytest.raises(BudgetExceeded):
        found.after(1, rounds=1000)


def test_a_shared_ledger_that_nobody_joined_has_spent_nothing(path):
    Ledger.share(path, budget=SharedBudget(delta=1e-5, readers_epsilon=4.0))
    found = spending(path)
    assert (found.runs, found.spent, found.rows) == ((), Epsilons(0.0, 0.0), 1)


def test_every_figure_is_json(path):
    used(path, "one", accountant())
    found = json.loads(json.dumps(spending(path).as_dict(), allow_nan=False))
    assert found["epsilon"]["readers"] > 0
    assert found["budget"] == {"readers": None, "server": None}
    assert found["runs"][0]["charged"] == 4


def test_another_accountants_spending_is_unknown_not_none(path):
    class Other:
        budgets = Epsilons(math.inf, math.inf)

        def epsilons(self, rounds):
            return Epsilons(float(rounds), math.inf)

        def describe(self):
            return {"kind": "other"}

    Ledger.attach(path, accountant=Other(), run={}).reserve()
    found = spending(path)
    assert found.runs[0].charged == 1
    assert (found.spent, found.budgets, found.left) == (None, None, None)
    with pytest.raises(ParameterError, match="Run 1 is not one of"):
        found.after(1)
    with pytest.raises(ParameterError, match="Run 2 is not one of"):
        found.after(2)
    assert accountant_of({"mechanism": {"kind": "distributed Skellam"}, "sampler": []}) is None


def test_what_is_no_ledger_is_refused(path):
    path.write_text("nothing")
    with pytest.raises(LedgerError, match="no ledger"):
        spending(path)
