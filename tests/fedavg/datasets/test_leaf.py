"""LEAF json: written here as LEAF's own scripts write it."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedavg.datasets import MalformedFile, read_leaf


def leaf(user_data, **changes):
    content = {
        "users": list(user_data),
        "num_samples": [len(part["y"]) for part in user_data.values()],
        "user_data": user_data,
    }
    return json.dumps(content | changes)


FEMNIST = {
    "f0_1": {"x": [[0.0, 0.5, 1.0], [1.0, 1.0, 1.0]], "y": [3, 61]},
    "f0_2": {"x": [[0.25, 0.0, 0.0]], "y": [0]},
}
SHAKESPEARE = {"HAMLET_ÄLTER": {"x": ["to be, or no", "o be, or not"], "y": ["t", " "]}}


def test_numbers_come_as_arrays(tmp_path):
    file = tmp_path / "all_data_0_niid_0_keep_0_train_9.json"
    file.write_text(leaf(FEMNIST, hierarchies=[]))
    data = read_leaf(file)
    assert data.client_ids == ["f0_1", "f0_2"]
    fields = data.for_client("f0_1")
    assert list(fields) == ["x", "y"]
    np.testing.assert_array_equal(fields["x"], FEMNIST["f0_1"]["x"])
    np.testing.assert_array_equal(fields["y"], [3, 61])
    assert (fields["x"].dtype, fields["y"].dtype) == (np.float32, np.int64)


def test_text_and_ragged_lists_come_as_they_are(tmp_path):
    ragged = {"u": {"x": [[1, 2], [3]], "y": [0, 1]}}
    (tmp_path / "a.json").write_text(leaf(SHAKESPEARE), encoding="utf-8")
    (tmp_path / "b.json").write_text(leaf(ragged))
    (tmp_path / "notes.txt").write_text("not read")
    data = read_leaf(tmp_path)
    assert data.client_ids == ["HAMLET_ÄLTER", "u"]
    assert data.for_client("HAMLET_ÄLTER") == SHAKESPEARE["HAMLET_ÄLTER"]
    assert data.for_client("u")["x"] == [[1, 2], [3]]


def test_it_travels_to_another_process(tmp_path):
    (tmp_path / "a.json").write_text(leaf(FEMNIST))
    again = pickle.loads(pickle.dumps(read_leaf(str(tmp_path))))
    np.testing.assert_array_equal(again.for_client("f0_2")["y"], [0])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is not a json file"),
        ("[]", "is not a json file"),
        ('{"users": []}', "missing required field"),
        (leaf(FEMNIST)[:-9], "is not a json file"),
        (leaf(FEMNIST, users=["f0_1"]), "names 1 users, 2 numbers of samples and the data of 2"),
        (leaf(FEMNIST, users=["f0_1", "f0_1"]), "the same users"),
        (leaf(FEMNIST, users=["f0_1", "f0_2", "f0_2"], num_samples=[2, 1, 1]), "holds user 'f0_2' again"),
        (leaf(FEMNIST, num_samples=[2]), "1 numbers of samples"),
    ],
)
def test_what_is_not_leaf_is_refused_when_opened(tmp_path, content, sentence):
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(MalformedFile, match=sentence):
        read_leaf(file)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (leaf(FEMNIST, num_samples=[1, 1]), "2 entries of 'x' and num_samples says 1"),
        (leaf({"f0_1": {"x": 5, "y": [1]}}), "the data of user 'f0_1' is not of LEAF's format"),
    ],
)
def test_a_user_with_another_number_of_samples_is_refused_when_fetched(tmp_path, content, sentence):
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(MalformedFile, match=sentence):
        read_leaf(file).for_client("f0_1")


def test_files_that_share_a_user_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(MalformedFile, match="holds no json file"):
        read_leaf(tmp_path)
    with pytest.raises(MalformedFile, match="No such file"):
        read_leaf(tmp_path / "missing.json")
    (tmp_path / "a.json").write_text(leaf(FEMNIST))
    (tmp_path / "b.json").write_text(leaf(FEMNIST))
    with pytest.raises(MalformedFile, match="holds user 'f0_1' again; give files that share no user"):
        read_leaf(tmp_path)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(tmp_path_factory, position, value):
    content = bytearray(leaf(FEMNIST), "utf-8")
    content[position % len(content)] = value
    file = tmp_path_factory.mktemp("leaf") / "a.json"
    file.write_bytes(bytes(content))
    try:
        data = read_leaf(file)
        for user in data.client_ids:
            data.for_client(user)
    except MalformedFile:
        pass


def test_a_part_nested_too_deep_to_read_is_refused(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    path = tmp_path / "deep.json"
    path.write_text(f'{{"users": ["ada"], "num_samples": [1], "user_data": {{"ada": {{"x": {deep}}}}}}}')
    with pytest.raises(MalformedFile, match="LEAF's format"):
        read_leaf(path).for_client("ada")
