"""`veilsum budget plan` and `veilsum budget verify`: what a run would cost, and what a ledger says one did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import dp
from fedavg.cli.plan_command import plan_command
from fedavg.cli.screen import Screen

__all__ = ["budget"]

budget = typer.Typer(
    help="Plan a privacy budget, or check a ledger.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_BROKEN = 1


budget.command("plan")(plan_command)


@budget.command("verify")
def verify_command(
    path: Annotated[Path, typer.Argument(metavar="LEDGER", help="A run's operator/ledger.sqlite.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Check that a ledger's rows stand as they were written; exit code 1 if one does not."""
    screen = Screen(as_json=as_json)
    ledger = dp.Ledger.open(path)
    try:
        ledger.verify()
    except dp.LedgerError as error:
        screen.fail(str(error))
        raise typer.Exit(_BROKEN) from None
    *_, last = ledger.rows()
    refunded = sum(row.kind == "refund" for row in ledger.rows())
    screen.facts(
        {
            "ledger": str(path),
            "rows": f"{last.sequence + 1:,}, each fits the one before it",
            "charged": f"{ledger.charged:,} rounds, {ledger.aborted:,} of them without a result",
            "refunded": f"{refunded:,} rounds",
            "newest hash": last.hash.hex(),
        }
    )
    screen.say("Keep the newest hash elsewhere: a ledger that is replaced whole fits itself.")
    screen.result(
        {
            "ledger": str(path),
            "rows": last.sequence + 1,
            "charged": ledger.charged,
            "aborted": ledger.aborted,
            "refunded": refunded,
            "newest_hash": last.hash.hex(),
        }
    )
