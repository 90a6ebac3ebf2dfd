"""What ends a run before it begins: one sentence on stderr, exit code 2, nothing charged, nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dp

pytest.importorskip("typer")

SMALL = ["digits", "--population", "80", "--cohort", "20", "--rounds", "2"]


def veilsum(*arguments, cwd, **settings):
    command = [sys.executable, "-c", "from fedavg.cli import main; main()", "simulate", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "COLUMNS": "80"}
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **settings,
    )


FATAL = {
    "unknown data set": (["nosuch"], "nosuch"),
    "cohort larger than population": ([*SMALL, "--cohort", "500"], "500"),
    "no rounds": ([*SMALL, "--rounds", "0"], "rounds is 0"),
    "readers' epsilon zero": ([*SMALL, "--epsilon-readers", "0"], "readers_epsilon is 0"),
    "server's epsilon negative": ([*SMALL, "--epsilon-server", "-1"], "server_epsilon is -1"),
    "modulus too small": ([*SMALL, "--modulus-bits", "10"], "modulus_bits is 10"),
    "dropout past the tolerance": ([*SMALL, "--dropout", "0.4"], "0.4"),
    "fewer than the threshold": (
        [*SMALL, "--dropout", ".5", "--tolerance", ".6", "--corruption", ".3"],
        "lower dropout",
    ),
    "delta of one": ([*SMALL, "--delta", "1"], "delta is 1"),
    "clip of nothing": ([*SMALL, "--clip", "0"], "l2_clip_norm is 0"),
    "a negative seed": ([*SMALL, "--simulation-seed", "-1"], "seed is -1"),
    "a cap of zero": ([*SMALL, "--max-participations", "0"], "max_participations is 0"),
    "more examples than there are": ([*SMALL, "--examples-per-client", "900"], "900"),
    "a folder that cannot be made": ([*SMALL, "--output", "/proc/nowhere"], "/proc/nowhere"),
}


@pytest.mark.parametrize(("arguments", "names"), FATAL.values(), ids=FATAL.keys())
def test_it_is_one_sentence_and_exit_code_2(arguments, names, tmp_path):
    done = veilsum(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert sum(line.startswith("veilsum: ") for line in done.stderr.splitlines()) == 1
    assert names in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.sqlite"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    done = veilsum(*SMALL, "--output", folder / "run", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run", json.loads(done.stdout.splitlines()[-1])


def test_the_last_line_is_the_one_object_scripts_rely_on(finished):
    _, figures = finished
    assert set(figures) == {
        "dataset", "rounds", "accuracy", "epsilon", "delta", "noise_multiplier", "population", "cohort",
        "min_survivors", "bytes_up_per_client", "ledger", "report",
    }  # fmt: skip
    assert set(figures["epsilon"]) == {"readers", "server"}
    assert Path(figures["report"]).is_file()
    assert dp.Ledger.open(figures["ledger"]).charged == 2


def test_a_folder_with_a_run_is_left_alone(finished, tmp_path):
    run, _ = finished
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = veilsum(*SMALL, "--output", run, cwd=tmp_path)
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", ["another run's", "damaged", "unwritable"])
def test_a_ledger_that_cannot_be_trusted_or_written_is_fatal_and_left_alone(damage, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    ledger = run / "operator" / "ledger.sqlite"
    if damage == "another run's":
        other = veilsum(*SMALL, "--clip", "0.5", "--output", tmp_path / "other", cwd=tmp_path)
        assert other.returncode == 0
        shutil.copy(tmp_path / "other" / "operator" / "ledger.sqlite", ledger)
    elif damage == "damaged":
        ledger.write_bytes(b"not a ledger at all" * 100)
    else:
        ledger.unlink()
        ledger.mkdir()
    before = ledger.read_bytes() if ledger.is_file() else None
    done = veilsum(*SMALL, "--output", run, "--resume", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "ledger" in done.stderr
    assert "Traceback" not in done.stderr
    assert (ledger.read_bytes() if ledger.is_file() else None) == before


def test_a_large_delta_is_a_warning_that_says_why(tmp_path):
    done = veilsum(*SMALL, "--rounds", "1", "--delta", "0.05", cwd=tmp_path)
    assert done.returncode == 0
    assert "not below 1/population" in " ".join(done.stderr.split())


def test_a_seeded_run_says_that_it_promises_nothing(tmp_path):
    done = veilsum(*SMALL, "--rounds", "1", "--simulation-seed", "3", cwd=tmp_path)
    assert "simulation, no guarantee" in " ".join(done.stdout.split())


def test_killed_in_mid_run_the_same_command_with_resume_goes_on(tmp_path):
    arguments = ["digits", "--rounds", "8", "--output", str(tmp_path / "run")]
    command = [sys.executable, "-c", "from fedavg.cli import main; main()", "simulate", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    lines = tmp_path / "run" / "public" / "rounds.jsonl"
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as victim:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not (
            lines.exists() and len(lines.read_text().splitlines()) >= 2
        ):
            time.sleep(0.02)
        victim.send_signal(signal.SIGKILL)
    finished = len(lines.read_text().splitlines())
    assert 2 <= finished < 8
    done = veilsum(*arguments, "--resume", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["rounds"] == 8
    rows = [row.kind for row in dp.Ledger.open(tmp_path / "run" / "operator" / "ledger.sqlite").rows()]
    assert rows.count("settle") >= 8
    assert [json.loads(line)["round"] for line in lines.read_text().splitlines()] == list(range(1, 9))
