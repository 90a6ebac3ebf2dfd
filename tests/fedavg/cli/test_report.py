"""`veilsum report`, and that plan, run, ledger and report of one run agree to the last printed digit."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from dp import epsilon_text

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

SIZES = (
    "--population",
    60,
    "--cohort",
    10,
    "--rounds",
    3,
    "--noise-multiplier",
    1.1,
    "--max-participations",
    2,
)


@pytest.fixture
def run(veilsum, tmp_path):
    ran = veilsum("simulate", "digits", *SIZES, "--output", tmp_path / "run", "--json")
    assert ran.code == 0, ran.err
    return tmp_path / "run", json.loads(ran.out)


def test_plan_run_ledger_verification_and_report_agree_to_the_last_digit(veilsum, run):
    folder, figures = run
    plan = json.loads(veilsum("budget", "plan", *SIZES, "--delta", 1e-5, "--parameters", 650, "--json").out)
    shown = json.loads(veilsum("budget", "show", figures["ledger"], "--json").out)
    verified = json.loads(veilsum("budget", "verify", figures["ledger"], "--json").out)
    statement = json.loads((folder / "public" / "statement.json").read_text())
    last = json.loads((folder / "public" / "rounds.jsonl").read_text().splitlines()[-1])
    page = (folder / "public" / "report.html").read_text()
    for observer in ("readers", "server"):
        exact = figures["epsilon"][observer]
        said = {
            plan["epsilon"][observer], shown["epsilon"][observer], verified["epsilon"][observer],
            statement[observer]["epsilon"], last["epsilon"][observer],
        }  # fmt: skip
        assert said == {exact}
        assert f"epsilon {epsilon_text(exact)}<" in page
        assert re.search(rf"<td>{re.escape(epsilon_text(exact))}</td>", page)
    assert plan["cohort"] == figures["cohort"]
    assert f"multiplier {figures['noise_multiplier']:.6g} times" in page
    assert f"integers modulo 2^{plan['modulus_bits']}" in page


def test_the_page_is_made_again_with_the_audit_on_it(veilsum, run):
    folder, _ = run
    assert veilsum("audit", folder, "--canaries", 60, "--level", 1e-6).code == 0
    ran = veilsum("report", folder, "--json")
    assert ran.code == 0, ran.err
    made = json.loads(ran.out)
    page = (folder / "public" / "report.html").read_text()
    assert made["report"] == str(folder / "public" / "report.html")
    assert made["bytes"] == len(page.encode()) < 2_000_000
    audit = json.loads((folder / "public" / "audit.json").read_text())
    assert f"{audit['epsilon']['lower_bound']:.3f}" in page
    assert "Attacked with canaries" in page


def test_the_command_on_the_page_makes_the_same_plan(veilsum, run, tmp_path):
    folder, _ = run
    page = (folder / "public" / "report.html").read_text()
    (command,) = re.findall(r"<code>(veilsum simulate [^<]*)</code>", page)
    assert veilsum(*shlex.split(command)[1:], "--output", tmp_path / "again").code == 0
    plans = [
        json.loads((one / "operator" / "run.json").read_text())["plan"]
        for one in (folder, tmp_path / "again")
    ]
    assert plans[0] == plans[1]


def test_a_folder_without_a_run_is_one_sentence(veilsum, tmp_path):
    ran = veilsum("report", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert "holds no report.json" in line
