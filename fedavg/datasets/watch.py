"""Watch exercises: 10 people doing 7 shoulder exercises, from a smart watch (Burns et al. 2018), out of `seglearn`.

140 recordings at 50 Hz, each of one exercise: three axes of acceleration (g) and three of rotation (rad/s).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.datasets.archives import read_npy
from fedavg.datasets.dataset import Population
from fedavg.datasets.errors import UnsafeArchive
from fedavg.datasets.fetch import Notice, Package, Progress, fetch
from fedavg.datasets.members import open_member

__all__ = ["EXERCISES", "PACKAGE", "load_watch"]

PACKAGE = Package(
    name="seglearn",
    version="1.2.5",
    file="seglearn-1.2.5-py3-none-any.whl",
    sha256="ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd",
    size=11_320_941,
)
EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
"""The labels' meanings: pendulum, abduction, forward elevation, internal and external rotation, trapezius, row."""

_MEMBER = "seglearn/data/watch_dataset.npy"
_AXES = ("ax", "ay", "az", "wx", "wy", "wz")
_RECORDINGS = 140


def load_watch(*, progress: Progress | None = None, notice: Notice | None = None) -> Population:
    """Read the recordings from the cache, fetching them first if they are not there.

    Returns:
        By person ("1" to "10"), pairs of a recording, float32 of shape (rows, 6), and its label in `EXERCISES`.

    Raises:
        fedavg.datasets.DatasetError: as `fedavg.datasets.fetch.fetch`, or the archive is not what it was.
    """
    with open_member(fetch(PACKAGE, progress=progress, notice=notice), _MEMBER) as member:
        content = read_npy(member)
    recordings, labels, people = _checked(content)
    users: dict[int, list[tuple[NDArray[np.float32], int]]] = defaultdict(list)
    for recording, label, person in zip(recordings, labels, people, strict=True):
        users[person].append((recording.astype(np.float32), label))
    return Population(
        name="watch",
        users={str(person): tuple(users[person]) for person in sorted(users)},
        user="person",
        piece="recording",
        licence="BSD-3-Clause",
        source=f"Shoulder exercises from a watch (Burns et al. 2018), from the package {PACKAGE.requirement}",
    )


def _checked(content: Any) -> tuple[list[NDArray[np.float64]], list[int], list[int]]:
    """The recordings, their labels and whose they are, if everything is as it was."""
    try:
        (table,) = content
        recordings, labels, people = table["X"], table["y"].tolist(), table["subject"].tolist()
        right = (
            (*table["X_labels"],) == _AXES
            and (*table["y_labels"],) == EXERCISES
            and len(recordings) == len(labels) == len(people) == _RECORDINGS
            and all(recording.shape[1:] == (len(_AXES),) for recording in recordings)
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UnsafeArchive(f"{PACKAGE.file} does not hold the recordings it should") from error
    if not right:
        raise UnsafeArchive(
            f"{PACKAGE.file} holds other recordings than the {_RECORDINGS} of {len(_AXES)} axes"
        )
    return recordings, labels, people
