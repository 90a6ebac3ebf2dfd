"""Watch exercises: an object array read without running it, and the recordings themselves."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest

from fedavg.datasets import UnsafeArchive, load_users, watch


def table(**changes):
    content = {
        "X": [np.full((rows, 6), rows / 2) for rows in (3, 4, 5)],
        "y": np.array([0.0, 6.0, 1.0]).astype(int),
        "subject": np.array([10, 9, 10]),
        "side": np.zeros(3),
        "X_labels": ["ax", "ay", "az", "wx", "wy", "wz"],
        "y_labels": list(watch.EXERCISES),
    }
    return content | changes


@pytest.fixture
def shelve(stand_in, monkeypatch):
    monkeypatch.setattr(watch, "_RECORDINGS", 3)

    def put(content):
        file = io.BytesIO()
        np.save(file, content, allow_pickle=True)
        stand_in(watch, {"seglearn/data/watch_dataset.npy": file.getvalue()})

    return put


def test_recordings_are_grouped_by_person(shelve):
    shelve(table())
    data = load_users("watch")
    assert list(data.users) == ["9", "10"]
    (first, first_label), (second, second_label) = data.clients.for_client("10")
    np.testing.assert_array_equal(first, np.full((3, 6), 1.5, np.float32))
    assert first.dtype == np.float32
    assert (first_label, len(second), second_label) == (0, 5, 1)


class Attack:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize(
    "content",
    [
        table(X=[np.zeros((3, 5))] * 3),
        table(X=[np.zeros((3, 6))] * 2),
        table(X_labels=["wx", "ay", "az", "ax", "wy", "wz"]),
        {"X": []},
        [1, 2],
        table(side=Attack()),
    ],
)
def test_anything_else_is_refused(shelve, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shelve(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UnsafeArchive):
        load_users("watch")
    assert sorted(tmp_path.iterdir()) == before


def test_the_real_set(real):
    """140 recordings of 6 axes, 10 people with each of 7 exercises on each side; at rest a watch feels about 1 g."""
    data = real("watch")
    assert (len(data.users), data.pieces) == (10, 140)
    for recordings in data.users.values():
        assert sorted(label for _, label in recordings) == sorted([*range(7), *range(7)])
    rows = np.concatenate([rows for recordings in data.users.values() for rows, _ in recordings])
    assert rows.shape[1] == 6
    assert 0.9 < np.median(np.linalg.norm(rows[:, :3], axis=1)) < 1.2
