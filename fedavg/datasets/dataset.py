"""What every reader returns: examples in memory, with their licence and where they came from.

Two forms: a `Dataset` is arrays of examples and labels, to be dealt to clients or grouped by the users it names; a
`Population` comes by user in the first place, each with a few pieces of unequal length (speeches, recordings).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.client_data import ClientData

__all__ = ["Dataset", "Population"]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Examples and labels, split into training and test.

    Attributes:
        name: As `fedavg.datasets.load` takes it.
        train_x: float32, shape (examples, features); pixels and columns of tables in [0, 1], sensors in their units.
        train_y: int64, shape (examples,), from 0.
        test_x: As `train_x`.
        test_y: As `train_y`.
        licence: Under which terms the data is published.
        source: Who made it, and which package carried it here.
        groups: Natural users of the training examples, by what makes them one ("person"): for each a text or number
            per example, as `fedavg.datasets.natural` and `ClientData.from_arrays` take it. Empty if there are none.
        test_groups: The same of the test examples, where these are other users' and not just held out.
    """

    name: str
    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]
    licence: str
    source: str
    groups: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    test_groups: Mapping[str, NDArray[Any]] = field(default_factory=dict)

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


@dataclass(frozen=True, eq=False, repr=False)
class Population:
    """Data that comes by user, in pieces of unequal length.

    Attributes:
        name: As `fedavg.datasets.load_users` takes it.
        users: Each user's pieces, by the user's name, in a fixed order.
        user: What a user is ("president").
        piece: What a piece is ("address").
        licence: Under which terms the data is published.
        source: Who made it, and which package carried it here.
    """

    name: str
    users: Mapping[str, tuple[Any, ...]]
    user: str
    piece: str
    licence: str
    source: str

    @property
    def clients(self) -> ClientData:
        """A client for each user; its data is the tuple of its pieces."""
        return ClientData.of(self.users)

    @property
    def pieces(self) -> int:
        """How many pieces there are in all."""
        return sum(map(len, self.users.values()))

    def __repr__(self) -> str:
        return f"Population({self.name}: {len(self.users):,} users, {self.pieces:,} pieces)"
