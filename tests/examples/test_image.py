"""The image experiment in small: both promises in the rows, Keras and writers on request, and nothing run twice."""

import json
import os

import numpy as np
import pytest

pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")

from examples import image


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    done = image.main(["--small", "--output", str(folder)])
    assert json.loads((folder / "image.json").read_text()) == done
    return done, folder


def test_every_promise_is_kept_against_both_observers(rows):
    private = [row for row in rows[0] if ": private" in row["setting"]]
    assert [row["readers"] for row in private] == pytest.approx([2, 0.5, 2, 2, 0.5, 2], abs=0.01)
    assert all(row["server"] > row["readers"] for row in private)
    assert all(row["total_readers"] == pytest.approx(row["readers"] + 0.5, abs=0.01) for row in private)
    assert [row["bytes_up_per_client"] > 0 for row in private] == 2 * [False, False, True]


def test_what_promises_nothing_names_no_epsilon(rows):
    plain = [row for row in rows[0] if ": private" not in row["setting"]]
    assert len(plain) == 4
    assert not any("readers" in row or "server" in row for row in plain)
    assert plain[0]["setting"] == "regression: central, same framework"
    assert plain[0]["accuracy"] > 0.5


def test_nothing_is_run_twice(rows, monkeypatch):
    done, folder = rows
    for name in ("dealt", "in_the_open", "privately"):
        monkeypatch.setattr(image, name, lambda *_, **__: None)
    assert image.main(["--small", "--output", str(folder)]) == done


def test_nobody_evaluates_on_what_they_trained_on():
    scene = image.dealt("digits", 1, clients=70, shape=(1, 8, 8))
    train, held_out = (
        [clients.for_client(i)[0] for i in range(70)] for clients in (scene.clients, scene.held_out)
    )
    assert {len(x) for x in train} == {16}
    assert {len(x) for x in held_out} == {4}
    seen = {x.tobytes() for own in train for x in own}
    mine = [x.tobytes() for own in held_out for x in own]
    # A few digits stand in the set twice.
    assert sum(x in seen for x in mine) < 5


def test_a_colour_becomes_a_plane():
    pixels = np.array([["r1", "g1", "b1", "r2", "g2", "b2"]])
    assert image.planes(pixels, (3, 1, 2)).tolist() == [["r1", "r2", "g1", "g2", "b1", "b2"]]


def test_keras_runs_on_request(tmp_path):
    pytest.importorskip("keras")
    scene = image.dealt("digits", 1, clients=70, shape=(1, 8, 8))
    task = image.task_of(image.replace(image.KERAS, rounds=1, cohort=5), scene)
    weights, seen = image.in_the_open(task, 1)
    assert 0 < seen["accuracy"] < 1
    assert any(np.any(weights[name] != task.step.weights[name]) for name in weights)


def write_emnist(path, writers):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    for split, each in (("train", 6), ("test", 2)):
        with h5py.File(path.with_name(path.name.replace("train", split)), "w") as file:
            for writer in writers:
                group = file.create_group(f"examples/{writer}")
                group["pixels"] = rng.random((each, 28, 28), np.float32)
                group["label"] = rng.integers(0, 62, each).astype(np.int32)


def test_writers_of_the_users_own_file_are_clients_and_a_tenth_of_them_nobodys(tmp_path):
    path = tmp_path / "fed_emnist_train.h5"
    write_emnist(path, [f"f{i:04d}" for i in range(40)])
    scene = image.by_writer(path, seed=1)
    assert len(scene.clients) == len(scene.held_out) == 36
    assert scene.test[0].shape == (4 * 2, 784)
    x, y = scene.clients.for_client(scene.clients.client_ids[0])
    assert (x.shape, y.shape) == ((6, 784), (6,))
    done = image.main(["--small", "--output", str(tmp_path), "--emnist", str(path)])
    written = [row for row in done if row["setting"].startswith("EMNIST")]
    assert [row.get("readers") for row in written] == [
        None,
        None,
        *(pytest.approx(epsilon, abs=0.01) for epsilon in (2, 0.5, 2)),
    ]
