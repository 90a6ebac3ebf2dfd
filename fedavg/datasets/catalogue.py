"""The data sets by name: what there is, and how each is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedavg.datasets.dataset import Dataset
from fedavg.datasets.digits import load_digits
from fedavg.datasets.errors import UnknownDataset
from fedavg.datasets.fetch import Notice, Package, Progress
from fedavg.datasets.mnist import PACKAGE as MNIST
from fedavg.datasets.mnist import load_mnist

__all__ = ["CATALOGUE", "Entry", "load"]


@dataclass(frozen=True)
class Entry:
    """One data set: what it is in a few words, its licence, and the package that carries it (None: embedded)."""

    contents: str
    licence: str
    package: Package | None
    read: Callable[[Progress | None, Notice | None], Dataset]


CATALOGUE: Mapping[str, Entry] = {
    "digits": Entry("1,797 digits, 8x8", "BSD-3-Clause", None, lambda progress, notice: load_digits()),
    "mnist": Entry(
        "70,000 digits, 28x28",
        "CC BY-SA 3.0 (as cited)",
        MNIST,
        lambda progress, notice: load_mnist(progress=progress, notice=notice),
    ),
}


def load(name: str, *, progress: Progress | None = None, notice: Notice | None = None) -> Dataset:
    """Load a data set by name, fetching it first if it is neither embedded nor in the cache.

    Args:
        name: One of `CATALOGUE`.
        progress: Called with (bytes so far, bytes in all) while a package is fetched.
        notice: Called with a sentence when a damaged file in the cache is replaced; logged by default.

    Raises:
        UnknownDataset: no data set of that name.
        DatasetError: it cannot be fetched or read; the leaf says why.

    >>> load("digits").features
    64
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        known = " and ".join(sorted(CATALOGUE))
        raise UnknownDataset(f"there is no data set '{name}'; known are {known}")
    return entry.read(progress, notice)
