"""What can go wrong between a data set's name and its arrays: each error says what to do next.

`RegistryUnavailable` is the one a caller may recover from by taking another data set (`veilsum simulate --fallback`);
`HashMismatch` is not: bytes that differ from the pinned ones are never read.
"""

from __future__ import annotations

from fedavg.errors import FedAvgError

__all__ = [
    "CacheError",
    "DatasetError",
    "HashMismatch",
    "RegistryUnavailable",
    "UnknownDataset",
    "UnsafeArchive",
]


class DatasetError(FedAvgError):
    """A data set cannot be loaded; nothing of it is used."""


class UnknownDataset(DatasetError, ValueError):
    """No data set of that name is known."""


class RegistryUnavailable(DatasetError):
    """The package client is missing, or no package registry gave the package."""


class HashMismatch(DatasetError):
    """What the registry sent is not the pinned file; it was thrown away unread."""


class CacheError(DatasetError):
    """The cache folder cannot be read or written."""


class UnsafeArchive(DatasetError):
    """An archive asks for more than numpy arrays, or is malformed; nothing of it was run."""
