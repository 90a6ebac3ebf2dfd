"""`veilsum budget plan`: its options, and how a plan is shown; what it computes is in `fedavg.cli.plan`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fedavg.cli.plan import FIGURES, Accountant, Mechanism, Planned, plan, settings
from fedavg.cli.round_cost import cpu_seconds
from fedavg.cli.screen import Screen
from fedavg.errors import ParameterError
from fedavg.report import bytes_text, epsilon_text

__all__ = ["plan_command"]

_Column = tuple[str, Callable[[Planned], str]]

_Figures = partial(
    typer.Option, rich_help_panel="Figures: leave one out; a list such as 50,100 makes a table"
)
_Sum = partial(typer.Option, rich_help_panel="What is summed, and how")
_Output = partial(typer.Option, rich_help_panel="Output")


@dataclass(frozen=True)
class Choices:
    """The numbers given for one figure."""

    values: tuple[Any, ...]


def _whole(text: str) -> Choices:
    return _choices(text, int, "whole numbers")


def _real(text: str) -> Choices:
    return _choices(text, float, "numbers")


def _choices(text: str, kind: type[int] | type[float], what: str) -> Choices:
    try:
        return Choices(tuple(kind(part) for part in text.split(",")))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of {what}, such as 50 or 50,100") from None


def plan_command(
    context: typer.Context,
    population: Annotated[
        Choices | None, _Figures(parser=_whole, metavar="N", help="Number of clients.")
    ] = None,
    cohort: Annotated[
        Choices | None, _Figures(parser=_whole, metavar="N", help="Clients drawn on average in a round.")
    ] = None,
    rounds: Annotated[Choices | None, _Figures(parser=_whole, metavar="N", help="Number of rounds.")] = None,
    delta: Annotated[
        Choices | None,
        _Figures(
            parser=_real, metavar="X", help="What a probability may change by beyond the factor e^epsilon."
        ),
    ] = None,
    noise_multiplier: Annotated[
        Choices | None,
        _Figures(parser=_real, metavar="X", help="Noise over the most that one client can change a sum."),
    ] = None,
    epsilon_readers: Annotated[
        Choices | None, _Figures(parser=_real, metavar="X", help="Most epsilon against readers of the model.")
    ] = None,
    epsilon_server: Annotated[
        Choices | None, _Figures(parser=_real, metavar="X", help="Most epsilon against the server.")
    ] = None,
    max_participations: Annotated[
        Choices | None,
        _Figures(parser=_whole, metavar="N", help="Rounds a client contributes to at most; all by default."),
    ] = None,
    mechanism: Annotated[
        Mechanism, _Sum(help="gaussian is a trusted server's noise; the others are the clients' shares.")
    ] = Mechanism.discrete_gaussian,
    accountant: Annotated[
        Accountant, _Sum(help="pld is what runs are charged by; rdp compares with published figures.")
    ] = Accountant.pld,
    parameters: Annotated[int, _Sum(help="Values in one client's update.")] = 1_000_000,
    clip: Annotated[
        float | None, _Sum(help="Bound on the norm of an update; with it, the noise is shown in its unit.")
    ] = None,
    update_norm: Annotated[
        float | None, _Sum(help="Norm of a typical update, to compare the noise with; the clip by default.")
    ] = None,
    tolerance: Annotated[float, _Sum(help="Share that may drop out before a round is given up.")] = 0.1,
    corruption: Annotated[float, _Sum(help="Share that may collude with the server.")] = 0.1,
    plot: Annotated[Path | None, _Output(help="Draw the plan as a PNG.")] = None,
    as_json: Annotated[bool, _Output("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Plan a run: leave one figure out (or both epsilons), and it is solved for."""
    given = {name: context.params[name].values for name in FIGURES if context.params[name] is not None}
    rest = {
        "mechanism": mechanism,
        "accountant": accountant,
        "parameters": parameters,
        "clip": clip,
        "update_norm": update_norm,
        "tolerance": tolerance,
        "corruption": corruption,
    }
    asked = list(settings(given, **rest))
    if plot is not None and len(asked) > 1:
        raise ParameterError(
            f"--plot draws one plan, and {len(asked)} were asked for; give one of each figure"
        )
    screen = Screen(as_json=as_json)
    made = [plan(one) for one in asked]
    for warning in dict.fromkeys(text for one in made for text in one.answer["warnings"]):
        screen.warn(warning)
    lists = [name for name in FIGURES if len(given.get(name, ())) > 1]
    if lists:
        _show_table(screen, made, lists)
        screen.result({"plans": [_figures(one) for one in made]})
        return
    (one,) = made
    figures = _figures(one)
    screen.facts(_in_words(one, figures))
    if plot is not None:
        from fedavg.cli.plan_plot import draw

        draw(asked[0], one, plot)
        screen.line(f"Picture: {plot}")
    screen.result(figures)


def _figures(one: Planned) -> dict[str, Any]:
    """The object of `--json`."""
    if one.cost is None or one.aggregation is None:
        return {**one.as_dict(), "client_cpu_s": None, "server_cpu_s": None}
    dropped = one.aggregation.cohort - one.aggregation.minimum_survivors
    client, server = cpu_seconds(one.cost, dropped=dropped)
    return {**one.as_dict(), "client_cpu_s": client, "server_cpu_s": server}


def _in_words(one: Planned, figures: dict[str, Any]) -> dict[str, str]:
    answer, solved = one.answer, one.answer["solved_for"]
    cap, rounds = answer["max_participations"], answer["rounds"]
    participations = (
        "all rounds" if cap is None or cap >= rounds else f"the {cap:,} rounds of a client at its cap"
    )

    def found(name: str, text: str) -> str:
        return f"{text} (solved for)" if solved == name else text

    facts = {
        "epsilon, readers": f"{_epsilon(answer, 'readers')} for whoever reads the released models",
        "epsilon, server": f"{_epsilon(answer, 'server')} for the server, over {participations}",
        "delta": found("delta", f"{answer['delta']:.6g}"),
        "noise multiplier": found("noise_multiplier", f"{answer['noise_multiplier']:.6g}")
        + f" ({answer['mechanism'].replace('_', ' ')})",
        "rounds": found("rounds", f"{rounds:,}"),
        "population": found("population", f"{answer['population']:,} clients"),
        "drawn": found("cohort", f"{answer['expected']:,.6g} a round on average")
        + f", each client with probability {answer['sampling_rate']:.6g}",
        "cohort": f"{answer['cohort']:,} invited in every round",
    }
    if answer["accountant"] == "rdp":
        facts["accountant"] = "Renyi, for comparison: runs are charged less, by loss distributions"
    return {**facts, **_round_in_words(one, figures), **_noise_in_words(one)}


def _round_in_words(one: Planned, figures: dict[str, Any]) -> dict[str, str]:
    aggregation, cost = one.aggregation, one.cost
    if aggregation is None or cost is None:
        return {}
    dropped = aggregation.cohort - aggregation.minimum_survivors
    return {
        "in the sum": f"at least {aggregation.minimum_survivors:,}, {aggregation.honest_survivors:,} of them counted"
        " as honest",
        "ring": f"{aggregation.modulus_bits} bits a value",
        "a client sends": f"{bytes_text(cost.bytes_up_per_client)} a round: {cost.values:,} values,"
        f" keys and shares for {cost.neighbours:,} neighbours",
        "the server receives": f"{bytes_text(cost.bytes_up_round)} a round",
        "CPU, about": f"{figures['client_cpu_s']:.2g} s a client, {figures['server_cpu_s']:.2g} s the server if"
        f" {dropped:,} drop out, on this machine",
    }


def _noise_in_words(one: Planned) -> dict[str, str]:
    if one.noise is None:
        return {}
    return {
        "noise": f"{one.noise.per_coordinate:.3g} in a coordinate of the average (deviation, nobody dropping out)",
        "noise over update": f"{one.noise.share_of_update:.3g} times the norm of a typical update",
    }


def _show_table(screen: Screen, made: list[Planned], lists: list[str]) -> None:
    """One row a plan: what was varied, what was solved for, both epsilons, what it takes."""
    solved = {one.answer["solved_for"] for one in made} - {"epsilon"}
    columns: dict[str, _Column] = {
        "population": ("clients", lambda one: f"{one.answer['population']:,}"),
        "cohort": ("drawn", lambda one: f"{one.answer['expected']:,.6g}"),
        "rounds": ("rounds", lambda one: f"{one.answer['rounds']:,}"),
        "delta": ("delta", lambda one: f"{one.answer['delta']:.3g}"),
        "noise_multiplier": ("noise z", lambda one: f"{one.answer['noise_multiplier']:.4g}"),
        "max_participations": (
            "cap",
            lambda one: f"{one.answer['max_participations'] or one.answer['rounds']:,}",
        ),
    }
    chosen: list[_Column] = [columns[name] for name in columns if name in lists or name in solved]
    chosen += [
        ("eps readers", lambda one: _epsilon(one.answer, "readers")),
        ("eps server", lambda one: _epsilon(one.answer, "server")),
        ("invited", lambda one: f"{one.answer['cohort']:,}"),
        ("up/client", lambda one: "" if one.cost is None else bytes_text(one.cost.bytes_up_per_client)),
    ]
    if all(one.noise is not None for one in made):
        chosen.append(("noise/update", lambda one: f"{one.noise.share_of_update:.3g}" if one.noise else ""))
    screen.table([name for name, _ in chosen], [[text(one) for _, text in chosen] for one in made])


def _epsilon(answer: Any, observer: str) -> str:
    value = answer["epsilon"][observer]
    return epsilon_text(math.inf if value is None else value)
