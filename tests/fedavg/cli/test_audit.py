"""`veilsum audit`: a run folder, a script, a transcript; what is found decides the exit code."""

from __future__ import annotations

import json

import pytest

SMALL = ("simulate", "digits", "--population", 60, "--cohort", 10, "--rounds", 2)
SCRIPT = """
import numpy as np
import dp, fedavg

def step(weights, data):
    return {"w": weights["w"] + 0.5 * (data - weights["w"])}

def federation():
    return fedavg.Federation(
        step, [np.full(2000, i % 2, np.float32) for i in range(60)], weights={"w": np.zeros(2000, np.float32)},
        rounds=2, cohort_size=20, privacy=dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0),
        secure=fedavg.SecureAggregation.ideal(),
    )
"""


@pytest.fixture
def run(veilsum, tmp_path):
    """A small run with a transcript."""
    ran = veilsum(*SMALL, "--output", tmp_path / "run", "--record", tmp_path / "transcript")
    assert ran.code == 0, ran.err
    return tmp_path


def test_a_run_is_attacked_with_its_own_plan(veilsum, run):
    ran = veilsum("audit", run / "run", "--canaries", 100, "--level", 1e-6, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["flagged"] == []
    assert found["epsilon"]["lower_bound"] <= found["epsilon"]["promised"]
    assert [one["detector"] for one in found["findings"]] == [
        "masks cancel", "noise in full", "clip applied", "fresh noise", "cohort fits",
    ]  # fmt: skip
    assert found["membership"]["members"] == 60
    assert found["membership"]["true_alarms"] <= 1
    public, operator = run / "run" / "public", run / "run" / "operator"
    assert (public / "audit.png").exists()
    # Membership scores are computed from people's data: no reader may get them.
    assert "membership" not in (public / "audit.json").read_text()
    assert json.loads((operator / "membership.json").read_text()) == found["membership"]
    assert json.loads((public / "audit.json").read_text())["epsilon"] == found["epsilon"]


def test_words_fit_and_promise_no_more_than_they_may(veilsum, run):
    ran = veilsum("audit", run / "run", "--canaries", 50)
    assert max(len(line) for line in ran.out.splitlines() if not line.startswith("Scores:")) <= 80
    text = " ".join(ran.out.split())
    assert "which is no bound on either side" in text
    assert "That does not prove it" in text


def test_the_server_statement_is_what_canaries_are_held_against(veilsum, run):
    """As many participations as the cap: the promise is the run's own server epsilon, to the last digit."""
    verified = json.loads((run / "run" / "public" / "statement.json").read_text())
    found = json.loads(veilsum("audit", run / "run", "--canaries", 30, "--json").out)
    assert found["epsilon"]["promised"] == verified["server"]["epsilon"]


def test_a_script_is_attacked(veilsum, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    found = json.loads(
        veilsum(
            "audit", script, "--canaries", 60, "--plot", tmp_path / "p.png", "--level", 1e-6, "--json"
        ).out
    )
    assert found["flagged"] == []
    assert found["membership"] is None
    assert (tmp_path / "p.png").exists()


def test_a_script_with_a_broken_pipeline_is_found_out(veilsum, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        SCRIPT
        + """
from dataclasses import replace
from tests.fedavg.auditing import pipelines

honest = federation

def federation():
    broken = honest()
    broken.plan = pipelines.noise_halved(broken.plan)
    return broken

def membership(weights):
    return np.ones(5), np.zeros(5)
"""
    )
    ran = veilsum("audit", script, "--canaries", 60, "--json")
    assert ran.code == 1
    assert "of what all shares give" in ran.err
    assert json.loads(ran.out)["membership"]["area"] == 1.0


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nowhere", "neither a run folder nor a Python file"),
        ("empty", "holds no run of veilsum simulate"),
        ("script.py", "defines no federation()"),
    ],
)
def test_what_cannot_be_attacked_is_one_sentence(veilsum, tmp_path, target, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "script.py").write_text("federation = None")
    ran = veilsum("audit", tmp_path / target)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert says in line


def test_a_run_whose_settings_give_another_plan_is_refused(veilsum, run):
    path = run / "run" / "operator" / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "clip": 9.0}))
    ran = veilsum("audit", run / "run")
    assert ran.code == 2
    assert "another plan" in ran.err


def test_a_transcript_of_a_run_is_clean(veilsum, run):
    ran = veilsum("audit", "transcript", run / "transcript", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["clean"]
    assert found["rounds"] == 2
    words = " ".join(veilsum("audit", "transcript", run / "transcript").out.split())
    assert "It does not prove that the log is complete" in words


def test_a_metric_in_a_transcript_is_named_with_exit_code_1(veilsum, run):
    with open(run / "transcript", "a") as file:
        file.write(json.dumps({"stage": "metrics", "sender": 3, "message": "bG9zcz0x"}) + "\n")
    ran = veilsum("audit", "transcript", run / "transcript")
    assert ran.code == 1
    assert "from 3 at 'metrics': 6 bytes at a stage that the protocol does not have" in ran.err


@pytest.mark.parametrize("arguments", [("transcript",), ("run", "more")])
def test_names_that_do_not_fit_are_one_sentence(veilsum, arguments):
    ran = veilsum("audit", *arguments)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)


def test_a_transcript_is_not_written_over(veilsum, run):
    ran = veilsum(*SMALL, "--output", run / "other", "--record", run / "transcript")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "never written over" in ran.err


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_that_is_no_probability_is_refused(veilsum, level):
    ran = veilsum("audit", "transcript", "file", "--level", level)
    assert (ran.code, ran.out) == (2, "")
    assert f"--level is {level}" in ran.err
