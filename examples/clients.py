"""What every example trains on: images dealt to clients whose labels differ, and a test set that is nobody's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedavg.datasets import dirichlet, load


@dataclass(frozen=True)
class Images:
    """Clients' (images, labels), and the test set."""

    clients: list[tuple[np.ndarray, np.ndarray]]
    test: tuple[np.ndarray, np.ndarray]
    features: int


def images(dataset: str, *, clients: int, each: int = 20, seed: int = 0) -> Images:
    """Deal a data set's training images to clients with Dirichlet(1) labels."""
    data = load(dataset)
    parts = dirichlet(data.train_y, clients=clients, examples_per_client=each, concentration=1.0, seed=seed)
    return Images(
        [(data.train_x[i], data.train_y[i]) for i in parts], (data.test_x, data.test_y), data.features
    )
