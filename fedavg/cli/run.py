"""One simulated run: settings in, a finished run folder and its figures out.

What is printed holds only what readers of the model may see: the padded cohort and its survivors, never who was
drawn or how many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dp
import fedavg
import secagg
from fedavg import datasets, report
from fedavg.aggregation import Record
from fedavg.auditing import Recorder
from fedavg.cli.screen import Screen
from fedavg.cli.settings import Settings, Setup, keep
from fedavg.report import bytes_text, epsilon_text, is_simulation, promises

__all__ = ["run"]


def run(settings: Settings, screen: Screen) -> dict[str, Any]:
    """Load, train, report.

    Args:
        settings: What was asked for.
        screen: Where it is shown.

    Returns:
        The object of `--json`.

    Raises:
        fedavg.FedAvgError, dp.DPError, secagg.SecAggError: settings that cannot keep the promise, or data or a folder
            that cannot be used; nothing was charged.
        fedavg.RoundAborted: the run began and could not go on.
    """
    seed = settings.simulation_seed
    entropy = fedavg.RunEntropy() if seed is None else fedavg.RunEntropy.seeded(seed)
    if settings.ledger is not None and not Path(settings.ledger).exists():
        raise fedavg.ParameterError(
            f"there is no ledger {settings.ledger}; make one with veilsum budget share"
        )
    if settings.dropout > settings.tolerance:
        raise fedavg.ParameterError(
            f"--dropout {settings.dropout:g} silences more clients than --tolerance {settings.tolerance:g} lets a round"
            " lose; raise --tolerance, or lower --dropout"
        )
    data = _load(settings, screen)
    folder = _folder(settings, data.name, screen)
    setup = Setup(settings, data)
    _announce(settings, data, folder, screen)
    ledger = settings.ledger or folder / "operator" / "ledger.sqlite"  # As the user would write it.
    with _told_apart(Path(ledger)):
        result = _train(setup, folder, entropy, screen)
    if not result.rounds:
        raise fedavg.ParameterError(result.stopped or "no round was run")
    if result.stopped:
        screen.warn(f"stopped after {len(result.rounds)} rounds: {result.stopped}")
    figures = _figures(data.name, result, ledger, _write_report(setup, folder, result, screen))
    _show(settings, figures, result, folder, screen)
    return figures


def _load(settings: Settings, screen: Screen) -> datasets.Dataset:
    try:
        with screen.download(f"fetching {settings.dataset}") as progress:
            return datasets.load(settings.dataset, progress=progress, notice=screen.warn)
    except datasets.RegistryUnavailable as error:
        if not settings.fallback:
            raise datasets.RegistryUnavailable(
                f"{error}; or simulate digits, which is embedded", reason=error.reason
            ) from error
        screen.warn(
            f"{error.reason}, so this run trains on digits, which is embedded, instead of {settings.dataset}."
        )
        return datasets.load("digits")


def _folder(settings: Settings, dataset: str, screen: Screen) -> Path:
    """Where the run goes; a run that is already there is continued, put aside, or left alone, as asked."""
    folder = Path(settings.output or Path("veilsum-runs") / dataset)
    if settings.resume or not (folder / "operator").exists():
        return folder
    if not settings.fresh:
        raise fedavg.CheckpointError(
            f"{folder} already holds a run; continue it with --resume, put it aside with --fresh, or name another"
            " folder with --output"
        )
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    try:
        folder.rename(aside)
    except OSError as error:
        raise fedavg.CheckpointError(
            f"{folder} cannot be put aside as {aside}: {error.strerror or error}; name another folder with --output"
        ) from error
    screen.line(f"The run that was in {folder} is now in {aside}.")
    return folder


def _announce(settings: Settings, data: datasets.Dataset, folder: Path, screen: Screen) -> None:
    population, cohort = settings.preset("population", data.name), settings.preset("cohort", data.name)
    screen.say(
        f"Training on {data.name} over {population:,} simulated clients of"
        f" {settings.preset('examples_per_client', data.name)} examples, {cohort:,} drawn a round on average,"
        f" {_counted(settings.preset('rounds', data.name), 'round')}. The server only ever receives masked vectors"
        " whose sum is already noised."
    )
    screen.say(f"Data: {data.source}. Licence: {data.licence}.")
    screen.line(f"Run folder: {folder}")
    if warning := dp.delta_warning(delta=settings.delta, population=population):
        screen.warn(warning)
    screen.line("")


@contextmanager
def _told_apart(ledger: Path) -> Iterator[None]:
    """What ends a run after a round was charged is no refusal: it leaves with the other exit code."""
    before = _charged(ledger)
    try:
        yield
    except fedavg.RoundAborted:
        raise
    except (fedavg.FedAvgError, dp.DPError, secagg.SecAggError) as error:
        if _charged(ledger) == before:
            raise
        raise fedavg.RoundAborted(str(error), charged=True) from error


def _charged(ledger: Path) -> int:
    """Rounds charged to a ledger; none where there is none that can be read."""
    try:
        return dp.Ledger.open(ledger).charged
    except dp.LedgerError:
        return 0


def _train(setup: Setup, folder: Path, entropy: fedavg.RunEntropy, screen: Screen) -> fedavg.Result:
    settings, data, model = setup.settings, setup.data, setup.model
    arguments = setup.arguments()
    with screen.rounds(setup.rounds) as advance, _recording(settings, arguments) as record:
        lines = _RoundLines(screen)

        def finished(report: fedavg.RoundReport) -> None:
            keep(settings, data.name, folder)
            lines.show(report)
            advance(report.round)

        return fedavg.train(
            **arguments,
            evaluate=lambda weights: {"accuracy": model.accuracy(weights, (data.test_x, data.test_y))},
            on_round=finished,
            entropy=entropy,
            folder=folder,
            resume=settings.resume,
            record=record,
            ledger=settings.ledger,
            backend=settings.backend,
        )


@contextmanager
def _recording(settings: Settings, arguments: Mapping[str, Any]) -> Iterator[Record | None]:
    """Record what the server receives, if that was asked for."""
    if settings.record is None:
        yield None
        return
    names = ("step", "clients", "weights", "rounds", "cohort_size", "privacy", "secure", "metrics", "task")
    plan = fedavg.Federation(**{name: arguments[name] for name in names}).plan
    with Recorder(settings.record, plan, resume=settings.resume) as recorder:
        yield recorder


class _RoundLines:
    """One line a round, under a heading that comes with the first."""

    _HEADING = "  round   cohort  survivors  up/client  accuracy  eps readers  eps server"

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._begun = False

    def show(self, report: fedavg.RoundReport) -> None:
        if not self._begun:
            self._begun = True
            if report.round > 1:
                self._screen.line(f"Continuing after round {report.round - 1} of {report.rounds}.")
            self._screen.line(self._HEADING, style="bold")
        self._screen.line(
            f"{f'{report.round}/{report.rounds}':>7} {report.cohort:>8,} {report.survivors:>10,}"
            f" {bytes_text(report.bytes_up_per_client):>10} {report.evaluation['accuracy']:>9.4f}"
            f" {epsilon_text(report.epsilon.readers):>12} {epsilon_text(report.epsilon.server):>11}"
        )


def _write_report(setup: Setup, folder: Path, result: fedavg.Result, screen: Screen) -> Path | None:
    settings, data = setup.settings, setup.data
    facts = {
        "Data": f"{data.source}; {settings.preset('examples_per_client', data.name)} examples a client, labels"
        f" dealt by Dirichlet({settings.concentration:g})",
        "Licence of the data": data.licence,
        "Model": f"softmax regression, {settings.local_epochs} local epochs, learning rate"
        f" {settings.learning_rate:g}; server momentum {settings.server_momentum:g}",
        "Simulated dropout": f"{settings.dropout:.3g} of the cohort in each round",
    }
    title = f"{data.name}, {settings.preset('population', data.name):,} clients"
    try:
        return report.write(folder, result, command=setup.command(), title=title, facts=facts)
    except report.MissingLibrary as error:
        screen.warn(f"no page was written: {error}, then veilsum report {folder}")
        return None


def _figures(dataset: str, result: fedavg.Result, ledger: Path | str, page: Path | None) -> dict[str, Any]:
    """The object of `--json`: these keys and no others."""
    last, plan, sampler = result.rounds[-1], result.plan, result.sampler
    readers, server = result.statement.readers, result.statement.server
    return {
        "dataset": dataset,
        "rounds": len(result.rounds),
        "accuracy": last.evaluation["accuracy"],
        "epsilon": {"readers": _finite(readers.epsilon), "server": _finite(server.epsilon)},
        "delta": readers.delta,
        "noise_multiplier": plan.mechanism.noise_multiplier,
        "population": sampler.population,
        "cohort": sampler.cohort_size,
        "min_survivors": plan.minimum_survivors,
        "bytes_up_per_client": max(kept.bytes_up_per_client for kept in result.rounds),
        "ledger": str(ledger),
        "report": None if page is None else str(page),
    }


def _show(
    settings: Settings, figures: Mapping[str, Any], result: fedavg.Result, folder: Path, screen: Screen
) -> None:
    readers, server = result.statement.readers, result.statement.server
    screen.heading("Result")
    screen.facts(
        {
            "test accuracy": f"{figures['accuracy']:.4f} after {_counted(figures['rounds'], 'round')}",
            "epsilon": f"{epsilon_text(readers.epsilon)} against readers of the model,"
            f" {epsilon_text(server.epsilon)} against the server",
            "delta": f"{figures['delta']:g}",
            "noise multiplier": f"{figures['noise_multiplier']:.4g} times the joint sensitivity",
            "clip": f"{settings.clip:g} (l2 norm of a client's update)",
            "population": f"{figures['population']:,} clients, {result.sampler.expected:g} drawn a round on average",
            "cohort": f"{figures['cohort']:,} invited in every round, at least {figures['min_survivors']:,} in the sum",
            "server": "assumed to follow the protocol"
            if settings.adversary == "semi_honest"
            else "assumed to be malicious: signed keys, complete graph, clients agree who is in the sum",
            "ring": f"{result.plan.modulus_bits} bits",
            "up per client": f"{bytes_text(figures['bytes_up_per_client'])} a round",
        }
    )
    screen.heading("Privacy, in words")
    if is_simulation(result.statement):
        screen.paragraph("This run was seeded: simulation, no guarantee.")
        screen.line("")
    cards, shared = promises(result.statement)
    for card in cards:
        screen.paragraph(card.claim)
        for assumption in card.assumptions:
            screen.paragraph(assumption, bullet="-")
        screen.line("")
    screen.paragraph("Both rest on this:")
    for assumption in shared:
        screen.paragraph(assumption, bullet="-")
    screen.line("")
    screen.line(f"Report:  {figures['report'] or 'none'}", style="bold")
    screen.line(f"Model:   {folder / 'public' / 'model.npz'}")
    screen.line(f"Ledger:  {figures['ledger']}")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None
