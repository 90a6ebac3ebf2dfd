"""`veilsum report`: make a run's page again, for example after an audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedavg import report as pages
from fedavg.cli.screen import Screen

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.")],
    output: Annotated[Path | None, typer.Option(help="Another place for the page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Write a run's report: one page that needs nothing else and may be published.

    RUN is the run's folder.
    """
    screen = Screen(as_json=as_json)
    target = pages.rewrite(run, output=output)
    screen.line(f"Report: {target}")
    screen.result({"report": str(target), "bytes": target.stat().st_size})
