"""`veilsum budget verify`: what is wrong with a ledger is named, and exit codes say which kind of wrong."""

from __future__ import annotations

import sqlite3

import pytest


@pytest.fixture
def ledger(veilsum, tmp_path):
    sizes = ("--population", 60, "--cohort", 10, "--rounds", 2, "--output", tmp_path / "run")
    assert veilsum("simulate", "digits", *sizes).code == 0
    return tmp_path / "run" / "operator" / "ledger.sqlite"


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE row SET body = replace(body, '1.5', '0.5') WHERE sequence = 0",
        "DELETE FROM row WHERE sequence = 2",
        "UPDATE row SET body = replace(body, 'time', 'tine') WHERE sequence = 3",
    ],
)
def test_an_edited_ledger_is_named_row_by_row_with_exit_code_1(veilsum, ledger, edit):
    connection = sqlite3.connect(ledger)
    connection.executescript(f"DROP TRIGGER no_update; DROP TRIGGER no_delete; {edit}")
    connection.close()
    ran = veilsum("budget", "verify", ledger)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("veilsum: row ")


def test_what_is_no_ledger_is_one_sentence_and_left_alone(veilsum, tmp_path):
    other = tmp_path / "other.sqlite"
    other.write_bytes(b"not a ledger" * 100)
    for path in (other, tmp_path / "nowhere"):
        ran = veilsum("budget", "verify", path)
        assert (ran.code, ran.out) == (2, "")
        assert len(ran.err.splitlines()) == 1
    assert other.read_bytes() == b"not a ledger" * 100
