"""`veilsum budget share`: a ledger whose budget several runs spend together, fixed before the first of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import dp
from dp.events import Composed, Gaussian, Poisson
from fedavg.cli.screen import Screen
from fedavg.errors import ParameterError

__all__ = ["share_command"]

_Promise = partial(typer.Option, rich_help_panel="What all runs together may cost")
_Expected = partial(
    typer.Option, rich_help_panel="Rounds that are expected in all: more of them fit if the budget knows"
)


def share_command(
    path: Annotated[Path, typer.Argument(metavar="LEDGER", help="The file to make.")],
    delta: Annotated[
        float,
        _Promise(help="What a probability may change by beyond the factor e^epsilon; that of every run."),
    ],
    epsilon_readers: Annotated[
        float | None, _Promise(help="Most epsilon against readers of everything released.")
    ] = None,
    epsilon_server: Annotated[float | None, _Promise(help="Most epsilon against the server.")] = None,
    population: Annotated[int | None, _Expected(help="Number of clients.")] = None,
    cohort: Annotated[int | None, _Expected(help="Clients drawn on average in a round.")] = None,
    rounds: Annotated[int | None, _Expected(help="Rounds of all runs together.")] = None,
    noise_multiplier: Annotated[
        float | None, _Expected(help="Their noise over the most that one client can change a sum.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Make a ledger that several runs share; each joins it with simulate --ledger or ledger=.

    LEDGER is the file to make; give --epsilon-readers, --epsilon-server, or both.
    """
    screen = Screen(as_json=as_json)
    if epsilon_readers is None and epsilon_server is None:
        raise ParameterError("no budget was given; give --epsilon-readers, --epsilon-server, or both")
    expected = _expected(population, cohort, rounds, noise_multiplier)
    if expected is None:
        budget = dp.SharedBudget(delta=delta, readers_epsilon=epsilon_readers, server_epsilon=epsilon_server)
    elif epsilon_readers is None:
        raise ParameterError(
            "expected rounds were given without --epsilon-readers, the only promise that follows from them; give it"
        )
    else:
        budget = dp.SharedBudget.planned(
            delta=delta, expected=expected, readers_epsilon=epsilon_readers, server_epsilon=epsilon_server
        )
    dp.Ledger.share(path, budget=budget)
    described = budget.describe()
    screen.facts(
        {
            "ledger": str(path),
            "delta": f"{delta:g}",
            "against readers of the models": _promised(described["readers"], epsilon_server),
            "against the server": _promised(described["server"], None),
        }
    )
    screen.say(
        "Everything charged to it keeps these promises together, however later runs are chosen after earlier ones."
        " Nobody can raise them; a run that would pass them is refused before anybody is invited."
    )
    screen.line(f"Join it: veilsum simulate --ledger {path} --task NAME")
    screen.result({"ledger": str(path), "budget": described})


def _promised(one: dict[str, float | None] | None, other: float | None) -> str:
    if one is not None:
        by = "a Gaussian filter" if one["order"] is None else f"a Renyi filter of order {one['order']}"
        return f"epsilon {one['epsilon']:g}, kept by {by}"
    return "nothing" if other is None else f"epsilon {other:g}, that against the server"


def _expected(
    population: int | None, cohort: int | None, rounds: int | None, noise_multiplier: float | None
) -> Composed | None:
    figures = {
        "--population": population,
        "--cohort": cohort,
        "--rounds": rounds,
        "--noise-multiplier": noise_multiplier,
    }
    if all(value is None for value in figures.values()):
        return None
    if population is None or cohort is None or rounds is None or noise_multiplier is None:
        lacking = ", ".join(name for name, value in figures.items() if value is None)
        raise ParameterError(
            f"expected rounds need all four figures, and {lacking} is not given; give it too"
        )
    if not 0 < cohort <= population or rounds < 1 or noise_multiplier <= 0:
        raise ParameterError(
            f"population {population}, cohort {cohort}, rounds {rounds} and noise multiplier {noise_multiplier:g} are"
            " no rounds; give a cohort of at least 1 and at most the population, and the others above 0"
        )
    return Composed(Poisson(Gaussian(noise_multiplier), cohort / population), rounds)
