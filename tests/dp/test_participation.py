"""Counts behind the cap: under pseudonyms, never lowered, never another ledger's, as large as those who took part."""

import hashlib
import hmac
import math
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp.cohorts import Draw
from dp.errors import LedgerError, ParameterError
from dp.ledger import Ledger
from dp.participation import ParticipationCounts
from dp.privacy import Epsilons


class Free:
    """An accountant to whom nothing costs anything."""

    budgets = Epsilons(math.inf, math.inf)

    def epsilons(self, rounds):
        return Epsilons(0.0, 0.0)

    def describe(self):
        return {"kind": "free"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def ledger(path):
    return Ledger.attach(path, accountant=Free(), run={})


def drawn(*contributes):
    return Draw(np.arange(len(contributes)), np.array(contributes, dtype=bool))


def took_part(counts, *ids, cap=None):
    """Claim a cohort of these and one padding client; who still contributes."""
    claimed = counts.claim(drawn(*[True] * len(ids), False), ids, cap=cap)
    assert not claimed.contributes[-1]
    return claimed.contributes[:-1].tolist()


def test_those_at_their_cap_become_padding_and_the_others_count_up(path):
    counts = ParticipationCounts(ledger(path))
    assert took_part(counts, "ann", "bob", cap=2) == [True, True]
    assert took_part(counts, "bob", "cid", cap=2) == [True, True]
    assert took_part(counts, "ann", "bob", "cid", cap=2) == [True, False, True]
    assert [counts.count(name) for name in ("ann", "bob", "cid", "dan")] == [2, 2, 2, 0]
    assert took_part(counts, "bob") == [True]


def test_a_claim_keeps_who_is_invited_and_leaves_the_draw_alone(path):
    counts = ParticipationCounts(ledger(path))
    draw = Draw(np.array([3, 5, 9]), np.array([True, False, True]))
    took_part(counts, "x", cap=1)
    claimed = counts.claim(draw, ["x", "y"], cap=1)
    assert claimed.invited.tolist() == [3, 5, 9]
    assert claimed.contributes.tolist() == [False, False, True]
    assert draw.contributes.tolist() == [True, False, True]


@given(st.lists(st.sets(st.integers(0, 6), min_size=1), min_size=1, max_size=12), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_nobody_ever_contributes_more_often_than_the_cap(cohorts, cap):
    counts = ParticipationCounts(ledger(None))
    contributed = dict.fromkeys(range(7), 0)
    for cohort in cohorts:
        for client, kept in zip(sorted(cohort), took_part(counts, *sorted(cohort), cap=cap), strict=True):
            assert kept == (contributed[client] < cap)
            contributed[client] += kept
    assert {client: counts.count(client) for client in contributed} == contributed


def test_counts_outlive_the_process_and_hold_for_every_run_on_the_ledger(path):
    took_part(ParticipationCounts(ledger(path)), "ann", cap=1)
    assert took_part(ParticipationCounts(ledger(path)), "bob", "ann", cap=1) == [True, False]


def test_a_client_is_itself_wherever_it_stands_and_whatever_integer_holds_its_id(path):
    counts = ParticipationCounts(ledger(path))
    took_part(counts, 7, "7", b"7")
    assert took_part(counts, np.int64(7), cap=1) == [False]
    assert [counts.count(same) for same in (7, "7", b"7")] == [1, 1, 1]


def test_the_file_holds_pseudonyms_of_those_who_took_part_alone(path):
    counts = ParticipationCounts(ledger(path))
    took_part(counts, "ann@example.org", "bob@example.org")
    key = path.with_name("ledger.participations.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 32
    with sqlite3.connect(counts.path) as raw:
        rows = dict(raw.execute("SELECT client, count FROM participation"))
    raw.close()
    expected = {
        hmac.digest(key.read_bytes(), f"text:{name}@example.org".encode(), hashlib.sha256): 1
        for name in ("ann", "bob")
    }
    assert rows == expected
    assert b"ann" not in counts.path.read_bytes()
    assert key.read_bytes() not in counts.path.read_bytes() + path.read_bytes()


def test_two_ledgers_name_the_same_client_differently(tmp_path):
    names = set()
    for name in ("one", "two"):
        counts = ParticipationCounts(ledger(tmp_path / f"{name}.sqlite"))
        took_part(counts, "ann")
        names |= set(counts._connection.execute("SELECT client FROM participation"))
    assert len(names) == 2


def begun(path):
    """A ledger that charged a round, and its counts."""
    run = ledger(path)
    took_part(ParticipationCounts(run), "ann")
    run.reserve()
    return path.with_name("ledger.participations.sqlite"), path.with_name("ledger.participations.key")


def lose(file, key, tmp_path):
    file.unlink()


def lose_key(file, key, tmp_path):
    key.unlink()


def empty(file, key, tmp_path):
    file.write_bytes(b"")


def overwrite(file, key, tmp_path):
    file.write_bytes(b"no database at all" * 100)


def cut(file, key, tmp_path):
    file.write_bytes(file.read_bytes()[:-4096])


def cut_key(file, key, tmp_path):
    key.write_bytes(key.read_bytes()[:-1])


def change_key(file, key, tmp_path):
    key.write_bytes(os.urandom(32))


def replace(file, key, tmp_path):
    """Another ledger's counts, with the key that goes with them."""
    other = begun(tmp_path / "other" / "ledger.sqlite")
    file.write_bytes(other[0].read_bytes())
    key.write_bytes(other[1].read_bytes())


def foreign(file, key, tmp_path):
    file.unlink()
    with sqlite3.connect(file) as raw:
        raw.execute("CREATE TABLE t (x)")
    raw.close()


@pytest.mark.parametrize(
    ("theft", "said"),
    [
        (lose, "not at .*participations.sqlite; restore it"),
        (lose_key, "not at .*participations.key; restore it"),
        (empty, "is empty"),
        (overwrite, "not a database"),
        (cut, "malformed|damaged"),
        (cut_key, "holds 31 bytes"),
        (change_key, "is not the key of"),
        (replace, "counts for another ledger"),
        (foreign, "no counts"),
    ],
)  # fmt: skip
def test_a_ledger_that_charged_rounds_is_not_continued_without_its_own_counts(path, tmp_path, theft, said):
    (tmp_path / "other").mkdir()
    file, key = begun(path)
    theft(file, key, tmp_path)
    before = [part.read_bytes() if part.exists() else None for part in (file, key)]
    with pytest.raises(LedgerError, match=said):
        ParticipationCounts(ledger(path))
    assert [part.read_bytes() if part.exists() else None for part in (file, key)] == before


def test_an_older_copy_of_the_counts_is_not_counted_on(path):
    """What is lost is restored from a backup; one from before the last round would let its clients take part again."""
    run = ledger(path)
    counts = ParticipationCounts(run)
    older = counts.path.read_bytes()
    number = run.reserve()
    assert took_part(counts, "ann", cap=1) == [True]
    run.settle(number, survivors=2, model_hash=bytes(32))
    newest = counts.path.read_bytes()
    counts.path.write_bytes(older)
    run.reserve()
    with pytest.raises(
        LedgerError, match="who took part in 0 rounds, and 1 were settled: it is an older copy"
    ):
        took_part(ParticipationCounts(ledger(path)), "ann", cap=1)
    counts.path.write_bytes(newest)
    assert took_part(ParticipationCounts(ledger(path)), "ann", cap=1) == [False]


def test_ids_that_cannot_be_told_apart_or_kept_are_refused_and_nobody_is_counted(path):
    counts = ParticipationCounts(ledger(path))
    draw = drawn(True, True)
    for ids, said in (
        (["a"], "1 different ids were given for 2"),
        (["a", "a"], "1 different"),
        (["a", 1.5], "float"),
    ):
        with pytest.raises(ParameterError, match=said):
            counts.claim(draw, ids, cap=None)
    with pytest.raises(ParameterError, match="cap"):
        counts.claim(draw, ["a", "b"], cap=0)
    assert counts.count("a") == 0


def test_a_folder_that_cannot_be_written_is_refused(path):
    run = ledger(path)
    path.with_name("ledger.participations.key").mkdir()
    with pytest.raises(LedgerError, match="cannot be used"):
        ParticipationCounts(run)


def test_a_claim_costs_what_its_cohort_is_large(path):
    """A million clients that never took part are nowhere: not in the file, not in a statement."""
    counts = ParticipationCounts(ledger(path))
    statements = []
    counts._connection.set_trace_callback(statements.append)
    took_part(counts, *range(999_990, 1_000_000), cap=3)
    assert len(statements) == 4 + 2 * 10


def test_nobody_else_counts_between_a_look_at_the_cap_and_the_count(path, monkeypatch):
    counts = ParticipationCounts(ledger(path))
    looked, look = [], ParticipationCounts._stored

    def interrupted(self, client):
        found = look(self, client)
        other = sqlite3.connect(counts.path, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
        looked.append(client)
        return found

    monkeypatch.setattr(ParticipationCounts, "_stored", interrupted)
    took_part(counts, "ann", "bob", cap=1)
    assert len(looked) == 2


RACE = """
    import sys
    sys.path.insert(0, sys.argv[2])
    from pathlib import Path
    from test_participation import ParticipationCounts, ledger, took_part
    counts = ParticipationCounts(ledger(Path(sys.argv[1])))
    print("ready", flush=True)
    sys.stdin.readline()
    print(sum(took_part(counts, "ann", cap=8) == [True] for _ in range(8)))
"""


def test_two_processes_together_keep_the_cap(path):
    script, here = textwrap.dedent(RACE), os.path.dirname(__file__)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), here],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert sum(int(racer.communicate(timeout=60)[0]) for racer in racers) == 8
    assert ParticipationCounts(ledger(path)).count("ann") == 8
