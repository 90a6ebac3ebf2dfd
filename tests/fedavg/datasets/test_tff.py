"""TensorFlow Federated's files, in the layouts its EMNIST and Shakespeare were published in."""

from __future__ import annotations

import pickle
import sqlite3
import sys
from contextlib import closing

import numpy as np
import pytest

from fedavg.datasets import (
    EMNIST,
    SHAKESPEARE,
    MalformedFile,
    MissingLibrary,
    read_tff_hdf5,
    read_tff_sqlite,
)
from tests.fedavg.datasets.tensorflow_files import bytes_list, example, float_list, int64_list, write_sqlite

PIXELS = np.linspace(0, 1, 3 * 784, dtype=np.float32).reshape(3, 784)


def digit(i):
    return example(pixels=float_list(*PIXELS[i]), label=int64_list(i))


@pytest.fixture
def emnist(tmp_path):
    path = tmp_path / "emnist ä.sqlite"
    rows = [("train", "f1_2", digit(2)), ("train", "f0_1", digit(0)), ("train", "f0_1", digit(1))]
    write_sqlite(path, [*rows, ("test", "f0_1", digit(2))])
    return path


def test_a_client_is_its_rows_of_one_split(emnist):
    data = read_tff_sqlite(emnist, shapes=EMNIST)
    assert data.client_ids == ["f0_1", "f1_2"]
    fields = data.for_client("f0_1")
    assert list(fields) == ["label", "pixels"]
    np.testing.assert_array_equal(fields["label"], [0, 1])
    np.testing.assert_array_equal(fields["pixels"], PIXELS[:2].reshape(2, 28, 28))
    held_out = read_tff_sqlite(str(emnist), shapes=EMNIST, split="test")
    assert held_out.client_ids == ["f0_1"]
    np.testing.assert_array_equal(held_out.for_client("f0_1")["label"], [2])


def test_text_comes_as_bytes(tmp_path):
    path = tmp_path / "shakespeare.sqlite"
    write_sqlite(path, [("train", "THE_TRAGEDY_OF_HAMLET", example(snippets=bytes_list(b"To be")))])
    data = read_tff_sqlite(path, shapes=SHAKESPEARE)
    assert data.for_client("THE_TRAGEDY_OF_HAMLET") == {"snippets": [b"To be"]}


def test_a_client_id_is_a_value_and_never_part_of_a_query(emnist):
    with pytest.raises(MalformedFile, match="holds no example of client"):
        read_tff_sqlite(emnist, shapes=EMNIST).for_client("x' OR '1'='1")


def test_it_travels_to_another_process_and_leaves_the_file_alone(emnist):
    before = emnist.read_bytes()
    again = pickle.loads(pickle.dumps(read_tff_sqlite(emnist, shapes=EMNIST)))
    np.testing.assert_array_equal(again.for_client("f1_2")["label"], [2])
    assert emnist.read_bytes() == before
    assert [path.name for path in emnist.parent.iterdir()] == [emnist.name]


def test_sqlite_files_of_other_layouts_are_refused(tmp_path, emnist):
    with pytest.raises(MalformedFile, match="holds no part 'heldout'; it holds test, train"):
        read_tff_sqlite(emnist, shapes=EMNIST, split="heldout")
    with pytest.raises(MalformedFile, match="unable to open"):
        read_tff_sqlite(tmp_path / "missing.sqlite", shapes=EMNIST)
    assert not (tmp_path / "missing.sqlite").exists()
    compressed = tmp_path / "emnist.sqlite.lzma"
    compressed.write_bytes(b"\x5d\x00\x00\x80\x00" + bytes(2000))
    with pytest.raises(MalformedFile, match="not a database; decompress it first"):
        read_tff_sqlite(compressed, shapes=EMNIST)
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    with pytest.raises(MalformedFile, match="no such table: client_metadata"):
        read_tff_sqlite(other, shapes=EMNIST)


def test_a_client_of_another_form_is_refused_when_fetched(emnist):
    data = read_tff_sqlite(emnist, shapes=SHAKESPEARE)
    with pytest.raises(MalformedFile, match=r"has the features \['label', 'pixels'\]"):
        data.for_client("f0_1")


@pytest.fixture
def write_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")

    def write(**clients):
        path = tmp_path / "fed.h5"
        with h5py.File(path, "w") as file:
            examples = file.create_group("examples")
            for client, fields in clients.items():
                group = examples.create_group(client)
                for name, value in fields.items():
                    group.create_dataset(name, data=value)
        return path

    return write


def test_hdf5_clients_are_groups_of_fields(write_hdf5):
    path = write_hdf5(
        f1_2={"pixels": PIXELS[2:].reshape(1, 28, 28), "label": np.array([2], np.int32)},
        f0_1={"pixels": PIXELS[:2].reshape(2, 28, 28), "label": np.array([0, 1], np.int32)},
    )
    data = pickle.loads(pickle.dumps(read_tff_hdf5(path)))
    assert data.client_ids == ["f0_1", "f1_2"]
    fields = data.for_client("f0_1")
    assert list(fields) == ["label", "pixels"]
    np.testing.assert_array_equal(fields["label"], [0, 1])
    np.testing.assert_array_equal(fields["pixels"], PIXELS[:2].reshape(2, 28, 28))


@pytest.mark.parametrize("text", [[b"To be", "Älter".encode()], np.array([b"To be", "Älter".encode()])])
def test_hdf5_text_comes_as_bytes(write_hdf5, text):
    path = write_hdf5(HAMLET={"snippets": text})
    assert read_tff_hdf5(path).for_client("HAMLET") == {"snippets": [b"To be", "Älter".encode()]}


def test_hdf5_files_of_other_layouts_are_refused(write_hdf5, tmp_path, emnist):
    h5py = pytest.importorskip("h5py")
    with pytest.raises(MalformedFile, match="is not an HDF5 file"):
        read_tff_hdf5(emnist)
    with pytest.raises(MalformedFile, match="is not an HDF5 file"):
        read_tff_hdf5(tmp_path / "missing.h5")
    with pytest.raises(MalformedFile, match="holds nobody"):
        read_tff_hdf5(write_hdf5())
    path = write_hdf5(a={"x": 5.0})
    with pytest.raises(MalformedFile, match=r"'a/x' in .* is no list of entries"):
        read_tff_hdf5(path).for_client("a")
    with pytest.raises(MalformedFile, match="has no group 'examples/b'"):
        read_tff_hdf5(path).for_client("b")
    with h5py.File(path, "w") as file:
        file["examples/a/x"] = np.array([(1, 2)], dtype=[("p", "i4"), ("q", "i4")])
    with pytest.raises(MalformedFile, match="numbers and text are read"):
        read_tff_hdf5(path).for_client("a")
    with h5py.File(path, "w") as file:
        file["clients"] = [1]
    with pytest.raises(MalformedFile, match="has no group 'examples'"):
        read_tff_hdf5(path)


def test_without_h5py_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingLibrary, match=r"pip install 'veilsum\[hdf5\]'"):
        read_tff_hdf5(tmp_path / "any.h5")


@pytest.mark.parametrize("example", [3, 10**14, "text"])
def test_a_row_that_holds_no_bytes_is_refused(emnist, example):
    """Python would make so many zero bytes of a number."""
    with closing(sqlite3.connect(emnist)) as connection, connection:
        connection.execute("UPDATE examples SET serialized_example_proto = ?", (example,))
    data = read_tff_sqlite(emnist, shapes=EMNIST)
    with pytest.raises(MalformedFile, match=r"where an example of client .* should be"):
        data.for_client(data.client_ids[0])


def test_a_client_that_is_named_twice_or_by_no_text_is_refused(emnist):
    with closing(sqlite3.connect(emnist)) as connection, connection:
        connection.execute("INSERT INTO client_metadata SELECT * FROM client_metadata")
    with pytest.raises(MalformedFile, match="twice in 'train'"):
        read_tff_sqlite(emnist, shapes=EMNIST)
    with closing(sqlite3.connect(emnist)) as connection, connection:
        connection.execute("UPDATE client_metadata SET client_id = X'00'")
    with pytest.raises(MalformedFile, match="where a name should be"):
        read_tff_sqlite(emnist, shapes=EMNIST)


def test_damage_inside_an_hdf5_file_is_named(tmp_path):
    """Both files open without complaint: the damage shows when a client is fetched."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "fed.h5"
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("examples/a/x", data=np.arange(500), compression="gzip", chunks=(500,))
        chunk = stored.id.get_chunk_info(0)
        file["examples/b/x"] = h5py.SoftLink("/nowhere")
    whole = bytearray(path.read_bytes())
    whole[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(whole)
    data = read_tff_hdf5(path)
    for client_id in data.client_ids:
        with pytest.raises(MalformedFile, match="or is damaged"):
            data.for_client(client_id)


def test_hdf5_fields_of_unequal_length_and_tables_of_text_are_refused(write_hdf5):
    h5py = pytest.importorskip("h5py")
    path = write_hdf5(a={"x": np.arange(3), "y": np.arange(4)})
    with pytest.raises(MalformedFile, match="3 of 'x', 4 of 'y'; each example has an entry in every field"):
        read_tff_hdf5(path).for_client("a")
    with h5py.File(path, "w") as file:
        file.create_dataset("examples/a/x", data=[["one", "two"]], dtype=h5py.string_dtype())
    with pytest.raises(MalformedFile, match="one text for each example"):
        read_tff_hdf5(path).for_client("a")
