"""`veilsum budget plan` and `veilsum budget verify`: what a run would cost, and what a ledger says one did."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

import dp
from fedavg.cli.plan import Mechanism, Plan, Planned, plan
from fedavg.cli.screen import Screen
from fedavg.report import epsilon_text

__all__ = ["budget"]

budget = typer.Typer(
    help="Plan a privacy budget, or check a ledger.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_BROKEN = 1


@budget.command("plan")
def plan_command(
    population: Annotated[int, typer.Option(help="Number of clients.")],
    cohort: Annotated[int, typer.Option(help="Clients drawn on average in a round.")],
    rounds: Annotated[int, typer.Option(help="Number of rounds.")],
    delta: Annotated[float, typer.Option(help="Probability that the promise fails.")],
    noise_multiplier: Annotated[float | None, typer.Option(help="Noise over the joint sensitivity.")] = None,
    epsilon_readers: Annotated[
        float | None,
        typer.Option(help="Find the noise that keeps this epsilon against readers of the model."),
    ] = None,
    epsilon_server: Annotated[
        float | None, typer.Option(help="Find the noise that keeps this epsilon against the server.")
    ] = None,
    max_participations: Annotated[
        int | None, typer.Option(help="Rounds a client contributes to at most; all by default.")
    ] = None,
    mechanism: Annotated[
        Mechanism,
        typer.Option(help="gaussian is a trusted server's noise; the others are the clients' shares."),
    ] = Mechanism.discrete_gaussian,
    length: Annotated[int, typer.Option(help="Values in one client's update.")] = 1_000_000,
    tolerance: Annotated[
        float, typer.Option(help="Share that may drop out before a round is given up.")
    ] = 0.1,
    corruption: Annotated[float, typer.Option(help="Share that may collude with the server.")] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Say what a plan costs against both observers, or how much noise keeps an epsilon."""
    asked = Plan(
        population=population,
        cohort=cohort,
        rounds=rounds,
        delta=delta,
        mechanism=mechanism,
        noise_multiplier=noise_multiplier,
        epsilon_readers=epsilon_readers,
        epsilon_server=epsilon_server,
        max_participations=max_participations,
        length=length,
        tolerance=tolerance,
        corruption=corruption,
    )
    screen = Screen(as_json=as_json)
    answer = plan(asked)
    if warning := dp.delta_warning(delta=delta, population=population):
        screen.warn(warning)
    screen.facts(_in_words(asked, answer))
    screen.result(_figures(asked, answer))


def _in_words(asked: Plan, answer: Planned) -> dict[str, str]:
    sampler, aggregation = answer.sampler, answer.aggregation
    cap = asked.max_participations
    facts = {
        "epsilon, readers": f"{epsilon_text(answer.epsilon.readers)} for whoever reads the released models",
        "epsilon, server": f"{epsilon_text(answer.epsilon.server)} for the server, over "
        + (
            "all rounds" if cap is None or cap >= asked.rounds else f"the {cap} rounds of a client at its cap"
        ),
        "delta": f"{asked.delta:g}",
        "noise multiplier": f"{answer.noise_multiplier:.6g} ({asked.mechanism.value.replace('_', ' ')})",
        "rounds": f"{asked.rounds:,}",
        "population": f"{asked.population:,} clients, {asked.cohort:,} drawn a round on average"
        f" (q = {sampler.sampling_rate:.6g})",
        "cohort": f"{sampler.cohort_size:,} invited in every round",
    }
    if aggregation is not None:
        facts["in the sum"] = (
            f"at least {aggregation.minimum_survivors:,}, {aggregation.honest_survivors:,} of them counted as honest"
        )
        facts["ring"] = f"{aggregation.modulus_bits} bits for {asked.length:,} values"
    return facts


def _figures(asked: Plan, answer: Planned) -> dict[str, Any]:
    aggregation = answer.aggregation
    return {
        "epsilon": {"readers": answer.epsilon.readers, "server": _finite(answer.epsilon.server)},
        "noise_multiplier": answer.noise_multiplier,
        "delta": asked.delta,
        "mechanism": asked.mechanism.value,
        "rounds": asked.rounds,
        "population": asked.population,
        "expected": asked.cohort,
        "sampling_rate": answer.sampler.sampling_rate,
        "cohort": answer.sampler.cohort_size,
        "max_participations": asked.max_participations or asked.rounds,
        "min_survivors": None if aggregation is None else aggregation.minimum_survivors,
        "honest_survivors": None if aggregation is None else aggregation.honest_survivors,
        "modulus_bits": None if aggregation is None else aggregation.modulus_bits,
    }


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


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None
