"""Verification: a ledger that fits is confirmed by an accountant of its own, and what does not fit is named."""

import json
import math
import re
import sqlite3

import pytest

from dp.accounting import RunAccountant, epsilon
from dp.central import CentralFloatGaussianNotFloatingPointSafe, CentralGaussian, CentralMatrix
from dp.cohorts import PaddedPoisson, SelfSampling
from dp.errors import LedgerError
from dp.events import Gaussian
from dp.fixed_cohorts import FixedOrder, FixedSizeSample
from dp.ledger import Ledger
from dp.ledger_file import canonical, link
from dp.mechanisms import DistributedDiscreteGaussian, DistributedSkellam, NarrowDiscreteGaussian
from dp.privacy import Epsilons, Privacy
from dp.removable_noise import RemovableDiscreteGaussian
from dp.shared_budget import SharedBudget
from dp.verification import verify

FIGURES = {"noise_multiplier": 1.5, "sensitivity": 9000.0, "dimension": 7850, "honest_survivors": 333}
DEMO = PaddedPoisson(3000, 300)
CENTRAL = CentralGaussian(noise_multiplier=1.5, sensitivity=9000.0, dimension=7850, trusted_server=True)

TURNS = FixedOrder(3000, 300)
"""A sampler that is not amplified, for what needs no loss distribution."""

FLOAT = CentralFloatGaussianNotFloatingPointSafe(
    noise_multiplier=1.5, sensitivity=1.0, dimension=7850, trusted_server=True
)
MATRIX = CentralMatrix(noise_multiplier=1.5, sensitivity=9000.0, dimension=10, bands=4, trusted_server=True)
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
        (DistributedSkellam(**FIGURES), DEMO, (True, True)),
        (DistributedSkellam(**FIGURES), SelfSampling(DEMO, 0.5), (True, True)),
        (DistributedSkellam(**FIGURES), FixedOrder(3000, 300), (True, True)),
        (NarrowDiscreteGaussian(**{**FIGURES, "sensitivity": 20.0}), DEMO, (True, True)),
        (CENTRAL, DEMO, (True, True)),
        (REMOVABLE, DEMO, (True, True)),
        (FLOAT, DEMO, (True, True)),
        (MATRIX, FixedOrder(3000, 300), (True, True)),
        (DistributedDiscreteGaussian(**FIGURES), SelfSampling(DEMO, 0.5), (True, True)),
        (DistributedDiscreteGaussian(**FIGURES), FixedSizeSample(3000, 300), (True, True)),
        (DistributedDiscreteGaussian(**FIGURES), FixedOrder(3000, 300), (True, True)),
    ],
)  # fmt: skip
def test_every_mechanism_and_sampler_is_rebuilt_from_its_description(path, mechanism, sampler, covered):
    ledger = spend(path, mechanism=mechanism, sampler=sampler)
    found = verify(path)
    assert found.findings == ()
    assert found.epsilons == ledger.spent()
    assert tuple(found.recomputed[observer] is not None for observer in ("readers", "server")) == covered
    assert found.recomputed["readers"] == pytest.approx(found.epsilons.readers, rel=1e-3)


def test_a_query_of_tensorflow_privacy_is_recomputed_from_its_description(path):
    class Query:
        budgets = Epsilons(3.0, math.inf)

        def epsilons(self, rounds):
            return Epsilons(epsilon(DEMO.readers_event(Gaussian(1.5), rounds), delta=1e-5), math.inf)

        def describe(self):
            facts = {"noise_multiplier": 1.5, "sampler": DEMO.describe(), "delta": 1e-5}
            return {**facts, "readers_epsilon": 3.0, "trusted_server": True}

    ledger = Ledger.attach(path, accountant=Query(), run={})
    for _ in range(5):
        ledger.reserve()
    found = verify(path)
    assert found.findings == ()
    assert found.epsilons == ledger.spent()
    assert found.recomputed["readers"] == pytest.approx(found.epsilons.readers, rel=1e-3)


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


COLUMNS = "sequence, kind, run, round, body, hash"
TAMPERINGS = {
    "deleted row": (["DELETE FROM row WHERE sequence = 3"], {3}),
    "edited row": (["UPDATE row SET body = replace(body, '380', '381') WHERE sequence = 4"], {4}),
    "edited hash": (["UPDATE row SET hash = zeroblob(32) WHERE sequence = 4"], {4, 5}),
    "swapped rows": (
        [
            "UPDATE row SET sequence = -1 WHERE sequence = 3",
            "UPDATE row SET sequence = 3 WHERE sequence = 4",
            "UPDATE row SET sequence = 4 WHERE sequence = -1",
        ],
        {3, 4, 5},
    ),
    "replayed row": ([f"INSERT INTO row SELECT 11, {COLUMNS[10:]} FROM row WHERE sequence = 9"], {11}),
    "row replayed over another": (
        [
            "DELETE FROM row WHERE sequence = 5",
            f"INSERT INTO row SELECT 5, {COLUMNS[10:]} FROM row WHERE sequence = 3",
        ],
        {5, 6},
    ),
    "damaged row": (["UPDATE row SET body = x'ff' WHERE sequence = 2"], {2}),
    "another's run": (["UPDATE row SET run = -7 WHERE sequence = 2"], {2}),
}


@pytest.mark.parametrize(("changes", "rows"), TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_whatever_is_done_to_rows_is_named_by_row(path, changes, rows):
    spend(path)
    rewrite(path, lambda connection: [connection.execute(change) for change in changes])
    findings = verify(path).findings
    assert {int(re.match(r"row (\d+) of", finding)[1]) for finding in findings} == rows


def test_another_runs_row_is_named_even_where_the_plans_are_the_same(path, tmp_path):
    """Row 1 of a ledger of the same plan, put where row 1 belongs: only the random name in row 0 tells them apart."""
    spend(path, rounds=0)
    spend(tmp_path / "other.sqlite", rounds=1)
    with sqlite3.connect(path) as connection:
        connection.execute("ATTACH ? AS other", (str(tmp_path / "other.sqlite"),))
        connection.execute("INSERT INTO row SELECT * FROM other.row WHERE sequence = 1")
    connection.close()
    (finding,) = verify(path).findings
    assert finding.startswith("row 1 of")


def test_a_replayed_row_is_named_even_if_it_is_chained_anew(path):
    ledger = spend(path)
    replayed = list(ledger.rows())[10]
    with ledger._file.writing():
        ledger._file.append("settle", 1, replayed.round, replayed.body)
    (finding,) = verify(path).findings
    assert finding.startswith("row 11 of")
    assert "settle that cannot stand there" in finding


def test_a_clock_that_ran_back_is_named(path):
    spend(path, sampler=TURNS)
    rewrite(path, lambda c: forge(c, lambda row, body: {**body, "time": 50.0} if row == 5 else body))
    (finding,) = verify(path).findings
    assert finding.startswith("Row 5 is dated 51.500 s before")


def test_a_row_that_waited_for_the_file_is_no_clock_that_ran_back(path):
    """Two processes charge one run: each takes the time first, and the file when the other leaves it."""
    ledger = spend(path, sampler=TURNS)
    last = max(row.body.get("time") or 0.0 for row in ledger.rows())
    ledger.reserve(timestamp=last - 0.02)
    assert verify(path).findings == ()


def test_a_forged_budget_is_named(path):
    """Chained anew, an edit is only visible in what the rows add up to."""
    spend(path, sampler=TURNS, readers_epsilon=4.0)
    lower = 0.5

    def edit(row, body):
        return body if row else {**body, "accountant": {**body["accountant"], "readers_epsilon": lower}}

    rewrite(path, lambda connection: forge(connection, edit))
    (finding,) = verify(path).findings
    assert "over the budget of 0.5 in row 0" in finding


def test_two_accountants_that_differ_are_named(path, monkeypatch):
    spend(path, sampler=TURNS)
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


def test_nothing_spent_costs_nothing_by_either(path):
    spend(path, rounds=0)
    found = verify(path)
    assert found.recomputed == {"readers": 0.0, "server": 0.0}
    assert found.findings == ()
    assert not math.isnan(found.epsilons.readers)


MODELS = {1: bytes(32), 2: bytes(32), 4: bytes(31) + b"x", 9: b"not settled"}


@pytest.mark.parametrize("models", [MODELS, MODELS.get], ids=["mapping", "callable"])
def test_models_at_hand_are_held_against_the_rows_that_name_them(path, models):
    spend(path, sampler=TURNS)
    found = verify(path, models)
    assert found.models_checked == 3
    (finding,) = found.findings
    assert finding.startswith("Row 8 settles round 4 with the model 0000000000000000..., and the one at hand")


def shared(path, **promise):
    budget = SharedBudget(delta=1e-5, **promise)
    Ledger.share(path, budget=budget)
    for name, noise in (("one", 1.5), ("two", 3.0)):
        figures = {**FIGURES, "noise_multiplier": noise}
        privacy = Privacy(delta=1e-5, l2_clip_norm=0.3, noise_multiplier=noise, max_participations=2)
        accountant = RunAccountant(DistributedDiscreteGaussian(**figures), DEMO, privacy, 50)
        ledger = Ledger.attach(path, accountant=accountant, run={"name": name})
        for number in range(3):
            reserved = ledger.reserve(timestamp=100.0 + number)
            if number == 1:
                ledger.refund(reserved, reason="too few", timestamp=100.0 + number)
            else:
                ledger.settle(reserved, survivors=380, model_hash=bytes(32), timestamp=100.0 + number)
    return ledger


@pytest.mark.parametrize(
    "promise",
    [
        {"readers_epsilon": 3.0},
        {"server_epsilon": 15.0},
        {"readers_epsilon": 3.0, "server_epsilon": 15.0},
        {"readers_epsilon": 3.0, "server_epsilon": 15.0, "server_order": 5},
    ],
)
def test_a_shared_ledger_is_recomputed_from_all_its_runs(path, promise):
    ledger = shared(path, **promise)
    before = path.read_bytes()
    found = verify(path)
    assert found.findings == ()
    assert (found.runs, found.shared, found.charged, found.settled, found.refunded) == (2, True, 4, 4, 2)
    assert found.epsilons == ledger.spent()
    for observer in ("readers", "server"):
        assert found.recomputed[observer] == pytest.approx(getattr(found.epsilons, observer), rel=1e-6)
    assert path.read_bytes() == before


def test_a_row_that_charged_the_filters_too_little_is_named(path):
    """Chained anew with totals to match: only the run's own description tells."""
    shared(path, readers_epsilon=3.0, server_epsilon=15.0)

    def edit(row, body):
        cheap = [2.0**-40, 0.0]
        if row == 2:
            body["cost"]["readers"] = body["totals"]["spent"]["readers"] = cheap
        elif row > 2 and "totals" in body:
            spent, paid = body["totals"]["spent"], body.get("cost", {}).get("readers", [0.0, 0.0])
            spent["readers"] = edit.last = [a + b for a, b in zip(edit.last, paid, strict=True)]
        edit.last = body.get("totals", {}).get("spent", {}).get("readers", cheap)
        return body

    edit.last = None
    rewrite(path, lambda connection: forge(connection, edit))
    findings = verify(path).findings
    assert findings[0].startswith("Row 2 charges")
    assert any("by dp-accounting" in finding for finding in findings[1:])


def test_a_clock_may_lag_between_runs_as_long_as_a_writer_waits(path):
    ledger = shared(path, readers_epsilon=3.0)
    assert verify(path).findings == ()
    ledger.reserve(timestamp=50.0)
    (finding,) = verify(path).findings
    assert "a clock ran back" in finding
