"""The page of experiments says what the kept results say, and its plots were made of them."""

import json
import re

import pytest

from docs.make import experiments
from docs.make.experiment_plots import PLOTS, digest_in, picture
from docs.make.experiment_results import FOLDER, Results, names
from docs.make.generated import blocks_in
from examples.experiment import SEEDS, code_of

PAGE = experiments.PAGE.read_text()
BLOCKS = experiments.blocks()


def test_every_result_is_on_the_page_and_none_is_missing():
    assert re.findall(r"^## (\w+)$", PAGE, re.MULTILINE) == experiments.there()
    assert set(names()) <= set(experiments.ORDER) == set(PLOTS) == set(experiments.ABOUT)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_page_is_what_the_results_give(name):
    assert blocks_in(PAGE)[name] == BLOCKS[name], "run python -m docs.make.experiments"


@pytest.mark.parametrize("name", experiments.there())
def test_the_plot_was_made_of_these_results(name):
    assert digest_in(picture(name)) == Results(name).digest, "run python -m docs.make.experiments"
    assert f"](images/{picture(name).name})" in PAGE


@pytest.mark.parametrize("name", experiments.there())
def test_results_are_complete(name):
    def refuse(constant):
        raise AssertionError(f"{name}.json holds {constant}, which is not JSON")

    trials = json.loads((FOLDER / f"{name}.json").read_text(), parse_constant=refuse)
    assert len({(trial["setting"], trial["seed"]) for trial in trials}) == len(trials)
    assert {trial["seed"] for trial in trials} >= set(SEEDS)
    assert any("real protocol" in trial["setting"] or "under masks" in trial["setting"] for trial in trials)
    private = [trial for trial in trials if "readers" in trial]
    assert len({round(trial["readers"], 1) for trial in private}) >= 2
    assert all(trial["delta"] <= 1e-4 and "server" in trial for trial in private)


@pytest.mark.parametrize("name", experiments.there())
def test_results_are_of_the_script_as_it_is(name):
    assert {trial.get("code") for trial in Results(name).trials} == {code_of(name)}, (
        f"run python -m examples.{name}"
    )


def test_figures_of_findings_move_with_the_results(tmp_path, monkeypatch):
    """A changed result changes the finding that quotes it, so that neither can be edited alone."""
    results = Results("matching")
    before = experiments.found_in_matching(results)
    for trial in results.trials:
        if trial["setting"] == "10 people: matched by sums":
            trial["accuracy"] = 0.123
    after = experiments.found_in_matching(results)
    assert before != after
    assert "0.123 by sums" in after[0]


def test_a_cell_says_mean_and_deviation():
    made = Results("made up")
    made.__dict__["trials"] = [
        {"setting": "a", "seed": 1, "cpu_s": 1, "accuracy": 0.5, "server": None},
        {"setting": "a", "seed": 2, "cpu_s": 1, "accuracy": 0.7, "server": None},
    ]
    assert experiments.cell(made, "a", "accuracy") == "0.600 ± 0.141"
    assert experiments.cell(made, "a", "server") == "infinite"
    assert experiments.cell(made, "a", "readers") == ""
