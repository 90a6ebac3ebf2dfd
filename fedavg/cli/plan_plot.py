"""The picture of a plan: epsilon against rounds for several noise multipliers, and noise against the cohort.

Matplotlib (extra `report`) is imported when a picture is drawn.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

from fedavg.cli.plan import Asked, Planned, plan, varied
from fedavg.errors import ParameterError

__all__ = ["draw"]

_MULTIPLIERS = (0.5, 0.75, 1.0, 1.5, 2.0)
_ROUNDS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
_COHORTS = (0.25, 0.5, 1.0, 2.0, 4.0)
_READERS, _SERVER, _INK, _MUTED, _GRID = "#0b62a8", "#b34700", "#1b1f24", "#5b6470", "#e3e6ea"
_SHADES = ("#9ecae9", "#5fa8d6", "#0b62a8", "#08457a", "#042b4d")


def draw(asked: Asked, planned: Planned, target: Path) -> None:
    """Draw a plan as PNG.

    Args:
        asked: The plan.
        planned: Its answer.
        target: Where the picture goes; what is there is replaced.

    Raises:
        ParameterError: matplotlib is missing, or the picture cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ParameterError("--plot needs matplotlib, which is not installed; pip install 'veilsum[report]'")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    answer = planned.answer
    asked = varied(
        asked,
        population=answer["population"],
        cohort=answer["expected"],
        rounds=answer["rounds"],
        delta=answer["delta"],
        noise_multiplier=answer["noise_multiplier"],
    )
    with rc_context(
        {"font.size": 10, "axes.edgecolor": _MUTED, "text.color": _INK, "axes.titleweight": "bold"}
    ):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _against_rounds(left, asked)
        _against_cohorts(right, asked)
        figure.suptitle(
            f"{asked.population:,} clients, {asked.cohort:,.6g} drawn a round, delta {asked.delta:g},"
            f" {asked.mechanism.value.replace('_', ' ')}",
            fontsize=11,
        )
        try:
            figure.savefig(target, format="png", dpi=110)
        except OSError as error:
            raise ParameterError(
                f"the picture {target} cannot be written: {error.strerror or error}; give another path"
            ) from error


def _against_rounds(axes: Any, asked: Asked) -> None:
    """Epsilon against readers for several multipliers, and against the server for the plan's own."""
    chosen, planned = asked.noise_multiplier or 1.0, asked.rounds or 1
    rounds = sorted({max(1, round(planned * share)) for share in _ROUNDS})
    for factor, shade in zip(_MULTIPLIERS, _SHADES, strict=True):
        values = [
            _epsilons(asked, noise_multiplier=chosen * factor, rounds=count)["readers"] for count in rounds
        ]
        _line(axes, rounds, values, shade, f"z = {chosen * factor:.3g}", width=2.6 if factor == 1 else 1.6)
    server = [_epsilons(asked, rounds=count)["server"] for count in rounds]
    if all(value is not None for value in server):
        _line(axes, rounds, server, _SERVER, f"server, z = {chosen:.3g}", width=2.0, style="--")
    _finish(axes, "Epsilon against readers, by noise multiplier", "rounds", "epsilon (logarithmic)")
    axes.axvline(planned, color=_MUTED, linewidth=1, linestyle=":")


def _against_cohorts(axes: Any, asked: Asked) -> None:
    """Noise on the average, and epsilon against readers, as the cohort grows and the multiplier stays."""
    population, drawn = asked.population or 1, asked.cohort or 1.0
    cohorts = sorted({max(1, min(population, round(drawn * share))) for share in _COHORTS})
    plans = [plan(varied(asked, cohort=cohort, clip=asked.clip or 1.0)) for cohort in cohorts]
    noise = [made.noise.per_coordinate for made in plans if made.noise is not None]
    unit = "units of the update" if asked.clip is not None else "of the clip"
    _line(axes, cohorts, noise, _READERS, "noise")
    _line(
        axes,
        cohorts,
        [made.answer["epsilon"]["readers"] for made in plans],
        _SERVER,
        "epsilon, readers",
        style="--",
    )
    _finish(
        axes,
        f"Noise in a coordinate of the average ({unit})",
        "clients drawn a round",
        "noise; epsilon (logarithmic)",
    )
    axes.axvline(drawn, color=_MUTED, linewidth=1, linestyle=":")


def _epsilons(asked: Asked, **figures: Any) -> Any:
    return plan(varied(asked, **figures)).answer["epsilon"]


def _line(
    axes: Any,
    places: list[int],
    values: list[float],
    colour: str,
    label: str,
    *,
    width: float = 2.0,
    style: str = "-",
) -> None:
    axes.plot(places, values, color=colour, linewidth=width, linestyle=style, marker="o", markersize=3.5)
    if values and math.isfinite(values[-1]):
        axes.annotate(
            label, (places[-1], values[-1]), xytext=(6, 0), textcoords="offset points", va="center", color=colour,
            annotation_clip=False, fontsize=9,
        )  # fmt: skip


def _finish(axes: Any, title: str, across: str, up: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_title(title, fontsize=10.5, loc="left")
    axes.set_xlabel(across, color=_MUTED)
    axes.set_ylabel(up, color=_MUTED)
    axes.set_yscale("log")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(_places(axes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.grid(axis="y", which="both", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    left, right = axes.get_xlim()
    axes.set_xlim(left, right * (right / left) ** 0.22)  # Room for the labels.
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)


def _places(axes: Any) -> Any:
    from matplotlib.ticker import FixedLocator

    return FixedLocator(sorted({float(x) for line in axes.get_lines() for x in line.get_xdata()}))
