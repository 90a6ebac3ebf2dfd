"""`veilsum data`: which data sets there are, and fetching one ahead of time."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fedavg import datasets
from fedavg.cli.screen import Screen

__all__ = ["data"]


def data(
    dataset: Annotated[str | None, typer.Argument(help="Fetch this one; without it, list all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """List the data sets, or fetch one into the cache ($VEILSUM_DATA, ~/.cache/veilsum)."""
    screen = Screen(as_json=as_json)
    if dataset is None:
        _list(screen)
        return
    with screen.download(f"fetching {dataset}") as progress:
        loaded = datasets.load(dataset, progress=progress, notice=screen.warn)
    screen.facts(
        {
            "data set": loaded.name,
            "training": f"{len(loaded.train_y):,} examples of {loaded.features} numbers",
            "test": f"{len(loaded.test_y):,} examples",
            "source": loaded.source,
            "licence": loaded.licence,
        }
    )
    screen.result(
        {
            "dataset": loaded.name,
            "train": len(loaded.train_y),
            "test": len(loaded.test_y),
            "features": loaded.features,
            "classes": loaded.classes,
            "source": loaded.source,
            "licence": loaded.licence,
        }
    )


def _list(screen: Screen) -> None:
    rows = [
        (name, entry.contents, entry.licence, _place(entry)) for name, entry in datasets.CATALOGUE.items()
    ]
    screen.table(("data set", "contents", "licence", "where"), rows)
    keys = ("dataset", "contents", "licence", "where")
    listed: list[dict[str, Any]] = [dict(zip(keys, row, strict=True)) for row in rows]
    screen.result({"datasets": listed, "cache": str(datasets.cache_folder())})


def _place(entry: datasets.Entry) -> str:
    if entry.package is None:
        return "embedded"
    size = f"{entry.package.size / 1e6:.1f} MB"
    return f"cached, {size}" if datasets.is_cached(entry.package) else f"to fetch, {size}"
