"""What every reader returns: arrays in memory, with their licence and where they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Examples and labels, split into training and test.

    Attributes:
        name: As `fedavg.datasets.load` takes it.
        train_x: float32, shape (examples, features), in [0, 1].
        train_y: int64, shape (examples,), from 0.
        test_x: As `train_x`.
        test_y: As `train_y`.
        licence: Under which terms the data is published.
        source: Who made it, and which package carried it here.
    """

    name: str
    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]
    licence: str
    source: str

    @property
    def features(self) -> int:
        """Numbers in one example."""
        return int(self.train_x.shape[1])

    @property
    def classes(self) -> int:
        """Number of labels."""
        return int(self.train_y.max()) + 1

    def __repr__(self) -> str:
        return f"Dataset({self.name}: {len(self.train_y):,} training and {len(self.test_y):,} test examples)"
