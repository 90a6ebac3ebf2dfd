"""Fashion-MNIST: 70,000 pictures of clothes in 10 classes, 28x28 pixels (Xiao, Rasul, Vollgraf 2017), from Debian."""

from __future__ import annotations

from fedavg.datasets.dataset import Dataset
from fedavg.datasets.fetch import Notice, Package, Progress
from fedavg.datasets.idx import load_idx

__all__ = ["PACKAGE", "load_fashion_mnist"]

PACKAGE = Package(
    name="dataset-fashion-mnist",
    version="0.0~git20200523.55506a9-1",
    file="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    size=30_900_652,
    client="apt",
)


def load_fashion_mnist(*, progress: Progress | None = None, notice: Notice | None = None) -> Dataset:
    """Read Fashion-MNIST from the cache, fetching it first if it is not there.

    Raises:
        fedavg.datasets.DatasetError: as `fedavg.datasets.fetch.fetch`, or the archive is not what it was.
    """
    return load_idx(
        PACKAGE,
        "./usr/share/datasets/fashion-mnist/{part}-{kind}-idx{dimensions}-ubyte.gz",
        name="fashion-mnist",
        licence="MIT",
        credit="Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; Zalando SE)",
        progress=progress,
        notice=notice,
    )
