"""What the command line shows, and where: figures on stdout, progress and complaints on stderr.

Rules: nothing is wider than 80 columns; with `--json` everything for people goes to stderr and stdout holds one JSON
object; a progress bar is drawn in a terminal only, not beside a pipe, and lines printed meanwhile appear above it.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

__all__ = ["Screen"]

_COLUMNS = 80


class Screen:
    """Stdout and stderr of one command.

    Args:
        as_json: Keep stdout for one JSON object.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._errors = _console(stderr=True)
        self._lines = self._errors if as_json else _console(stderr=False)
        # FORCE_COLOR, which Jupyter and some CI set, makes consoles of rich say that they are terminals.
        self._watched = sys.stderr.isatty()
        # What reads a pipe may write to this terminal too, and would run into the bar.
        piped = not as_json and _is_pipe(sys.stdout)
        self._barless = piped or not self._watched

    def say(self, sentence: str = "") -> None:
        """Print prose, wrapped."""
        self.line(textwrap.fill(sentence, _COLUMNS))

    def line(self, text: str, *, style: str | None = None) -> None:
        """Print one line as it is: a row of figures, or a path nobody wants broken."""
        self._above_the_bar().print(text, markup=False, soft_wrap=True, style=style)

    def warn(self, sentence: str) -> None:
        """Print a warning to stderr."""
        self._errors.print(f"Warning: {sentence}", markup=False, style="yellow")

    def fail(self, sentence: str) -> None:
        """Print the one sentence a failed command leaves, to stderr, on one line."""
        self._errors.print(f"veilsum: {sentence}", markup=False, soft_wrap=True)

    def heading(self, text: str) -> None:
        """Print a heading with air above it."""
        self.line("")
        self.line(text, style="bold")

    def paragraph(self, text: str, *, bullet: str = "") -> None:
        """Print prose, wrapped and indented, after a bullet if one is given."""
        first = f"  {bullet} " if bullet else "  "
        self.line(textwrap.fill(text, _COLUMNS, initial_indent=first, subsequent_indent=" " * len(first)))

    def facts(self, facts: Mapping[str, str]) -> None:
        """Print names and values in two columns."""
        width = max(map(len, facts)) + 4
        for name, value in facts.items():
            self.line(
                textwrap.fill(
                    value, _COLUMNS, initial_indent=f"  {name:{width - 2}}", subsequent_indent=" " * width
                )
            )

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under column headings."""
        table = Table(*columns, box=None, padding=(0, 1), header_style="bold")
        for row in rows:
            table.add_row(*row)
        self._lines.print(table, markup=False)

    def result(self, content: Mapping[str, Any]) -> None:
        """With `--json`, print the object as the last line of stdout."""
        if self.as_json:
            print(json.dumps(content, allow_nan=False), flush=True)

    @contextmanager
    def download(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show a download; yields what to call with (bytes so far, bytes in all), which may never be called."""
        columns = (BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with self._bar(columns) as bar:

            def advance(done: int, size: int) -> None:
                task = bar.task_ids[0] if bar.task_ids else bar.add_task(what, total=size)
                bar.update(task, completed=done)

            yield advance

    @contextmanager
    def rounds(self, total: int) -> Iterator[Callable[[int], None]]:
        """Show rounds going by; yields what to call with the number of rounds done."""
        columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with self._bar((SpinnerColumn(), *columns)) as bar:
            task = bar.add_task("rounds", total=total)
            yield lambda done: bar.update(task, completed=done)

    def _bar(self, columns: Sequence[ProgressColumn]) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            *columns,
            console=self._errors,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=self._barless,
        )

    def _above_the_bar(self) -> Console:
        """In a terminal, lines go through the console that draws the bar, so that neither breaks the other."""
        return self._errors if self._watched and sys.stdout.isatty() else self._lines


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, emoji=False)
    console.width = min(console.width, _COLUMNS)
    return console


def _is_pipe(stream: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False  # No file behind it, as under a test.
