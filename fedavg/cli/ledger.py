"""`veilsum budget show`, `verify`, `export` and `merge`: what a ledger says, and whether it is to be believed.

Exit codes: 0; 1 if something in a ledger does not fit; 2 if there is no ledger that can be read. No command writes to
a ledger.
"""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

import dp
from fedavg.cli.ledgers import Outlook, caveats, exported, merged, model_hashes, name_of, outlook, round_rows
from fedavg.cli.screen import Screen
from fedavg.errors import CheckpointError, ParameterError
from fedavg.report import epsilon_text

__all__ = ["export_command", "merge_command", "show_command", "verify_command"]

_BROKEN = 1
_OBSERVERS = {"readers": "against readers of the model", "server": "against the server"}
_Ledger = Annotated[Path, typer.Argument(metavar="LEDGER", help="A run's operator/ledger.sqlite.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


def show_command(
    path: _Ledger,
    rounds: Annotated[bool, typer.Option("--rounds", help="List every round.")] = False,
    as_json: _Json = False,
) -> None:
    """Say what was spent and is left, what the next round costs, and when the budget ends.

    LEDGER is a run's operator/ledger.sqlite, or a shared one; it is only read.
    """
    screen = Screen(as_json=as_json)
    spent = dp.spending(path)
    ahead = {run.number: outlook(spent, run.number) for run in spent.runs}
    listed = round_rows(path, spent) if rounds else []
    screen.facts({"ledger": str(path), **_totals(spent)})
    for run in spent.runs:
        screen.heading(_run_name(run))
        screen.facts(_run_facts(spent, run, ahead[run.number]))
    for caveat in caveats(spent):
        screen.warn(caveat)
    if spent.shared is not None:
        screen.say(
            "Several runs share this budget, so what is guaranteed is the budget; what was spent is bookkeeping."
        )
    if listed:
        screen.heading("Every round")
        _show_rounds(screen, listed)
    content = spent.as_dict()
    for run in content["runs"]:
        one = ahead[run["number"]]
        run["outlook"] = None if one is None else one.as_dict()
    screen.result({**content, **({"rounds": listed} if rounds else {})})


def _totals(spent: dp.Spending) -> dict[str, str]:
    facts = {"rows": f"{spent.rows:,}", "delta": "unknown" if spent.delta is None else f"{spent.delta:g}"}
    for observer, words in _OBSERVERS.items():
        facts[words] = _spent_text(spent.spent, spent.budgets, spent.left, observer)
    return facts


def _spent_text(
    spent: dp.Epsilons | None, budgets: dp.Epsilons | None, left: dp.Epsilons | None, observer: str
) -> str:
    if spent is None or budgets is None or left is None:
        return "unknown: charged by an accountant that is not this library's"
    said = f"epsilon {epsilon_text(getattr(spent, observer))} spent"
    budget = getattr(budgets, observer)
    if not math.isfinite(budget):
        return f"{said}; no budget was set"
    return f"{said} of {budget:g}; {max(0.0, _down(getattr(left, observer))):g} left"


def _down(value: float) -> float:
    """Four figures, never rounded up: what is left must not look larger than it is."""
    if value <= 0 or not math.isfinite(value):
        return value
    digits = max(0, 3 - math.floor(math.log10(value)))
    return float(math.floor(value * 10**digits) / 10**digits)


def _run_name(run: dp.RunSpending) -> str:
    return f"Run {run.number}: {name_of(run)}"


def _run_facts(spent: dp.Spending, run: dp.RunSpending, ahead: Outlook | None) -> dict[str, str]:
    facts = {
        "rounds": f"{run.charged:,} charged: {run.settled:,} with a result, {run.aborted:,} without;"
        f" {run.refunded:,} refunded"
    }
    if spent.shared is not None:
        for observer, words in _OBSERVERS.items():
            facts[words] = _spent_text(run.spent, run.budgets, run.left, observer)
    if ahead is None:
        return facts
    if ahead.next_round is None:
        facts["next round"] = "none: all planned rounds have run, or the budget holds no other"
        return facts
    added = ahead.next_round
    facts["next round"] = (
        f"adds {epsilon_text(added.readers)} against readers, {epsilon_text(added.server)} against the server"
    )
    facts["still fit"] = f"{ahead.rounds_left:,} rounds of those planned"
    if ahead.seconds_left is not None and ahead.seconds_per_round is not None:
        facts["at this pace"] = (
            f"{ahead.seconds_per_round:.3g} s a round: the last of them ends in"
            f" {timedelta(seconds=round(ahead.seconds_left))}"
        )
    return facts


def _show_rounds(screen: Screen, listed: list[dict[str, Any]]) -> None:
    known = all("epsilon" in one for one in listed)
    rows = []
    for one in listed:
        figures = [f"{one['round']:,}", f"{one['run']}", one["state"], f"{one.get('survivors', '')}"]
        if known:
            figures += [
                epsilon_text(math.inf if value is None else value) for value in one["epsilon"].values()
            ]
        rows.append(figures)
    columns = ["round", "run", "state", "survivors", *(["eps readers", "eps server"] if known else [])]
    screen.table(columns, rows)


def verify_command(
    path: _Ledger,
    models: Annotated[
        Path | None,
        typer.Option(help="Folder of released models, model-ROUND.npz or model.npz: hashes are checked."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Recompute chain and epsilons by another code path; exit code 1 if something does not fit.

    LEDGER is a run's operator/ledger.sqlite, or a shared one; it is only read.
    """
    screen = Screen(as_json=as_json)
    found = dp.verify(path, None if models is None else model_hashes(models, path))
    facts = {"ledger": str(path)}
    if found.rows:  # Else the rows do not fit, and what they add up to means nothing.
        facts |= {
            "rows": f"{found.rows:,}",
            "charged": f"{found.charged:,} rounds, {found.charged - found.settled:,} of them without a result",
            "refunded": f"{found.refunded:,} rounds",
        }
    if found.epsilons is not None:
        for observer, words in _OBSERVERS.items():
            other = found.recomputed.get(observer)
            by = (
                "not covered by dp-accounting" if other is None else f"{epsilon_text(other)} by dp-accounting"
            )
            facts[words] = f"epsilon {epsilon_text(getattr(found.epsilons, observer))}; {by}"
    if models is not None:
        facts["models"] = f"{found.models_checked:,} checked"
    if found.rows:
        facts["newest hash"] = found.newest_hash
    screen.facts(facts)
    for finding in found.findings:
        screen.fail(finding)
    if not found.findings:
        for caveat in caveats(dp.spending(path)):
            screen.warn(caveat)
        screen.say(
            "Everything fits. Keep the newest hash elsewhere: a ledger that is replaced whole fits itself."
        )
    screen.result({**found.as_dict(), "aborted": found.charged - found.settled})
    if found.findings:
        raise typer.Exit(_BROKEN)


def export_command(
    path: _Ledger,
    output: Annotated[Path | None, typer.Option(help="Write there instead of to stdout.")] = None,
) -> None:
    """Write a whole ledger as JSON, in the form of docs/ledger-schema.json.

    LEDGER is a run's operator/ledger.sqlite, or a shared one; it is only read.
    """
    text = json.dumps(exported(path), indent=1, allow_nan=False)
    if output is None:
        print(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"the export {output} cannot be written: {error.strerror or error}; give another path"
        ) from error


def merge_command(
    paths: Annotated[list[Path], typer.Argument(metavar="LEDGER...", help="Ledgers over the same people.")],
    delta: Annotated[
        float | None, typer.Option(help="Of the whole; the largest of the ledgers' by default.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Say what several ledgers together cost the people who are in all of them; nothing is written.

    Each LEDGER is a single run's operator/ledger.sqlite.
    """
    screen = Screen(as_json=as_json)
    if len({path.resolve() for path in paths}) < len(paths):
        raise ParameterError("a ledger was given twice; give each once")
    ledgers = [dp.spending(path) for path in paths]
    found = merged(ledgers, delta=delta)
    rows = [
        (
            path.name if len(str(path)) > 40 else str(path),
            f"{spent.runs[0].charged:,}",
            epsilon_text(spent.spent.readers) if spent.spent else "unknown",
            epsilon_text(spent.spent.server) if spent.spent else "unknown",
        )
        for path, spent in zip(paths, ledgers, strict=True)
    ]
    screen.table(("ledger", "rounds", "eps readers", "eps server"), rows)
    for path, spent in zip(paths, ledgers, strict=True):
        for caveat in caveats(spent):
            screen.warn(f"{path}: {caveat}")
    screen.line("")
    screen.facts(
        {
            "together, readers": f"{epsilon_text(found.epsilon.readers)} ({found.how['readers']})",
            "together, server": f"{epsilon_text(found.epsilon.server)} ({found.how['server']})",
            "delta": f"{found.delta:g}",
        }
    )
    screen.result({"ledgers": [str(path) for path in paths], **found.as_dict()})
