"""`veilsum simulate`: the options, grouped as `--help` shows them; what they do is in `fedavg.cli.run`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedavg.cli.run import run
from fedavg.cli.screen import Screen
from fedavg.cli.settings import Settings

__all__ = ["simulate"]

_Training = partial(typer.Option, rich_help_panel="Clients and training")
_Privacy = partial(typer.Option, rich_help_panel="Privacy")
_Secure = partial(typer.Option, rich_help_panel="Secure aggregation")
_Run = partial(typer.Option, rich_help_panel="Run")
_INTERRUPTED = 130


class Adversary(StrEnum):
    """What the server is assumed to be at worst."""

    semi_honest = "semi_honest"
    malicious = "malicious"


class Where(StrEnum):
    """Where simulated clients are played."""

    local = "local"
    processes = "processes"
    ray = "ray"


def simulate(
    context: typer.Context,
    dataset: Annotated[
        str, typer.Argument(help="digits (embedded), mnist, or another labelled one of `veilsum data`.")
    ] = "digits",
    population: Annotated[
        int | None, _Training(help="Clients; by default 3,000 for mnist, 280 for digits.")
    ] = None,
    cohort: Annotated[
        int | None, _Training(help="Clients drawn on average; by default 300 for mnist, 70 for digits.")
    ] = None,
    rounds: Annotated[int | None, _Training(help="Rounds; by default 50 for mnist, 30 for digits.")] = None,
    examples_per_client: Annotated[
        int | None, _Training(help="Examples a client holds; by default 20 for mnist, 5 for digits.")
    ] = None,
    concentration: Annotated[
        float, _Training(help="Dirichlet over labels: 0.1 gives a client few of them, 100 all alike.")
    ] = 1.0,
    local_epochs: Annotated[int, _Training(help="Passes over a client's own examples.")] = 5,
    learning_rate: Annotated[float, _Training(help="Of the clients' gradient steps.")] = 0.1,
    server_momentum: Annotated[float, _Training(help="Share of the last server step that is kept.")] = 0.9,
    clip: Annotated[float, _Privacy(help="Bound on the l2 norm of a client's update.")] = 0.3,
    noise_multiplier: Annotated[
        float | None,
        _Privacy(
            help="Noise over the most that one client can change a sum; 1.5 unless an epsilon is given."
        ),
    ] = None,
    epsilon_readers: Annotated[
        float | None, _Privacy(help="Budget against readers of the model; calibrates the noise.")
    ] = None,
    epsilon_server: Annotated[
        float | None, _Privacy(help="Budget against the server; calibrates the noise.")
    ] = None,
    delta: Annotated[
        float, _Privacy(help="What a probability may change by beyond the factor e^epsilon.")
    ] = 1e-5,
    max_participations: Annotated[
        int | None,
        _Privacy(help="Rounds a client contributes to at most; by default what 1 in 100 would pass."),
    ] = None,
    dropout: Annotated[
        float, _Secure(help="Share of the cohort that is made to drop out (simulated_dropout=).")
    ] = 0.05,
    tolerance: Annotated[
        float, _Secure(help="Share that may drop out before a round is given up (dropout=).")
    ] = 0.1,
    corruption: Annotated[float, _Secure(help="Share that may collude with the server (corruption=).")] = 0.1,
    adversary: Annotated[
        Adversary,
        _Secure(help="semi_honest: a server that follows the protocol; malicious: one that may not."),
    ] = Adversary.semi_honest,
    modulus_bits: Annotated[
        int | None, _Secure(help="Bits of a masked value; the fewest that hold the sum by default.")
    ] = None,
    backend: Annotated[
        Where, _Run(help="Play the clients in this process, in one per processor, or on Ray.")
    ] = Where.local,
    ledger: Annotated[
        Path | None, _Run(help="Charge the run to this ledger, which budget share made.")
    ] = None,
    task: Annotated[str, _Run(help="Name of the run; runs on one ledger need different ones.")] = "fedavg",
    simulation_seed: Annotated[
        int | None, _Run(help="Repeat a run exactly; a seeded run promises nothing.")
    ] = None,
    record: Annotated[
        Path | None, _Run(help="Write all that the server receives there, for veilsum audit transcript.")
    ] = None,
    output: Annotated[Path | None, _Run(help="Run folder; by default veilsum-runs/DATASET.")] = None,
    resume: Annotated[
        bool, _Run("--resume", help="Continue the run in the output folder, if it holds one.")
    ] = False,
    fresh: Annotated[bool, _Run("--fresh", help="Put a run in the output folder aside, and start.")] = False,
    fallback: Annotated[bool, _Run("--fallback", help="Use digits if no package registry answers.")] = False,
    as_json: Annotated[bool, _Run("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Train on real data over simulated clients, with real masks and real noise, and write a report.

    DATASET is digits, which is embedded, unless you name another labelled one of `veilsum data`.
    """
    if resume and fresh:
        raise typer.BadParameter("--resume and --fresh exclude each other; give one of them")
    screen = Screen(as_json=as_json)
    try:
        screen.result(run(Settings(**context.params), screen))
    except KeyboardInterrupt:
        screen.fail("interrupted; the same command with --resume continues after the last finished round")
        raise typer.Exit(_INTERRUPTED) from None
