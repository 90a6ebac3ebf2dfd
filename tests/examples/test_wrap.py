"""The examples that wrap a loop: each runs on the embedded digits, is short, and marks every line Veilsum adds."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
FOLDER = Path(__file__).parents[2] / "examples"
NEEDS = {
    "wrap_numpy": "numpy",
    "wrap_torch": "torch",
    "wrap_keras": "keras",
    "wrap_jax": "jax",
    "wrap_sklearn": "sklearn",
}


@pytest.mark.parametrize("name", NEEDS)
def test_it_trains_over_masked_noised_sums(name, capsys, caplog):
    pytest.importorskip(NEEDS[name])
    caplog.set_level("INFO", logger="fedavg.client")
    example = importlib.import_module(f"examples.{name}")
    result = example.main("digits", clients=70, cohort=20, rounds=2, simulated_dropout=0.05)
    said = capsys.readouterr().out
    assert "accuracy 0." in said
    assert "Against the server" in said
    assert all(np.isfinite(value).all() and np.any(value) for value in result.weights.values())
    assert [report.bytes_up_per_client > 0 for report in result.rounds] == [True, True]
    assert [record.getMessage() for record in caplog.records] == [], "clients failed and sent zeros"


@pytest.mark.parametrize("name", NEEDS)
def test_it_is_short_and_marks_what_is_private(name):
    lines = (FOLDER / f"{name}.py").read_text().splitlines()
    added = [line for line in lines if "# private" in line and not line.startswith('"""')]
    assert len(lines) < 40
    assert len(added) <= 12
    assert all(
        ("dp." not in line and "fedavg." not in line) or "# private" in line or "fedavg.datasets" in line
        for line in lines
    )


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own, under numpy 2
@pytest.mark.parametrize("name", NEEDS)
def test_the_plain_loop_beside_it_runs_and_trains_the_same_way(name, capsys):
    """The very same `step` or `fit`, and it learns: chance is 0.1."""
    pytest.importorskip(NEEDS[name])
    plain = name.replace("wrap", "plain")
    importlib.import_module(f"examples.{plain}").main("digits", clients=70, cohort=20, rounds=4)
    assert float(capsys.readouterr().out.split()[-1]) > 0.3
    loops = []
    for file in (plain, name):
        text = (FOLDER / f"{file}.py").read_text()
        assert len(text.splitlines()) < 40
        loops.append(text[text.index("\n\n\n") : text.index("def main")])
    assert loops[0] == loops[1]


def test_the_page_shows_the_examples_as_they_are():
    from docs.make.generated import blocks_in
    from docs.make.wrap import PAGE, blocks

    assert blocks_in(PAGE.read_text()) == blocks()
