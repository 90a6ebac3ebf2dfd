"""Digits: 1,797 handwritten digits of 8x8 pixels, shipped inside this package, so that a first run needs no network.

`data/digits.npz` holds the pixels (0 to 16, bytes) and labels of scikit-learn's `load_digits()`, in its order; that
set is the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI, 1998). The licence of
the copy is in `data/digits.LICENSE`.

Every fifth example is a test example: neighbours in the file were written by the same person, so both parts hold
every writer, and no randomness is involved.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np

from fedavg.datasets.dataset import Dataset

__all__ = ["load_digits"]

_WHITE = 16


def load_digits() -> Dataset:
    """Read the embedded digits.

    >>> load_digits()
    Dataset(digits: 1,438 training and 359 test examples)
    """
    with (files("fedavg.datasets") / "data" / "digits.npz").open("rb") as file, np.load(file) as arrays:
        pixels, labels = arrays["pixels"], arrays["labels"].astype(np.int64)
    images = pixels.astype(np.float32) / np.float32(_WHITE)
    test = np.arange(len(labels)) % 5 == 4
    return Dataset(
        name="digits",
        train_x=images[~test],
        train_y=labels[~test],
        test_x=images[test],
        test_y=labels[test],
        licence="BSD-3-Clause",
        source="Optical Recognition of Handwritten Digits (Alpaydin, Kaynak 1998), as in scikit-learn; embedded",
    )
