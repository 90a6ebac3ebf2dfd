"""CIFAR-10: one row of pixels an image, on PNG files of four images, and the set itself."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest

from fedavg.datasets import MissingLibrary, UnsafeArchive, cifar10, load
from tests.fedavg.datasets.softmax import softmax_accuracy


def png(pixels):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    file = io.BytesIO()
    image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def pictures(number, images=4):
    return ((np.arange(images * 1024 * 3) * 7 + number) % 256).astype(np.uint8).reshape(images, 1024, 3)


@pytest.fixture
def package(monkeypatch):
    monkeypatch.setattr(cifar10, "_IMAGES", 4)
    names = {f"package/data_batch_{number}.png": number for number in range(1, 6)} | {
        "package/test_batch.png": 6
    }
    labels = {"package/train_lables.json": [9, 8] * 10, "package/test_lables.json": [0, 1, 2, 3]}
    monkeypatch.setattr(cifar10, "_LABELS", {name: len(values) for name, values in labels.items()})
    files = {name: png(pictures(number)) for name, number in names.items()}
    return files | {name: json.dumps(values).encode() for name, values in labels.items()}


def test_pixels_and_labels_come_back_exactly(package, stand_in):
    stand_in(cifar10, package)
    data = load("cifar10")
    assert (data.train_x.shape, data.test_x.shape) == ((20, 3072), (4, 3072))
    np.testing.assert_array_equal(np.rint(data.test_x * 255), pictures(6).reshape(4, 3072))
    np.testing.assert_array_equal(np.rint(data.train_x[4:8] * 255), pictures(2).reshape(4, 3072))
    np.testing.assert_array_equal(data.train_y, [9, 8] * 10)
    np.testing.assert_array_equal(data.test_y, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("package/data_batch_3.png", None, r"does not hold package/data_batch_3\.png"),
        (
            "package/data_batch_3.png",
            lambda: png(pictures(1, images=3)),
            r"is \(1024, 3\) RGB pixels, not 4 rows",
        ),
        ("package/data_batch_3.png", lambda: png(pictures(1)[..., 0]), r"is \(1024, 4\) L pixels"),
        ("package/data_batch_3.png", lambda: png(pictures(1))[:-200], "is no PNG"),
        ("package/data_batch_3.png", lambda: b"GIF89a", "is no PNG"),
        ("package/test_lables.json", lambda: b"[0, 1, 2]", "holds 3 labels, not 4 of 0 to 9"),
        ("package/test_lables.json", lambda: b"[0, 1, 2, 10]", "of 0 to 9"),
        ("package/test_lables.json", lambda: b"{}", "is no list of labels"),
    ],
)
def test_other_contents_are_refused(package, stand_in, name, content, sentence):
    del package[name]
    stand_in(cifar10, package if content is None else {**package, name: content()})
    with pytest.raises(UnsafeArchive, match=sentence):
        load("cifar10")


def test_without_pillow_the_extra_is_named(package, stand_in, monkeypatch):
    stand_in(cifar10, package)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingLibrary, match=r"pip install 'veilsum\[images\]'"):
        load("cifar10")


@pytest.mark.drill
def test_the_real_set(real):
    """Known answers: channel means .4914 .4822 .4465; nearest class mean and softmax are right on .2774 and .39."""
    data = real("cifar10")
    assert np.bincount(data.train_y).tolist() == [5000] * 10
    assert np.bincount(data.test_y).tolist() == [1000] * 10
    means = np.stack([data.train_x[data.train_y == label].mean(axis=0) for label in range(10)])
    channels = means.reshape(10, 1024, 3).mean(axis=(0, 1))
    np.testing.assert_allclose(channels, [0.4914, 0.4822, 0.4465], atol=1e-4)
    nearest = (data.test_x @ means.T - (means**2).sum(axis=1) / 2).argmax(axis=1)
    assert abs((nearest == data.test_y).mean() - 0.2774) < 5e-4
    assert abs(softmax_accuracy(data, learning_rate=0.02) - 0.39) < 0.015
