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
    "MalformedFile",
    "MissingLibrary",
    "RegistryUnavailable",
    "UnknownDataset",
    "UnsafeArchive",
]


class DatasetError(FedAvgError):
    """A data set cannot be loaded; nothing of it is used."""


class UnknownDataset(DatasetError, ValueError):
    """No data set of that name is known."""


class RegistryUnavailable(DatasetError):
    """The package client is missing, or no package registry gave the package.

    Args:
        message: What was wanted, and what to do.

    Attributes:
        reason: Why, in a few words.
    """

    def __init__(self, message: str, *, reason: str = "no package registry answered") -> None:
        super().__init__(message)
        self.reason = reason


class HashMismatch(DatasetError):
    """What the registry sent is not the pinned file; it was thrown away unread."""


class CacheError(DatasetError):
    """The cache folder cannot be read or written."""


class UnsafeArchive(DatasetError):
    """An archive asks for more than numpy arrays, or is malformed; nothing of it was run."""


class MalformedFile(DatasetError, ValueError):
    """A file the caller gave is not of the format it was said to have."""


class MissingLibrary(DatasetError, ImportError):
    """Reading needs a library that is not installed; the extra that brings it is named."""
