"""MNIST: the format on a small stand-in, and the real set where it is already in the cache."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from fedavg.datasets import UnsafeArchive, is_cached, load, mnist

REAL = is_cached(mnist.PACKAGE)  # Asked before any test points the cache elsewhere.


@pytest.fixture
def stand_in(cache, monkeypatch):
    """A file of the same form with 5, 2 and 3 images, already in the cache."""

    def put(shape=(784,)):
        pairs = []
        for size in (5, 2, 3):
            pixels = np.arange(size * 784).reshape(size, 784) % 256
            pairs.append((((pixels / 256).astype("f4"))[:, : shape[0]], np.arange(size) % 10))
        cache.mkdir(exist_ok=True)
        archive = cache / mnist.PACKAGE.file
        with zipfile.ZipFile(archive, "w") as wheel:
            wheel.writestr("mnist/data/mnist.pkl.gz", gzip.compress(pickle.dumps(tuple(pairs), protocol=4)))
        sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        monkeypatch.setattr(mnist, "PACKAGE", replace(mnist.PACKAGE, sha256=sha256))
        monkeypatch.setattr(mnist, "_EXAMPLES", (5, 2, 3))

    return put


def test_pixels_come_back_exactly(stand_in):
    stand_in()
    data = load("mnist")
    assert data.train_x.shape == (7, 784)
    assert data.test_x.shape == (3, 784)
    expected = (np.arange(3 * 784) % 256).reshape(3, 784)
    np.testing.assert_array_equal(np.rint(data.test_x * 255), expected)
    assert data.test_x.max() == 1
    np.testing.assert_array_equal(data.train_y, [0, 1, 2, 3, 4, 0, 1])
    assert "CC BY-SA 3.0" in data.licence


def test_another_form_is_refused(stand_in):
    stand_in(shape=(700,))
    with pytest.raises(UnsafeArchive, match=r"shape \(5, 700\), not \(5, 784\)"):
        load("mnist")


@pytest.mark.skipif(not REAL, reason="MNIST is not in the cache; `veilsum data mnist` fetches it")
def test_the_real_set():
    """Known answers: mean .1307, standard deviation .3081, 5,923 training zeros, 1,135 test ones."""
    data = load("mnist")
    assert data.train_x.shape == (60_000, 784)
    assert abs(data.train_x.mean(dtype=np.float64) - 0.1307) < 5e-5
    assert abs(data.train_x.std(dtype=np.float64) - 0.3081) < 5e-5
    assert np.bincount(data.train_y)[0] == 5923
    assert np.bincount(data.test_y)[1] == 1135
