"""`veilsum data`: which data sets there are, and fetching one ahead of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from fedavg import datasets
from fedavg.cli.screen import Screen

__all__ = ["data"]


def data(
    dataset: Annotated[str | None, typer.Argument(help="Fetch this one; without it, list all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """List the data sets, or fetch one into the cache ($VEILSUM_DATA, ~/.cache/veilsum).

    Without DATASET all are listed, and nothing is fetched.
    """
    screen = Screen(as_json=as_json)
    if dataset is None:
        _list(screen)
        return
    entry = datasets.CATALOGUE.get(dataset)
    with screen.download(f"fetching {dataset}") as progress:
        load = datasets.load_users if entry is not None and entry.population else datasets.load
        loaded = load(dataset, progress=progress, notice=screen.warn)
    facts, figures = _users(loaded) if isinstance(loaded, datasets.Population) else _examples(loaded)
    screen.facts({"data set": loaded.name, **facts, "source": loaded.source, "licence": loaded.licence})
    screen.result({"dataset": loaded.name, **figures, "source": loaded.source, "licence": loaded.licence})


def _examples(loaded: datasets.Dataset) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    """What is said of examples, for people and for scripts."""
    users = {name: len(datasets.natural(group)) for name, group in loaded.groups.items()}
    facts = {
        "training": f"{len(loaded.train_y):,} examples of {loaded.features} numbers",
        "test": f"{len(loaded.test_y):,} examples",
    }
    if users:
        facts["users"] = ", ".join(f"{count} by {name}" for name, count in users.items())
    figures = {
        "train": len(loaded.train_y),
        "test": len(loaded.test_y),
        "features": loaded.features,
        "classes": loaded.classes,
        "users": users,
    }
    return facts, figures


def _users(loaded: datasets.Population) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    """What is said of a population, for people and for scripts."""
    sizes = [len(pieces) for pieces in loaded.users.values()]
    facts = {
        "users": f"{len(sizes):,} by {loaded.user}",
        "pieces": f"{sum(sizes):,} by {loaded.piece}, {min(sizes):,} to {max(sizes):,} a user",
    }
    figures = {"users": {loaded.user: len(sizes)}, "pieces": {loaded.piece: sum(sizes)}}
    return facts, figures


def _list(screen: Screen) -> None:
    rows = [
        (name, entry.contents, entry.users, entry.licence, _place(entry))
        for name, entry in datasets.CATALOGUE.items()
    ]
    screen.table(("data set", "contents", "users", "licence", "where"), rows)
    keys = ("dataset", "contents", "users", "licence", "where")
    listed: list[dict[str, Any]] = [dict(zip(keys, row, strict=True)) for row in rows]
    screen.result({"datasets": listed, "cache": str(datasets.cache_folder())})


def _place(entry: datasets.Entry) -> str:
    if entry.package is None:
        return "embedded"
    size = f"{entry.package.size / 1e6:.0f} MB"
    return f"cached, {size}" if datasets.is_cached(entry.package) else f"to fetch, {size}"
