"""Every experiment runs small, keeps what it did, and does not do it again."""

import json
from importlib import import_module

import pytest

EXPERIMENTS = ["mechanisms", "poisoning", "matching", "agnostic"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_small_and_goes_on_where_it_stopped(name, tmp_path, monkeypatch):
    module = import_module(f"examples.{name}")
    asked = ["--small", "--output", str(tmp_path)]
    done = module.main(asked)
    path = tmp_path / f"{name}.json"
    assert json.loads(path.read_text()) == done
    assert len({(trial["setting"], trial["seed"]) for trial in done}) == len(done) >= 3
    path.write_text(json.dumps(done[:-1]))
    again = module.main(asked)
    assert again[:-1] == done[:-1]
    assert [untimed(trial) for trial in again[-1:]] == [untimed(trial) for trial in done[-1:]]


def untimed(trial):
    return {name: value for name, value in trial.items() if not name.startswith("cpu_")}


def test_epsilons_of_all_mechanisms_are_the_promised_ones(tmp_path):
    done = import_module("examples.mechanisms").main(["--small", "--output", str(tmp_path)])
    spent = sorted(trial["readers"] for trial in done if "readers" in trial)
    assert len(spent) == 19
    assert all(0.49 < epsilon <= 0.5 for epsilon in spent[:9])
    assert all(2.5 < epsilon <= 2.53 for epsilon in spent[9:])
