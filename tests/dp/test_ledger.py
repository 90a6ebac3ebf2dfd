"""The ledger: pays first, forgets nothing, and shows an edit. Kills are in `test_crashes`."""

import contextlib
import hashlib
import json
import math
import os
import random
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pytest

from dp.accounting import RunAccountant
from dp.cohorts import PaddedPoisson
from dp.errors import BudgetExceeded, LedgerError
from dp.ledger import Ledger
from dp.mechanisms import DistributedDiscreteGaussian
from dp.privacy import Epsilons, Privacy
from dp.shared_budget import SharedBudget
from dp.spending import spending
from dp.verification import verify

RUN = {"task": "test", "weights": "ab"}


@dataclass
class Linear:
    """An accountant whose epsilons are the number of rounds, and twice that."""

    readers: float = math.inf
    server: float = math.inf

    def epsilons(self, rounds):
        return Epsilons(float(rounds), 2.0 * rounds)

    @property
    def budgets(self):
        return Epsilons(self.readers, self.server)

    def describe(self):
        return {"kind": "linear"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def attach(path, **changes):
    return Ledger.attach(path, accountant=changes.pop("accountant", Linear()), run={**RUN, **changes})


def kinds(ledger):
    return [(row.kind, row.round) for row in ledger.rows()]


def test_a_round_is_charged_when_reserved_not_when_settled(path):
    ledger = attach(path)
    assert ledger.spent() == Epsilons(0.0, 0.0)
    number = ledger.reserve()
    assert ledger.spent() == Epsilons(1.0, 2.0)
    ledger.settle(number, survivors=9, model_hash=bytes(32))
    assert ledger.spent() == Epsilons(1.0, 2.0)
    assert kinds(ledger) == [("plan", 0), ("reserve", 1), ("settle", 1)]


def test_a_refund_takes_the_charge_back_but_never_the_number(path):
    ledger = attach(path)
    ledger.refund(ledger.reserve(), reason="too few")
    assert ledger.spent().readers == 0
    assert ledger.reserve() == 2


def test_a_round_keeps_its_turn_whoever_else_charges_the_run(path):
    one, other = attach(path), attach(path)
    first, second = one.reserve(), other.reserve()
    assert (one.turn(first), other.turn(second), one.charged) == (1, 2, 2)
    other.refund(second, reason="too few")
    third = one.reserve()
    assert (third, one.turn(third)) == (3, 2)
    with pytest.raises(LedgerError, match="holds no round 4"):
        one.turn(4)


def test_a_lost_round_stays_charged_after_reopening(path):
    attach(path).reserve()
    again = attach(path)
    assert (again.charged, again.aborted) == (1, 1)
    assert again.reserve() == 2


@pytest.mark.parametrize(
    ("budgets", "observer"), [({"readers": 2.5}, "readers"), ({"server": 4.5}, "server")]
)
def test_the_round_that_would_pass_a_budget_is_refused_and_nothing_is_written(path, budgets, observer):
    ledger = attach(path, accountant=Linear(**budgets))
    ledger.reserve()
    ledger.reserve()
    before = path.read_bytes()
    with pytest.raises(BudgetExceeded, match="budget") as refused:
        ledger.reserve()
    assert refused.value.observer == observer
    assert path.read_bytes() == before


@pytest.mark.parametrize("closing", ["settle", "refund"])
def test_a_round_is_closed_once_and_only_after_it_was_reserved(path, closing):
    ledger = attach(path)

    def close(number):
        if closing == "settle":
            ledger.settle(number, survivors=1, model_hash=bytes(32))
        else:
            ledger.refund(number, reason="none")

    with pytest.raises(LedgerError, match="none"):
        close(1)
    number = ledger.reserve()
    close(number)
    with pytest.raises(LedgerError, match=f"reserve, {closing}"):
        close(number)


def test_another_runs_ledger_is_refused_and_left_alone(path):
    attach(path).reserve()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"another run.*weights"):
        attach(path, weights="cd")
    assert path.read_bytes() == before


TAMPERINGS = {
    "edited body": "UPDATE row SET body = replace(body, '9', '8') WHERE sequence = 2",
    "edited kind": "UPDATE row SET kind = 'refund' WHERE sequence = 2",
    "no longer json": "UPDATE row SET body = 'x' WHERE sequence = 2",
    "deleted": "DELETE FROM row WHERE sequence = 2",
    "swapped": "UPDATE row SET sequence = CASE sequence WHEN 2 THEN -1 WHEN 3 THEN 2 ELSE sequence END",
}


@pytest.mark.parametrize("tampering", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_an_edit_shows_and_names_the_row(path, tampering):
    ledger = attach(path)
    ledger.settle(ledger.reserve(), survivors=9, model_hash=bytes(32))
    ledger.reserve()
    del ledger
    with sqlite3.connect(path) as raw:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(tampering)
        raw.execute("DROP TRIGGER no_update")
        raw.execute("DROP TRIGGER no_delete")
        raw.execute(tampering)
    raw.close()
    with pytest.raises(LedgerError, match=r"row [0-2] "):
        Ledger.open(path).verify()
    with pytest.raises(LedgerError, match=r"row [0-2] "):
        attach(path)


def test_a_forged_row_with_a_sound_hash_must_still_be_in_order(path):
    ledger = attach(path)
    with ledger._file.writing():
        ledger._file.append("settle", 1, 5, {})
    with pytest.raises(LedgerError, match=r"row 1 .* settle that cannot stand there"):
        ledger.verify()


def good(path):
    """A ledger of a few rounds, as bytes."""
    ledger = attach(path)
    for _ in range(12):
        ledger.settle(ledger.reserve(), survivors=9, model_hash=bytes(32))
    return path.read_bytes()


def cut(path):
    path.write_bytes(good(path)[:-700])


def cut_to_a_page(path):
    path.write_bytes(good(path)[:4096])


def cut_to_a_header(path):
    path.write_bytes(good(path)[:50])


def text(path):
    path.write_text("not a database, whatever its name says" * 30)


def pragma(statement):
    def change(path):
        good(path)
        with sqlite3.connect(path) as raw:
            raw.execute(statement)
        raw.close()

    return change


def foreign(path):
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE t (x)")
    raw.close()


def no_rows(path):
    attach(path)
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TRIGGER no_delete")
        raw.execute("DELETE FROM row")
    raw.close()


BAD_FILES = [
    (cut, "damaged"),
    (cut_to_a_page, "damaged"),
    (cut_to_a_header, "no ledger, or a damaged one"),
    (text, "no ledger, or a damaged one"),
    (foreign, "a database, but no ledger"),
    (pragma("PRAGMA application_id = 7"), "a database, but no ledger"),
    (pragma("PRAGMA user_version = 99"), "version 99, newer than"),
    (pragma("PRAGMA user_version = 1"), "version 1, older than"),
    (pragma("DROP TABLE row"), "holds no rows any more"),
    (no_rows, "row 0 .* missing"),
]


@pytest.mark.parametrize(("damage", "said"), BAD_FILES)
@pytest.mark.parametrize("use", ["open", "attach", "share", "spending"])
def test_what_is_no_sound_ledger_is_refused_in_a_sentence_and_left_alone(tmp_path, damage, said, use):
    target = tmp_path / "ledger.sqlite"
    damage(target)
    before = target.read_bytes()
    if damage is no_rows and use == "spending":
        said = "no plan"
    if use == "spending" and damage is cut:
        return  # Its last page is not read: what was spent stands in others, and `verify` finds it.
    uses = {
        "open": lambda: Ledger.open(target).verify(),
        "attach": lambda: attach(target),
        "share": lambda: Ledger.share(target, budget=SharedBudget(delta=1e-5, readers_epsilon=4.0)),
        "spending": lambda: spending(target),
    }
    with pytest.raises(LedgerError, match=said) as refused:
        uses[use]()
    assert str(target) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert target.read_bytes() == before
    assert [left.name for left in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_missing_and_empty_ledgers_are_not_read_as_new_ones(tmp_path):
    (tmp_path / "empty.sqlite").touch()
    for name in ("empty", "missing"):
        with pytest.raises(LedgerError, match=name):
            Ledger.open(tmp_path / f"{name}.sqlite")
    assert [(left.name, left.stat().st_size) for left in tmp_path.iterdir()] == [("empty.sqlite", 0)]


def test_a_locked_ledger_is_waited_for_and_then_refused_in_a_sentence(path, monkeypatch):
    before = good(path)
    monkeypatch.setattr("dp.ledger_file.BUSY_SECONDS", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for use in (lambda: Ledger.open(path), lambda: attach(path), lambda: spending(path)):
        with pytest.raises(LedgerError, match=r"locked by another process for 0\.05 seconds; try again"):
            use()
    other.execute("ROLLBACK")
    other.close()
    assert attach(path).charged == 12
    assert path.read_bytes() == before


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_byte_shows_or_changes_nothing(sound, seed):
    """Forty bytes anywhere in the file: a finding, a sentence, or the very same rows; never another error."""
    content, rows, folder = sound
    dice = random.Random(seed)
    target = folder / "changed.sqlite"
    for position in dice.sample(range(len(content)), 40):
        changed = bytearray(content)
        changed[position] ^= dice.randrange(1, 256)
        target.write_bytes(changed)
        with contextlib.suppress(LedgerError):
            if not verify(target).findings:
                assert list(Ledger.open(target).rows()) == rows
                assert spending(target).runs[0].charged == 12
        assert target.read_bytes() == changed


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    content = good(folder / "sound.sqlite")
    return content, list(Ledger.open(folder / "sound.sqlite").rows()), folder


def test_a_ledger_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(LedgerError, match="cannot be used"):
        attach(tmp_path / "no" / "such" / "folder" / "ledger.sqlite")
    with pytest.raises(LedgerError, match="cannot be used"):
        attach(tmp_path)


BODIES = {
    "plan": {"id", "run", "accountant"},
    "shared": {"id", "budget"},
    "run": {"run", "accountant", "totals"},
    "reserve": {"time", "totals"},
    "settle": {"survivors", "model", "time", "totals"},
    "refund": {"reason", "time", "totals"},
}


@pytest.mark.parametrize("kind", ["plan", "shared"])
def test_the_format_is_as_documented(path, kind):
    """Read with nothing but SQLite, JSON and SHA-256, by what `dp.ledger` says of it."""
    if kind == "shared":
        Ledger.share(path, budget=SharedBudget(delta=1e-5, readers_epsilon=4.0))
    figures = {"noise_multiplier": 3.0, "sensitivity": 9000.0, "dimension": 10, "honest_survivors": 10}
    privacy = Privacy(delta=1e-5, l2_clip_norm=1.0, noise_multiplier=3.0)
    accountant = RunAccountant(DistributedDiscreteGaussian(**figures), PaddedPoisson(100, 10), privacy, 5)
    ledger = attach(path, accountant=accountant)
    ledger.settle(ledger.reserve(timestamp=5.5), survivors=9, model_hash=bytes(32))
    ledger.refund(ledger.reserve(), reason="too few")
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA application_id").fetchone() == (0x56454C53,)
        assert raw.execute("PRAGMA user_version").fetchone() == (2,)
        rows = raw.execute(
            "SELECT sequence, kind, run, round, body, hash FROM row ORDER BY sequence"
        ).fetchall()
    raw.close()
    before, kinds = bytes(32), []
    for expected, (sequence, found, run, number, body, digest) in enumerate(rows):
        numbers = [value.to_bytes(8, "big") for value in (sequence, run, number)]
        fields = [before, found.encode(), body.encode(), *numbers]
        framed = b"".join(len(field).to_bytes(8, "big") + field for field in fields)
        assert (sequence, digest) == (expected, hashlib.sha256(framed).digest())
        before = digest
        cost = {"cost"} if kind == "shared" and found in ("reserve", "refund") else set()
        assert json.loads(body).keys() == BODIES[found] | cost
        assert body == json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))
        kinds.append((found, run, number))
    first = [("plan", 1, 0)] if kind == "plan" else [("shared", 0, 0), ("run", 1, 0)]
    assert kinds == [*first, ("reserve", 1, 1), ("settle", 1, 1), ("reserve", 1, 2), ("refund", 1, 2)]
    totals = json.loads(rows[-1][4])["totals"]
    spent = {} if kind == "plan" else {"spent": json.loads(rows[-3][4])["totals"]["spent"]}
    assert totals == {"charged": 1, "settled": 1, "refunded": 1, **spent}


def test_a_ledger_opened_for_reading_cannot_be_charged(path):
    attach(path)
    with pytest.raises(LedgerError, match="reading"):
        Ledger.open(path).reserve()


RACE = """
    import sys
    sys.path.insert(0, sys.argv[2])
    from test_ledger import Linear, attach
    from dp.errors import BudgetExceeded
    ledger, taken = attach(sys.argv[1], accountant=Linear(readers=40)), 0
    try:
        while True:
            ledger.reserve()
            taken += 1
    except BudgetExceeded:
        print(taken)
"""


def test_two_processes_cannot_overspend_a_shared_budget(path):
    script, here = textwrap.dedent(RACE), os.path.dirname(__file__)
    racers = [
        subprocess.Popen([sys.executable, "-c", script, str(path), here], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    taken = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert sum(taken) == 40
    ledger = Ledger.open(path)
    ledger.verify()
    assert ledger.charged == 40
