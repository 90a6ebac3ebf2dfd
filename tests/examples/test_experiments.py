"""Every experiment runs small, keeps what it did, and does not do it again."""

import json
from importlib import import_module

import numpy as np
import pytest

from examples import experiment, poisoning

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


def test_results_of_other_code_are_made_again(tmp_path, capsys):
    asked = ["--small", "--output", str(tmp_path)]
    path = tmp_path / "matching.json"
    module = import_module("examples.matching")
    done = module.main(asked)
    assert {trial["code"] for trial in done} == {experiment.code_of("matching")}
    path.write_text(json.dumps([{**done[0], "code": "of old", "accuracy": 2.0}, *done[1:]]))
    again = module.main(asked)
    assert sorted(map(str, map(untimed, again))) == sorted(map(str, map(untimed, done)))
    assert "1 results of" in capsys.readouterr().err


def test_code_is_what_a_script_and_what_it_imports_do(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "__file__", str(tmp_path / "experiment.py"))
    script = '"""Text."""\nfrom examples.parts import one\nRATE = 1\n\ndef run():\n    return one(RATE)\n'

    def digest(script, part):
        (tmp_path / "made_up.py").write_text(script)
        (tmp_path / "parts.py").write_text(part)
        return experiment.code_of("made_up")

    part = "def one(rate):\n    return rate\n"
    first = digest(script, part)
    assert digest(script.replace("Text", "Other text").replace("= 1", "=  1  # so"), part) == first
    assert digest(script, part.replace("rate):", 'rate):\n    """Text."""')) == first
    assert digest(script.replace("= 1", "= 2"), part) != first
    assert digest(script, part.replace("return rate", "return -rate")) != first
    assert experiment.code_of("a notebook's") == experiment.code_of("another's") != first


@pytest.mark.parametrize("members", [2, poisoning.CLIENTS])
def test_the_noise_of_a_poisoned_sum_is_enough_without_the_liars(members):
    for noise in poisoning.LOUD:
        honest = poisoning.plan(50, members, noise).stddev_of_sum("update", members - 1)
        assert noise <= honest / poisoning.CLIP < 1.02 * noise


@pytest.mark.parametrize("clips", [True, False])
def test_the_liar_is_bound_until_it_attacks(clips):
    defence = poisoning.Defence("made up", liar_clips=clips)
    vectors = [np.full(1000, 20 / np.sqrt(1000)), *[np.zeros(1000)] * (poisoning.CLIENTS - 1)]

    def moved(attacked):
        sums = poisoning.SecureSums(0.02, masked=False, seed=1)
        step = defence.combine(vectors, sums, np.random.default_rng(1), attacked=attacked)
        return poisoning.CLIENTS * np.linalg.norm(step)

    assert moved(attacked=False) < poisoning.CLIP + 0.2
    assert moved(attacked=True) == pytest.approx(poisoning.CLIP if clips else 20.0, abs=0.2)


@pytest.mark.parametrize("attack", poisoning.ATTACKS)
def test_the_attack_begins_half_way(attack, monkeypatch):
    task = poisoning.Task.of("digits", rounds=4, seed=1, each=20)
    seen, combine = [], poisoning.Defence.combine

    def watched(self, *given, attacked):
        seen.append(attacked)
        return combine(self, *given, attacked=attacked)

    monkeypatch.setattr(poisoning.Defence, "combine", watched)
    poisoning.run(poisoning.DEFENCES[1], attack, task, 1)
    assert seen == [False, False, *[attack != poisoning.NOBODY] * 2]


def untimed(trial):
    return {name: value for name, value in trial.items() if not name.startswith("cpu_")}


def test_epsilons_of_all_mechanisms_are_the_promised_ones(tmp_path):
    done = import_module("examples.mechanisms").main(["--small", "--output", str(tmp_path)])
    spent = sorted(trial["readers"] for trial in done if "readers" in trial)
    assert len(spent) == 19
    assert all(0.49 < epsilon <= 0.5 for epsilon in spent[:9])
    assert all(2.5 < epsilon <= 2.53 for epsilon in spent[9:])
