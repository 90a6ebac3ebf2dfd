"""The page's plots, drawn with matplotlib as SVG that takes its colours and its font from the page.

Colours are drawn as placeholders and replaced by the page's own CSS variables, so one drawing serves light, dark and
paper. Text stays text: it can be selected, searched and read aloud.

Matplotlib is imported here and nowhere else, inside the functions that need it.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["Line", "line_plot", "score_plot"]

# Placeholder colour -> what the page puts in its place.
_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_PALETTE = {_INK: "currentColor", _MUTED: "var(--muted)", _GRID: "var(--grid)"}
_SERIES = {
    "model": "#040404",
    "readers": "#050505",
    "server": "#060606",
    "invited": "#070707",
    "floor": "#080808",
}
_PALETTE |= {colour: f"var(--{name})" for name, colour in _SERIES.items()}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "veilsum",
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.linewidth": 1.0,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "path.simplify": False,
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a plot.

    Args:
        values: One number a round.
        series: Whose line it is: "model", "readers", "server", "invited" or "floor"; a colour of the page.
        label: Written at its end.
        quiet: A thin dashed line: a limit, not something that happened.
        steps: Draw it as steps: the value belongs to the round, not to a moment.
    """

    values: Sequence[float]
    series: str
    label: str = ""
    quiet: bool = False
    steps: bool = False


def line_plot(
    lines: Sequence[Line],
    *,
    name: str,
    title: str,
    description: str,
    limits: tuple[float, float],
    logarithmic: bool = False,
    tick_text: Callable[[float], str] = "{:g}".format,
) -> str:
    """Draw lines over rounds.

    Args:
        lines: At least one; all over the same rounds, from 1.
        name: Unlike any other plot's on the page; prefixes every id.
        title: For screen readers.
        description: For screen readers: what the plot shows, in a sentence.
        limits: Of the value axis.
        logarithmic: Scale of the value axis.
        tick_text: How values are written on the axis.

    Returns:
        An `<svg>` element.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with _quiet(), rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 2.7))
        axes = figure.add_axes((0.065, 0.15, 0.765, 0.82))
        for line in lines:
            _draw(axes, line)
        rounds = max(len(line.values) for line in lines)
        axes.set_xlim(min(1, rounds - 1), max(rounds, 2) if rounds > 1 else 2)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(_nothing())
            axes.set_yticks([tick for tick in _one_two_five() if limits[0] <= tick <= limits[1]])
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=limits[1] > 10))
        axes.set_ylim(*limits)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
        axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True))
        axes.set_xlabel("round", color=_MUTED, labelpad=4)
        axes.grid(axis="y", color=_GRID, linewidth=1)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=5)
        for side in ("left", "right", "top"):
            axes.spines[side].set_visible(False)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_the_page(drawn.getvalue().decode(), name, title, description)


def score_plot(
    edges: Sequence[float],
    counts: Mapping[str, Sequence[int]],
    *,
    labels: Mapping[str, str],
    name: str,
    title: str,
    description: str,
) -> str:
    """Draw histograms over the same bins.

    Args:
        edges: Of the bins, ascending, one more than counts.
        counts: Series to how many fell into each bin.
        labels: Series to what stands beside it.
        name: Unlike any other plot's on the page; prefixes every id.
        title: For screen readers.
        description: For screen readers: what the plot shows, in a sentence.

    Returns:
        An `<svg>` element.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with _quiet(), rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 2.7))
        axes = figure.add_axes((0.065, 0.17, 0.765, 0.8))
        most = max(max(values) for values in counts.values())
        for place, (series, values) in enumerate(counts.items()):
            colour = _SERIES[series]
            axes.stairs(values, edges, color=colour, linewidth=2.0)
            axes.stairs(values, edges, color=colour, fill=True, alpha=0.2)
            axes.annotate(
                labels[series],
                (edges[-1], most * (0.92 - 0.16 * place)),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                annotation_clip=False,
            )
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel("score", color=_MUTED, labelpad=4)
        axes.grid(axis="y", color=_GRID, linewidth=1)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=5)
        for side in ("left", "right", "top"):
            axes.spines[side].set_visible(False)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_the_page(drawn.getvalue().decode(), name, title, description)


def _draw(axes: Any, line: Line) -> None:
    colour = _SERIES[line.series]
    rounds = range(1, len(line.values) + 1)
    axes.plot(
        rounds,
        line.values,
        color=colour,
        linewidth=1.2 if line.quiet else 2.0,
        linestyle=(0, (4, 3)) if line.quiet else "-",
        drawstyle="steps-mid" if line.steps else "default",
        marker="" if line.quiet or len(line.values) > 15 else "o",
        markersize=4,
        solid_capstyle="round",
        clip_on=False,
    )
    axes.annotate(
        line.label,
        (rounds[-1], line.values[-1]),
        xytext=(9, 0),
        textcoords="offset points",
        va="center",
        color=colour,
        annotation_clip=False,
    )


def _one_two_five() -> Iterator[float]:
    for exponent in range(-4, 5):
        yield from (step * 10.0**exponent for step in (1, 2, 5))


def _nothing() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _for_the_page(svg: str, name: str, title: str, description: str) -> str:
    """Turn a file into an element: the page's colours and font, ids of its own, a title and a description."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href="|href="|url\()#', rf"\1#{name}-", svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    for colour, replacement in _PALETTE.items():
        svg = svg.replace(colour, replacement)
    opening = re.match(r"<svg[^>]*>", svg)
    box = re.search(r'viewBox="[^"]+"', svg)
    if opening is None or box is None:
        return svg
    head = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box.group()} role="img"'
        f' aria-labelledby="{name}-title {name}-description">'
        f'<title id="{name}-title">{_escape(title)}</title>'
        f'<desc id="{name}-description">{_escape(description)}</desc>'
    )
    return head + svg[opening.end() :]


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep matplotlib's talk about its font cache out of everybody's terminal."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
