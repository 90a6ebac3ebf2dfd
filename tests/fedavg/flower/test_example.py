"""The deployment's app: how many lines make it private, and that it does the same without them."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvg

import dp
from examples.deployment.people import write_stand_ins
from fedavg.flower import PrivateRounds, PrivateStrategy, make_folders
from fedavg.secure_aggregation import SecureAggregation
from tests.fedavg.flower.network import QUICK, LoopbackGrid

APP = Path(__file__).parents[3] / "examples" / "deployment" / "app" / "private_app"


def load(name, source, monkeypatch):
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(source, name, "exec"), module.__dict__)
    return module


def plain(source):
    """The app as it was before."""
    return source.replace("(mods=[private_mod()])  # private", "()").replace(
        "from fedavg.flower import private_mod  # private\n", ""
    )


def test_at_most_eight_lines_make_an_app_private():
    sources = [path.read_text() for path in APP.glob("*.py")]
    added = [line for source in sources for line in source.splitlines() if line.endswith("# private")]
    assert len(added) == 4
    assert not any(line.lstrip().startswith(")") for line in added)  # Whole statements, each on its line.
    assert not any(
        "fedavg" in line for source in sources for line in source.splitlines() if line not in added
    )


def test_the_private_app_gives_what_the_plain_one_gives(tmp_path, monkeypatch):
    load("private_app", "", monkeypatch)
    model = load("private_app.model", (APP / "model.py").read_text(), monkeypatch)
    source = (APP / "client_app.py").read_text()
    assert "veilsum" not in plain(source)
    apps = {
        kind: load(f"{kind}_client", text, monkeypatch).app
        for kind, text in (("private", source), ("plain", plain(source)))
    }
    folders = make_folders(tmp_path / "nodes", 4)
    write_stand_ins(folders, tmp_path / "test.npz")
    settings = PrivateRounds(
        task="same",
        nodes=4,
        rounds=1,
        privacy=dp.Privacy(noise_multiplier=0.02, delta=1e-3, l2_clip_norm=5.0),
        secure=SecureAggregation(dropout=0.0, corruption=0.0),
    )
    start = ArrayRecord({name: Array(w) for name, w in model.start(12).items()})
    results = {}
    for kind, app in apps.items():
        grid = LoopbackGrid([app] * 4, folders)
        for node, folder in zip(grid.nodes, folders, strict=True):
            settings.write(folder / "rounds.json")
            grid.contexts[node].node_config["data"] = str(folder / "data.npz")
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=4)
        if kind == "private":
            strategy = PrivateStrategy(strategy, settings, folder=tmp_path / "server", deadlines=QUICK)
        results[kind] = strategy.start(grid, start, 1).arrays
    # Everybody has 60 examples, so both averages are the same; the noise of 78 values has norm 0.22.
    private, plainly = (
        np.concatenate([results[kind][name].numpy().ravel() for name in ("w", "b")])
        for kind in ("private", "plain")
    )
    assert np.linalg.norm(plainly) > 1.0
    assert np.linalg.norm(private - plainly) < 0.6
