"""Images as the public sets store them."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from fedavg.datasets.errors import UnsafeArchive
from fedavg.datasets.images import read_idx, to_unit


def idx(values):
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + values.tobytes()


@given(arrays(np.uint8, (3, 2, 4)))
def test_what_was_written_is_read(values):
    np.testing.assert_array_equal(read_idx(idx(values), (3, 2, 4)), values)
    np.testing.assert_array_equal(read_idx(gzip.compress(idx(values)), (3, 2, 4)), values)


FILE = idx(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        FILE[:-1],
        FILE + b"\0",
        b"\0\0\x0d" + FILE[3:],
        idx(np.zeros((3, 2), np.uint8)),
        gzip.compress(FILE, mtime=0)[:-9],
    ],
    ids=["empty", "cut", "longer", "kind", "two axes", "cut archive"],
)
def test_other_files_are_refused(content):
    with pytest.raises(UnsafeArchive, match=r"an idx file of 2 x 3 bytes|damaged gzip file"):
        read_idx(content, (2, 3))


def test_every_byte_becomes_its_share_of_white():
    values = np.arange(256, dtype=np.uint8).reshape(2, 2, 64)
    images = to_unit(values[:1], values[1:])
    assert images.shape == (2, 128)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images.ravel(), (np.arange(256) / 255).astype(np.float32))
