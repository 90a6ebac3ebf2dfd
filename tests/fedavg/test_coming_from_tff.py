"""The page for TensorFlow Federated's users: its snippets run in their order, and the names it gives are there."""

import importlib
import re
from pathlib import Path

import pytest

pytest.importorskip("keras")
PAGE = (Path(__file__).parents[2] / "docs" / "coming-from-tff.md").read_text()


def test_the_journey_runs_as_it_is_written(capsys):
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(snippet, "docs/coming-from-tff.md", "exec"), names)
    assert (
        names["accuracy"] > 0.15
    )  # Chance is 0.1, give or take 0.016; three noisy rounds reach 0.28 to 0.56.
    assert names["delta"] == 2e-3
    assert 0 < names["epsilon"].readers < names["epsilon"].server
    printed = capsys.readouterr().out
    assert re.search(r"\( -> <model=<trainable=<0000 [a-z_0-9.]+=float32\[64,10\],", printed)
    assert "{<float32[?,64],int64[?]>*}@CLIENTS" in printed
    assert "without amplification by sampling" in printed


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(fedavg(?:\.\w+)+)", PAGE))))
def test_every_name_it_gives_is_there(name):
    module, *rest = name.split(".")
    found = importlib.import_module(module)
    for part in rest:
        found = getattr(found, part, None) or importlib.import_module(f"{found.__name__}.{part}")
    assert found is not None


@pytest.mark.parametrize(
    "theirs",
    ["build_federated_averaging_process", "from_compiled_keras_model", "federated_average", "build_fed_eval"],
)
def test_the_names_people_search_for_are_mapped(theirs):
    (row,) = [line for line in PAGE.splitlines() if line.startswith("|") and theirs in line]
    assert "fedavg." in row.split("|")[3]
