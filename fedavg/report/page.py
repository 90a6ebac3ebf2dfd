"""The report: one page that needs nothing else, written into a run's public folder.

It holds what readers of the model may see and nothing more: released figures, noised metrics, the padded cohort and
its survivors, both statements with all their assumptions, an audit's figures if there was one. The page loads nothing,
runs no script and forbids itself to; it follows the reader's light or dark setting and prints.

Needs matplotlib and jinja2 (extra `report`), imported when a page is made.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedavg.errors import CheckpointError, FedAvgError
from fedavg.report.figures import audit_plot, plots
from fedavg.report.view import View
from fedavg.report.wording import bytes_text, epsilon_text, plain, promises

if TYPE_CHECKING:
    from fedavg.federation import Result, RoundReport

__all__ = ["MissingLibrary", "render", "rewrite", "write"]


class MissingLibrary(FedAvgError):
    """The report needs a library that is not installed."""


def write(
    folder: str | Path,
    result: Result,
    *,
    title: str = "Federated run",
    facts: Mapping[str, str] | None = None,
    command: str | None = None,
    example_level: str | None = None,
) -> Path:
    """Write `public/report.html` into a run folder, and beside it what the page is made from.

    That is written first: where a library is missing, `rewrite` can make the page once it is there.

    Args:
        folder: The run's folder.
        result: What `fedavg.train` returned, with at least one round.
        title: The page's heading.
        facts: More rows for the table of settings: where the data came from, what was trained.
        command: The command that makes such a run again.
        example_level: A statement on DP-SGD inside a client, such as `dp.tensorflow_privacy.example_level_statement`
            gives; it stands beside the run's own.

    Returns:
        Where the page is.

    Raises:
        MissingLibrary: matplotlib or jinja2 is not installed.
        CheckpointError: the page cannot be written there.
    """
    view = View.of(result, title=title, facts=facts, command=command, example_level=example_level)
    public = Path(folder) / "public"
    try:
        public.mkdir(parents=True, exist_ok=True)
        view.save(public)
    except OSError as error:
        raise _unwritable(public / "report.html", error) from error
    return _put(render(view), public / "report.html")


def rewrite(folder: str | Path, *, output: str | Path | None = None) -> Path:
    """Make the page of a run folder again, from what its public folder holds.

    Args:
        folder: The run's folder, in which a report was written before.
        output: Another place for the page.

    Returns:
        Where the page is.

    Raises:
        MissingLibrary: matplotlib or jinja2 is not installed.
        CheckpointError: there is nothing to make a page from, or it cannot be written.
    """
    page = render(View.load(Path(folder)))
    return _put(page, Path(folder) / "public" / "report.html" if output is None else Path(output))


def _put(page: str, target: Path) -> Path:
    beside = target.with_name(target.name + ".part")
    try:
        beside.write_text(page, encoding="utf-8")
        os.replace(beside, target)
    except OSError as error:
        raise _unwritable(target, error) from error
    return target


def _unwritable(target: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"the report {target} cannot be written: {error.strerror or error}; free the place, or give another folder"
    )


def render(view: View) -> str:
    """Return the page's HTML.

    Raises:
        MissingLibrary: matplotlib or jinja2 is not installed.
    """
    for name in ("matplotlib", "jinja2"):
        if importlib.util.find_spec(name) is None:
            raise MissingLibrary(
                f"the report needs {name}, which is not installed; pip install 'veilsum[report]'"
            )
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates = files("fedavg.report") / "templates"
    template = environment.from_string((templates / "report.html").read_text("utf-8"))
    statements, shared = promises(view.statement)
    return template.render(
        view=view,
        style=(templates / "report.css").read_text("utf-8"),
        planned=view.rounds[-1].rounds,
        run=len(view.rounds),
        plain=plain(view.statement, masked=view.masked, fewest=view.minimum_survivors),
        figures=_figures(view),
        plots=plots(view),
        statements=statements,
        shared=shared,
        audit=None if view.audit is None else _audit(view.audit),
        columns=_columns(view.rounds),
        rounds=[_row(report) for report in view.rounds],
    )


def _figures(view: View) -> list[tuple[str, str, str]]:
    """The figures at the top: name, value, what goes with it."""
    last = view.rounds[-1]
    readers, server = view.statement.readers, view.statement.server
    figures = [
        (f"Test {name}", f"{value:.4g}", "of the final model") for name, value in last.evaluation.items()
    ]
    most = max(report.bytes_up_per_client for report in view.rounds)
    return [
        *figures,
        ("Epsilon, readers", epsilon_text(readers.epsilon), f"delta {readers.delta:g}"),
        ("Epsilon, server", epsilon_text(server.epsilon), f"delta {server.delta:g}"),
        ("Sent by a client", bytes_text(most), "a round"),
    ]


def _audit(audit: Mapping[str, Any]) -> dict[str, Any]:
    """An audit as the page shows it."""
    figures, promised = audit["epsilon"], audit["epsilon"]["promised"]
    svg, caption = audit_plot(audit)
    return {
        "canaries": audit["canaries"],
        "participations": audit["participations"],
        "significance": audit["significance"],
        "bound": f"{figures['lower_bound']:.3f}",
        "estimate": f"{figures['estimate']:.3f}",
        "promised": epsilon_text(float("inf") if promised is None else promised),
        "findings": audit["findings"],
        "flagged": audit["flagged"],
        "svg": svg,
        "caption": caption,
    }


def _columns(rounds: Sequence[RoundReport]) -> list[str]:
    last = rounds[-1]
    return [
        "Round",
        "Invited",
        "Survivors",
        *(f"Test {name}" for name in last.evaluation),
        *(f"Clients' {name}, noised" for name in last.metrics),
        *(["Clip"] if last.l2_clip_norm is not None else []),
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
        *([f"{report.l2_clip_norm:.4g}"] if report.l2_clip_norm is not None else []),
        epsilon_text(report.epsilon.readers),
        epsilon_text(report.epsilon.server),
    ]
