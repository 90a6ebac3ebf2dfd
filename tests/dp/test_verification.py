"""Verification: a ledger that fits is confirmed by an accountant of its own, and what does not fit is named."""

import json
import math
import sqlite3

import pytest

from dp.accounting import RunAccountant
from dp.central import CentralGaussian
from dp.cohorts import PaddedPoisson, SelfSampling
from dp.errors import LedgerError
from dp.events import Composed, Gaussian, Poisson
from dp.fixed_cohorts import FixedOrder, FixedSizeSample
from dp.ledger import Ledger
from dp.ledger_file import canonical, link
from dp.mechanisms import DistributedDiscreteGaussian, DistributedSkellam, NarrowDiscreteGaussian
from dp.privacy import Privacy
from dp.removable_noise import RemovableDiscreteGaussian
from dp.verification import independent_epsilon, verify

FIGURES = {"noise_multiplier": 1.5, "sensitivity": 9000.0, "dimension": 7850, "honest_survivors": 333}
DEMO = PaddedPoisson(3000, 300)
CENTRAL = CentralGaussian(noise_multiplier=1.5, sensitivity=9000.0, dimension=7850, trusted_server=True)

REMOVABLE = RemovableDiscreteGaussian(
    noise_multiplier=1.5, sensitivity=9000.0, dimension=7850, cohort=416, dropouts=41, colluders=41
)


def spend(path, *, rounds=5, mechanism=None, sampler=DEMO, **promise):
    privacy = Privacy(delta=1e-5, l2_clip_norm=0.3, noise_multiplier=1.5, **promise)
    accountant = RunAccountant(mechanism or DistributedDiscreteGaussian(**FIGURES), sampler, privacy, 50)
    ledger = Ledger.attach(path, accountant=accountant, run={"task": "test"})
    for number in range(rounds):
        ledger.settle(
            ledger.reserve(timestamp=100.0 + number),
            survivors=380,
            model_hash=bytes(32),
            timestamp=100.5 + number,
        )
    return ledger


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def test_a_ledger_that_fits_is_confirmed(path):
    ledger = spend(path, max_participations=3)
    ledger.refund(ledger.reserve(timestamp=200.0), reason="too few", timestamp=201.0)
    before = path.read_bytes()
    found = verify(path)
    assert found.findings == ()
    assert (found.charged, found.settled, found.refunded) == (5, 5, 1)
    assert found.epsilons == ledger.spent()
    for observer in ("readers", "server"):
        assert found.recomputed[observer] == pytest.approx(getattr(found.epsilons, observer), rel=1e-3)
    assert json.loads(json.dumps(found.as_dict()))["charged"] == 5
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("mechanism", "sampler", "covered"),
    [
        (DistributedSkellam(**FIGURES), DEMO, (False, False)),
        (NarrowDiscreteGaussian(**{**FIGURES, "sensitivity": 20.0}), DEMO, (False, False)),
        (CENTRAL, DEMO, (True, True)),
        (REMOVABLE, DEMO, (True, True)),
        (DistributedDiscreteGaussian(**FIGURES), SelfSampling(DEMO, 0.5), (True, True)),
        (DistributedDiscreteGaussian(**FIGURES), FixedSizeSample(3000, 300), (False, True)),
        (DistributedDiscreteGaussian(**FIGURES), FixedOrder(3000, 300), (True, True)),
    ],
)  # fmt: skip
def test_every_mechanism_and_sampler_is_rebuilt_from_its_description(path, mechanism, sampler, covered):
    ledger = spend(path, mechanism=mechanism, sampler=sampler)
    found = verify(path)
    assert found.findings == ()
    assert found.epsilons == ledger.spent()
    assert tuple(found.recomputed[observer] is not None for observer in ("readers", "server")) == covered


def rewrite(path, change):
    """Edit a ledger past its own guards, as somebody with the file could."""
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute("DROP TRIGGER no_delete")
        change(connection)
    connection.close()


def forge(connection, edit):
    """Edit bodies and chain the rows anew, as somebody who knows the code could."""
    before = bytes(32)
    for sequence, kind, run, number, body in connection.execute(
        "SELECT sequence, kind, run, round, body FROM row ORDER BY sequence"
    ).fetchall():
        body = canonical(edit(sequence, json.loads(body)))
        before = link(before, sequence, kind, run, number, body)
        connection.execute("UPDATE row SET body = ?, hash = ? WHERE sequence = ?", (body, before, sequence))


def test_an_edited_multiplier_is_named_by_its_row(path):
    spend(path)
    edit = "UPDATE row SET body = replace(body, ?, ?) WHERE sequence = 0"
    figures = ('"noise_multiplier":1.5', '"noise_multiplier":2.5')
    rewrite(path, lambda connection: connection.execute(edit, figures))
    (finding,) = verify(path).findings
    assert "row 0" in finding


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ("DELETE FROM row WHERE sequence = 3", 3),
        ("UPDATE row SET body = replace(body, '380', '381') WHERE sequence = 4", 4),
    ],
)
def test_a_missing_or_edited_row_is_named(path, change, row):
    spend(path)
    rewrite(path, lambda connection: connection.execute(change))
    (finding,) = verify(path).findings
    assert f"row {row}" in finding


def test_a_clock_that_ran_back_is_named(path):
    spend(path)
    rewrite(path, lambda c: forge(c, lambda row, body: {**body, "time": 50.0} if row == 5 else body))
    (finding,) = verify(path).findings
    assert finding.startswith("Row 5 is dated 51.500 s before")


def test_a_forged_budget_is_named(path):
    """Chained anew, an edit is only visible in what the rows add up to."""
    spend(path, readers_epsilon=2.6)
    lower = 0.5

    def edit(row, body):
        return body if row else {**body, "accountant": {**body["accountant"], "readers_epsilon": lower}}

    rewrite(path, lambda connection: forge(connection, edit))
    (finding,) = verify(path).findings
    assert "over the budget of 0.5 in row 0" in finding


def test_two_accountants_that_differ_are_named(path, monkeypatch):
    spend(path)
    monkeypatch.setattr("dp.verification.independent_epsilon", lambda cost, **_: 0.9)
    findings = verify(path).findings
    assert len(findings) == 2
    assert all("by dp-accounting" in finding for finding in findings)


def test_a_ledger_of_another_accountant_is_read_without_epsilons(path):
    class Other:
        budgets = None

        def describe(self):
            return {"kind": "other"}

    Ledger.attach(path, accountant=Other(), run={})
    found = verify(path)
    assert (found.epsilons, found.findings) == (None, ())


def test_what_is_no_ledger_is_an_error_not_a_finding(path):
    path.write_text("nothing")
    with pytest.raises(LedgerError):
        verify(path)


@pytest.mark.parametrize("count", [1, 50, 10_000])
@pytest.mark.parametrize("rate", [0.01, 0.1, 1.0])
def test_the_independent_path_agrees_at_any_length(count, rate):
    from dp.accounting import epsilon

    cost = Composed(Poisson(Gaussian(1.5), rate), count)
    own = epsilon(cost, delta=1e-6)
    assert independent_epsilon(cost, delta=1e-6, scale=own) == pytest.approx(own, rel=2e-3, abs=1e-3)


def test_nothing_spent_costs_nothing_by_either(path):
    spend(path, rounds=0)
    found = verify(path)
    assert found.recomputed == {"readers": 0.0, "server": 0.0}
    assert found.findings == ()
    assert not math.isnan(found.epsilons.readers)
