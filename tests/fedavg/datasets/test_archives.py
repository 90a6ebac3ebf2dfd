"""Archives are data: nothing a pickle says is ever run."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedavg.datasets.archives import read_arrays, read_npy
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


def test_arrays_of_objects_come_back_as_lists_of_what_is_plain():
    objects = np.empty(3, dtype=object)
    objects[:] = [np.arange(2), "text", {"k": [None, 1.5]}]
    first, *rest = read(pickle.dumps(objects, protocol=4))
    np.testing.assert_array_equal(first, [0, 1])
    assert rest == ["text", {"k": [None, 1.5]}]


def test_arrays_of_objects_hide_no_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafeArchive, match="nothing was run"):
        read(pickle.dumps(np.array([Attack(), None], dtype=object)))
    with pytest.raises(UnsafeArchive, match=r"shape \(1, 2\)"):
        read(pickle.dumps(np.array([[1, None]], dtype=object)))
    with pytest.raises(UnsafeArchive, match="only plain numbers"):
        read(pickle.dumps(np.array(["text"])))
    assert list(tmp_path.iterdir()) == []


def test_npy_files_of_objects_are_read_the_same_way():
    file = io.BytesIO()
    np.save(file, {"X": [np.arange(2.0)], "name": "watch"}, allow_pickle=True)
    ((content,),) = [read_npy(io.BytesIO(file.getvalue()))]
    np.testing.assert_array_equal(content["X"][0], [0.0, 1.0])
    assert content["name"] == "watch"
    attack = io.BytesIO()
    np.save(attack, Attack(), allow_pickle=True)
    for junk in (attack.getvalue(), b"", b"no npy", file.getvalue()[:40], b"\x93NUMPY\x02\x00"):
        with pytest.raises(UnsafeArchive):
            read_npy(io.BytesIO(junk))


class Frames:
    """Pickles data frames as pandas 0.25 did, without pandas: its class names, in modules of the test's own."""

    def __init__(self, monkeypatch):
        def named(module, name, **body):
            made = type(name, (), {"__module__": module, **body})
            if module not in sys.modules:
                monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
            monkeypatch.setattr(sys.modules[module], name, made, raising=False)
            return made

        def get_state(it):
            return it.state

        for module in ("pandas", "pandas.core", "pandas.core.indexes", "pandas.core.internals"):
            monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        self.frame = named("pandas.core.frame", "DataFrame", __getstate__=get_state)
        self.blocks = named("pandas.core.internals.managers", "BlockManager", __getstate__=get_state)
        index = named("pandas.core.indexes.base", "Index")
        rebuild = named("pandas.core.indexes.base", "_new_Index")
        self.index = type("Made", (), {"__reduce__": lambda it: (rebuild, (index, {"data": it.data}))})

    def pickled(self, columns, blocks, places):
        axis, frame, manager = self.index(), self.frame(), self.blocks()
        axis.data = np.array(columns, dtype=object)
        described = [{"values": b, "mgr_locs": p} for b, p in zip(blocks, places, strict=True)]
        manager.state = ([], [], [], {"0.14.1": {"axes": [axis, None], "blocks": described}})
        frame.state = {"_data": manager}
        return pickle.dumps({1: [frame]}, protocol=1)


def test_data_frames_come_back_as_columns(monkeypatch):
    floats, integers = np.arange(6.0).reshape(2, 3), np.arange(3).reshape(1, 3)
    frames = Frames(monkeypatch)
    pickled = frames.pickled(["x", "label", "y"], [floats, integers], [slice(0, 3, 2), slice(1, 2)])
    ((frame,),) = read(pickled).values()
    assert sorted(frame) == ["label", "x", "y"]
    np.testing.assert_array_equal(frame["y"], [3.0, 4.0, 5.0])
    np.testing.assert_array_equal(frame["label"], [0, 1, 2])


def test_data_frames_that_do_not_add_up_are_refused(monkeypatch):
    frames, floats = Frames(monkeypatch), np.arange(6.0).reshape(2, 3)
    with pytest.raises(UnsafeArchive, match="without some of its columns"):
        read(frames.pickled(["x", "label", "y"], [floats], [slice(0, 2)]))
    with pytest.raises(UnsafeArchive, match="not a pickle of plain arrays"):
        read(frames.pickled(["x", "y"], [floats], [slice(0, 1)]))
    with pytest.raises(UnsafeArchive, match="rebuilds something that is no data frame"):
        read(b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nNNtR.")
    with pytest.raises(UnsafeArchive, match="only numpy arrays are read"):
        read(b"c__builtin__\nslice\n(NNtR.")
    with pytest.raises(UnsafeArchive, match="'rot13'"):
        read(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")


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


# Not LONG_BINPUT: of a wild place in its table, Python's unpickler makes the table that long.
@given(st.integers(0, 10_000), st.integers(0, 255).filter(lambda value: value != ord("r")))
def test_a_changed_byte_is_read_or_refused(position, value):
    pickled = bytearray(pickle.dumps((np.arange(40, dtype="f4"), [b"x", {"k": 1.5}]), protocol=4))
    pickled[position % len(pickled)] = value
    with contextlib.suppress(UnsafeArchive):
        read(bytes(pickled))
