"""The report: one page that needs nothing else, written into a run's public folder.

It holds what readers of the model may see and nothing more: released figures, noised metrics, the padded cohort and
its survivors, both statements with all their assumptions. The page loads nothing, runs no script and forbids itself
to; it follows the reader's light or dark setting and prints.

Needs matplotlib and jinja2 (extra `report`), imported when a page is made.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedavg.errors import CheckpointError, FedAvgError
from fedavg.report.plots import Line, line_plot
from fedavg.report.wording import bytes_text, epsilon_text, is_simulation, promises

if TYPE_CHECKING:
    from fedavg.federation import Result, RoundReport

__all__ = ["MissingLibrary", "render", "write"]


class MissingLibrary(FedAvgError):
    """The report needs a library that is not installed."""


def write(
    folder: str | Path,
    result: Result,
    *,
    title: str = "Federated run",
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write `public/report.html` into a run folder.

    Args:
        folder: The run's folder.
        result: What `fedavg.train` returned, with at least one round.
        title: The page's heading.
        facts: More rows for the table of settings: where the data came from, what was trained.

    Returns:
        Where the page is.

    Raises:
        MissingLibrary: matplotlib or jinja2 is not installed.
        CheckpointError: the page cannot be written there.
    """
    page = render(result, title=title, facts=facts or {})
    target = Path(folder) / "public" / "report.html"
    beside = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(page, encoding="utf-8")
        os.replace(beside, target)
    except OSError as error:
        raise CheckpointError(
            f"the report {target} cannot be written: {error.strerror or error}; free the place, or give another folder"
        ) from error
    return target


def render(result: Result, *, title: str, facts: Mapping[str, str]) -> str:
    """Return the page's HTML; arguments and errors as for `write`."""
    for name in ("matplotlib", "jinja2"):
        if importlib.util.find_spec(name) is None:
            raise MissingLibrary(
                f"the report needs {name}, which is not installed; pip install 'veilsum[report]'"
            )
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        (files("fedavg.report") / "templates" / "report.html").read_text("utf-8")
    )
    statements, shared = promises(result.statement)
    return template.render(
        title=title,
        style=(files("fedavg.report") / "templates" / "report.css").read_text("utf-8"),
        seeded=is_simulation(result.statement),
        masked=result.plan.secure.masked,
        stopped=result.stopped,
        population=result.sampler.population,
        planned=result.rounds[-1].rounds,
        run=len(result.rounds),
        figures=_figures(result),
        plots=_plots(result),
        statements=statements,
        shared=shared,
        settings={**facts, **_settings(result)},
        columns=_columns(result.rounds),
        rounds=[_row(report) for report in result.rounds],
    )


def _figures(result: Result) -> list[tuple[str, str, str]]:
    """The figures at the top: name, value, what goes with it."""
    last = result.rounds[-1]
    readers, server = result.statement.readers, result.statement.server
    figures = [
        (f"Test {name}", f"{value:.4g}", "of the final model") for name, value in last.evaluation.items()
    ]
    return [
        *figures,
        ("Epsilon, readers", epsilon_text(readers.epsilon), f"delta {readers.delta:g}"),
        ("Epsilon, server", epsilon_text(server.epsilon), f"delta {server.delta:g}"),
        ("Sent by a client", bytes_text(_most_bytes(result.rounds)), "a round"),
    ]


def _most_bytes(rounds: Sequence[RoundReport]) -> int:
    return max(report.bytes_up_per_client for report in rounds)


def _plots(result: Result) -> list[tuple[str, str, str]]:
    """The plots: heading, SVG, caption."""
    plots = [_epsilon_plot(result), _cohort_plot(result)]
    return ([_accuracy_plot(result.rounds)] if result.rounds[-1].evaluation else []) + plots


def _accuracy_plot(rounds: Sequence[RoundReport]) -> tuple[str, str, str]:
    """The first measure that is evaluated, and beside it what clients report of it under noise."""
    measure = next(iter(rounds[-1].evaluation))
    values = [report.evaluation[measure] for report in rounds]
    lines = [Line(label=f"test {values[-1]:.4g}", values=values, series="model")]
    caption = f"Test {measure} of the released model after each round."
    seen = list(values)
    share = all(0 <= value <= 1 for value in seen)
    low = math.floor(min(seen) * 10) / 10 if share else min(seen)
    limits = (low if low < 0.95 else 0.9, 1.0) if share else (low, max(max(seen), low + 1e-9))
    svg = line_plot(
        lines,
        name="accuracy",
        title=f"Test {measure} by round",
        description=f"From {values[0]:.4g} after round 1 to {values[-1]:.4g} after round {len(values)}.",
        limits=limits,
    )
    return f"Test {measure}", svg, caption


def _epsilon_plot(result: Result) -> tuple[str, str, str]:
    rounds = result.rounds
    costs = {
        "server": [report.epsilon.server for report in rounds],
        "readers": [report.epsilon.readers for report in rounds],
    }
    lines = [
        Line(label=f"{observer} {epsilon_text(values[-1])}", values=values, series=observer)
        for observer, values in costs.items()
        if all(map(math.isfinite, values))
    ]
    budgets = {"readers": result.privacy.readers_epsilon, "server": result.privacy.server_epsilon}
    lines += [
        Line(values=[budget] * len(rounds), series=observer, quiet=True)
        for observer, budget in budgets.items()
        if budget is not None
    ]
    words = [
        f"{observer}: from {epsilon_text(v[0])} to {epsilon_text(v[-1])}" for observer, v in costs.items()
    ]
    seen = [value for line in lines for value in line.values if value > 0] or [1.0]
    svg = line_plot(
        lines or [Line(values=[1.0] * len(rounds), series="floor", quiet=True)],
        name="epsilon",
        title="Epsilon spent by round, against each observer",
        description="; ".join(words) + ".",
        limits=(min(seen) / 1.25, max(seen) * 1.25),
        logarithmic=True,
    )
    caption = (
        "What the rounds so far cost one client, against each observer (logarithmic scale). The server knows who was"
        " drawn, so sampling does not help against it."
    )
    if (cap := result.privacy.max_participations) is not None and cap < len(rounds):
        caption += f" Against it the cost stops growing once a client has contributed {cap} times, its cap."
    if any(budget is not None for budget in budgets.values()):
        caption += " Dashed: the budgets."
    if not all(map(math.isfinite, costs["server"])):
        caption += " Against the server epsilon is infinite and is not drawn."
    return "Privacy spent", svg, caption


def _cohort_plot(result: Result) -> tuple[str, str, str]:
    cohort = [float(report.cohort) for report in result.rounds]
    survivors = [float(report.survivors) for report in result.rounds]
    floor = float(result.plan.minimum_survivors)
    room = max(cohort[-1] - min(*survivors, floor), 4.0) * 0.2
    svg = line_plot(
        [
            Line(label=f"invited {cohort[-1]:,.0f}", values=cohort, series="invited"),
            Line(label=f"survivors {survivors[-1]:,.0f}", values=survivors, series="model", steps=True),
            Line(label=f"fewest {floor:,.0f}", values=[floor] * len(cohort), series="floor", quiet=True),
        ],
        name="cohort",
        title="Cohort and survivors by round",
        description=(
            f"{cohort[-1]:,.0f} clients invited in every round; between {min(survivors):,.0f} and"
            f" {max(survivors):,.0f} survived; at least {floor:,.0f} must."
        ),
        limits=(min(*survivors, floor) - room, cohort[-1] + room),
        tick_text="{:,.0f}".format,
    )
    caption = (
        "Clients invited, clients whose masked vector is in the sum, and the fewest that the noise is sized for. The"
        " invited cohort is padded to a fixed size: who was drawn, and how many, appears nowhere."
    )
    return "Cohort and survivors", svg, caption


def _settings(result: Result) -> dict[str, str]:
    plan, sampler, privacy = result.plan, result.sampler, result.privacy
    return {
        "Population": f"{sampler.population:,} clients",
        "Drawn": f"{sampler.expected:g} a round on average, each by its own coin of probability"
        f" {sampler.sampling_rate:.4g}",
        "Invited": f"{sampler.cohort_size:,} in every round",
        "In the sum": f"at least {plan.minimum_survivors:,}, of whom {plan.honest_survivors:,} are counted as honest",
        "Clip": f"{privacy.l2_clip_norm:g} (l2 norm of a client's update)",
        "Noise multiplier": f"{plan.mechanism.noise_multiplier:.6g} times the joint sensitivity, from the honest"
        " survivors alone",
        "Delta": f"{privacy.delta:g}",
        "Participations": "every round"
        if privacy.max_participations is None
        else f"at most {privacy.max_participations} a client",
        "Ring": f"integers modulo 2^{plan.modulus_bits}",
        "Values in a vector": f"{plan.encoding.dimension:,}",
        "Sent by a client": f"{bytes_text(_most_bytes(result.rounds))} a round: keys, shares and masked vector",
    }


def _columns(rounds: Sequence[RoundReport]) -> list[str]:
    last = rounds[-1]
    return [
        "Round",
        "Invited",
        "Survivors",
        *(f"Test {name}" for name in last.evaluation),
        *(f"Clients' {name}, noised" for name in last.metrics),
        "Epsilon, readers",
        "Epsilon, server",
    ]


def _row(report: RoundReport) -> list[str]:
    values: list[Any] = [*report.evaluation.values(), *report.metrics.values()]
    return [
        str(report.round),
        f"{report.cohort:,}",
        f"{report.survivors:,}",
        *(f"{value:.4f}" for value in values),
        epsilon_text(report.epsilon.readers),
        epsilon_text(report.epsilon.server),
    ]
