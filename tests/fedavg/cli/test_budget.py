"""`veilsum budget`: plans agree with runs, with published figures, and with the promise they were asked to keep."""

from __future__ import annotations

import json
import sqlite3

import pytest

import dp

DEMO = ("--population", 3000, "--cohort", 300, "--rounds", 50, "--delta", 1e-5)


def planned(veilsum, *arguments):
    ran = veilsum("budget", "plan", *arguments, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_known_figures_of_the_demo(veilsum):
    """Central Gaussian and distributed discrete Gaussian, z = 1.5, q = .1, T = 50: 2.530; ten participations: 10.67."""
    ours = planned(veilsum, *DEMO, "--noise-multiplier", 1.5, "--max-participations", 10)
    assert ours["epsilon"]["readers"] == pytest.approx(2.530, abs=5e-4)
    assert ours["epsilon"]["server"] == pytest.approx(10.67, abs=5e-3)
    assert (ours["cohort"], ours["expected"], ours["min_survivors"]) == (416, 300, 375)
    central = planned(veilsum, *DEMO, "--noise-multiplier", 1.5, "--mechanism", "gaussian")
    assert central["epsilon"]["server"] is None
    assert central["epsilon"]["readers"] == pytest.approx(ours["epsilon"]["readers"], abs=1e-5)
    assert central["min_survivors"] is None


def test_without_a_cap_a_client_may_be_drawn_every_time(veilsum):
    free = planned(veilsum, *DEMO, "--noise-multiplier", 1.5)
    capped = planned(veilsum, *DEMO, "--noise-multiplier", 1.5, "--max-participations", 50)
    assert free["max_participations"] == 50
    assert free["epsilon"] == capped["epsilon"]


@pytest.mark.parametrize("mechanism", ["gaussian", "discrete_gaussian", "skellam"])
def test_the_noise_found_keeps_readers_epsilon_and_hardly_less_does_not(veilsum, mechanism):
    sizes = (*DEMO, "--mechanism", mechanism)
    found = planned(veilsum, *sizes, "--epsilon-readers", 2.0)
    assert 1.99 < found["epsilon"]["readers"] <= 2.0
    again = planned(veilsum, *sizes, "--noise-multiplier", found["noise_multiplier"])
    assert again["epsilon"] == found["epsilon"]
    less = planned(veilsum, *sizes, "--noise-multiplier", 0.998 * found["noise_multiplier"])
    assert less["epsilon"]["readers"] > 2.0


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
def test_the_stricter_epsilon_decides(veilsum, mechanism):
    sizes = (*DEMO, "--mechanism", mechanism, "--max-participations", 10)
    both = planned(veilsum, *sizes, "--epsilon-readers", 2.0, "--epsilon-server", 5.0)
    assert both["epsilon"]["readers"] <= 2.0
    assert 4.98 < both["epsilon"]["server"] <= 5.0
    floor = planned(veilsum, *sizes, "--epsilon-server", 50.0, "--noise-multiplier", 3.0)
    assert floor["noise_multiplier"] == 3.0


def test_skellam_costs_more_than_the_discrete_gaussian(veilsum):
    costs = {
        name: planned(veilsum, *DEMO, "--noise-multiplier", 1.5, "--mechanism", name)["epsilon"]
        for name in ("skellam", "discrete_gaussian")
    }
    for observer in ("readers", "server"):
        assert costs["skellam"][observer] > costs["discrete_gaussian"][observer]


def test_a_plan_a_run_and_its_ledger_agree_to_the_last_digit(veilsum, tmp_path):
    sizes = (
        "--population",
        60,
        "--cohort",
        10,
        "--rounds",
        2,
        "--noise-multiplier",
        1.1,
        "--max-participations",
        2,
    )
    run = json.loads(veilsum("simulate", "digits", *sizes, "--output", tmp_path / "run", "--json").out)
    plan = planned(veilsum, *sizes, "--delta", 1e-5, "--length", 650)
    for name in ("epsilon", "noise_multiplier", "delta", "population", "cohort", "min_survivors"):
        assert plan[name] == run[name]
    verified = json.loads(veilsum("budget", "verify", run["ledger"], "--json").out)
    assert (verified["charged"], verified["aborted"], verified["refunded"]) == (2, 0, 0)
    *_, last = dp.Ledger.open(run["ledger"]).rows()
    assert verified["newest_hash"] == last.hash.hex()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), "No target was given"),
        (("--noise-multiplier", 0), "noise_multiplier is 0"),
        (("--epsilon-readers", -1), "readers_epsilon is -1"),
        (("--noise-multiplier", 1, "--delta", 2), "delta is 2"),
        (("--noise-multiplier", 1, "--rounds", 0), "rounds is 0"),
        (("--noise-multiplier", 1, "--cohort", 4000), "4000"),
        (("--noise-multiplier", 1, "--length", 0), "0"),
        (("--mechanism", "gaussian", "--epsilon-server", 3), "which trusts it"),
        (("--mechanism", "skellam", "--epsilon-readers", 1e-12), "ask for a larger epsilon"),
        (("--noise-multiplier", 1, "--tolerance", 0.6, "--corruption", 0.5), "honest survivors"),
    ],
)
def test_plans_that_make_no_sense_are_one_sentence(veilsum, arguments, names):
    ran = veilsum("budget", "plan", *DEMO, *arguments)
    assert (ran.code, ran.out) == (2, ""), ran
    (line,) = ran.err.splitlines()
    assert names in line


def test_a_large_delta_is_warned_about(veilsum):
    ran = veilsum("budget", "plan", *DEMO, "--delta", 0.01, "--noise-multiplier", 1)
    assert ran.code == 0
    assert "not below 1/population" in " ".join(ran.err.split())


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
