"""Archives are data: nothing a pickle says is ever run."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedavg.datasets.archives import open_member, read_arrays
from fedavg.datasets.errors import UnsafeArchive


def read(pickled: bytes):
    return read_arrays(io.BytesIO(pickled))


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("dtype", ["u1", "i8", ">f4", "f8", "b1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_unchanged(protocol, dtype, order):
    array = np.asarray(np.arange(6).reshape(2, 3), dtype=dtype, order=order)
    (got,), number = read(pickle.dumps(((array,), 5), protocol=protocol))
    assert number == 5
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)
    assert not got.flags.writeable


def test_text_of_python_2_comes_back_as_bytes():
    python2 = b"\x80\x02}U\x04nameU\x05mnists."  # {'name': 'mnist'}, written by Python 2's cPickle
    assert read(python2) == {b"name": b"mnist"}


class Attack:
    def __reduce__(self):
        return os.system, ("echo pwned > pwned",)


class QuietAttack:
    """Needs no forbidden module: numpy's own loader would unpickle what is inside."""

    def __reduce__(self):
        return np.load, ("somewhere.npy",)


@pytest.mark.parametrize("attack", [Attack(), QuietAttack(), eval, np.float64(1.0), object(), {1, 2}])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_refuses_everything_but_arrays(attack, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafeArchive, match=r"nothing was run|only numpy arrays"):
        read(pickle.dumps([attack], protocol=protocol))
    assert list(tmp_path.iterdir()) == []


def test_refuses_arrays_of_objects():
    with pytest.raises(UnsafeArchive, match="only plain numbers"):
        read(pickle.dumps(np.array([Attack(), None], dtype=object)))


def test_refuses_an_array_whose_shape_does_not_fit_its_bytes():
    pickled = pickle.dumps(np.arange(6, dtype="u1"), protocol=4)
    shape = b"K\x06\x85"  # BININT1 6, TUPLE1
    assert pickled.count(shape) == 1
    with pytest.raises(UnsafeArchive, match="does not fit"):
        read(pickled.replace(shape, b"K\x07\x85"))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(junk):
    with contextlib.suppress(UnsafeArchive):
        read(junk)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(position, value):
    pickled = bytearray(pickle.dumps((np.arange(40, dtype="f4"), [b"x", {"k": 1.5}]), protocol=4))
    pickled[position % len(pickled)] = value
    with contextlib.suppress(UnsafeArchive):
        read(bytes(pickled))


def test_members_are_read_in_place_and_missing_ones_are_named(tmp_path):
    archive = tmp_path / "some.whl"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("data/arrays.pkl.gz", gzip.compress(pickle.dumps(np.arange(3), protocol=4)))
    with open_member(archive, "data/arrays.pkl.gz") as member, gzip.open(member) as stream:
        np.testing.assert_array_equal(read_arrays(stream), np.arange(3))
    with (
        pytest.raises(UnsafeArchive, match=r"some\.whl is no archive that holds data/other"),
        open_member(archive, "data/other"),
    ):
        pass
    archive.write_bytes(b"not a zip")
    with pytest.raises(UnsafeArchive, match="fetch again"), open_member(archive, "data/other"):
        pass
