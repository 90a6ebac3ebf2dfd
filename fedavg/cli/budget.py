"""`veilsum budget`: plan a privacy budget, watch it, check it."""

from __future__ import annotations

import typer

from fedavg.cli.ledger import export_command, merge_command, show_command, verify_command
from fedavg.cli.plan_command import plan_command
from fedavg.cli.share import share_command

__all__ = ["budget"]

budget = typer.Typer(
    help="Plan a privacy budget, watch it, check it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
budget.command("plan")(plan_command)
budget.command("share")(share_command)
budget.command("show")(show_command)
budget.command("verify")(verify_command)
budget.command("export")(export_command)
budget.command("merge")(merge_command)
