"""The `veilsum` command: its subcommands, and the one place where errors become a sentence and an exit code.

Exit codes: 0 done; 1 the run began and could not go on; 2 refused, nothing was charged; 130 interrupted. An error
that these packages raise on purpose is one sentence on stderr; any other traceback is a bug and is shown as one.
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from typing import Annotated, Any, TextIO

import typer

import dp
import fedavg
import secagg
from fedavg.cli.audit import audit
from fedavg.cli.bench import bench
from fedavg.cli.budget import budget
from fedavg.cli.data import data
from fedavg.cli.report import report
from fedavg.cli.screen import Screen
from fedavg.cli.simulate import simulate

__all__ = ["app", "main"]

app = typer.Typer(
    name="veilsum",
    help="Federated learning whose server only ever receives masked vectors with noise already in their sum.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
app.command()(simulate)
app.command()(data)
app.command()(audit)
app.command()(report)
app.add_typer(budget, name="budget")
app.add_typer(bench, name="bench")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"veilsum {version('veilsum')}")
        raise typer.Exit


@app.callback()
def veilsum(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Federated learning whose server only ever receives masked vectors with noise already in their sum."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    screen = Screen()
    plain = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        if issubclass(category, UserWarning):
            screen.warn(str(message))
        else:
            file: TextIO | None = rest[0] if rest else None
            plain(message, category, filename, lineno, file)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            app(prog_name="veilsum")
        except fedavg.RoundAborted as error:
            screen.fail(str(error))
            sys.exit(1)
        except (fedavg.FedAvgError, secagg.SecAggError, dp.DPError) as error:
            screen.fail(str(error))
            sys.exit(2)
