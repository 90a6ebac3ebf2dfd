"""MNIST: the format on a small stand-in, and the real set where it is already in the cache."""

from __future__ import annotations

import gzip
import pickle

import numpy as np
import pytest

from fedavg.datasets import UnsafeArchive, load, mnist


@pytest.fixture
def shelve(stand_in, monkeypatch):
    """A file of the same form with 5, 2 and 3 images, already in the cache."""
    monkeypatch.setattr(mnist, "_EXAMPLES", (5, 2, 3))

    def put(shape=(784,)):
        pairs = []
        for size in (5, 2, 3):
            pixels = np.arange(size * 784).reshape(size, 784) % 256
            pairs.append((((pixels / 256).astype("f4"))[:, : shape[0]], np.arange(size) % 10))
        content = gzip.compress(pickle.dumps(tuple(pairs), protocol=4))
        stand_in(mnist, {"mnist/data/mnist.pkl.gz": content})

    return put


def test_pixels_come_back_exactly(shelve):
    shelve()
    data = load("mnist")
    assert data.train_x.shape == (7, 784)
    assert data.test_x.shape == (3, 784)
    expected = (np.arange(3 * 784) % 256).reshape(3, 784)
    np.testing.assert_array_equal(np.rint(data.test_x * 255), expected)
    assert data.test_x.max() == 1
    np.testing.assert_array_equal(data.train_y, [0, 1, 2, 3, 4, 0, 1])
    assert "CC BY-SA 3.0" in data.licence


def test_another_form_is_refused(shelve):
    shelve(shape=(700,))
    with pytest.raises(UnsafeArchive, match=r"shape \(5, 700\), not \(5, 784\)"):
        load("mnist")


def test_the_real_set(real):
    """Known answers: mean .1307, standard deviation .3081, 5,923 training zeros, 1,135 test ones."""
    data = real("mnist")
    assert data.train_x.shape == (60_000, 784)
    assert abs(data.train_x.mean(dtype=np.float64) - 0.1307) < 5e-5
    assert abs(data.train_x.std(dtype=np.float64) - 0.3081) < 5e-5
    assert np.bincount(data.train_y)[0] == 5923
    assert np.bincount(data.test_y)[1] == 1135
