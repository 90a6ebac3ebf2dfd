"""The plots of a report: heading, drawing, caption.

Not here: how anything is drawn (`fedavg.report.plots`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedavg.report.plots import Line, line_plot, score_plot
from fedavg.report.view import View
from fedavg.report.wording import epsilon_text, is_padded, is_self_sampled

if TYPE_CHECKING:
    from fedavg.federation import RoundReport

__all__ = ["audit_plot", "plots"]


def plots(view: View) -> list[tuple[str, str, str]]:
    """The plots: heading, SVG, caption."""
    plots = [_epsilon_plot(view), _cohort_plot(view)]
    return ([_accuracy_plot(view.rounds)] if view.rounds[-1].evaluation else []) + plots


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


def _epsilon_plot(view: View) -> tuple[str, str, str]:
    rounds = view.rounds
    costs = {
        "server": [report.epsilon.server for report in rounds],
        "readers": [report.epsilon.readers for report in rounds],
    }
    lines = [
        Line(label=f"{observer} {epsilon_text(values[-1])}", values=values, series=observer)
        for observer, values in costs.items()
        if all(map(math.isfinite, values))
    ]
    budgets = view.budgets
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
    caption = "What the rounds so far cost one client, against each observer (logarithmic scale). "
    own_coins = is_self_sampled(view.statement)
    caption += (
        "The server knows who carried and not whose own coin let its data in: of all sampling that coin alone helps"
        " against it."
        if own_coins
        else "The server knows who was drawn, so sampling does not help against it."
    )
    if (cap := view.cap) is not None and cap < len(rounds) and not own_coins:
        caption += f" Against it the cost stops growing once a client has contributed {cap} times, its cap."
    if any(budget is not None for budget in budgets.values()):
        caption += " Dashed: the budgets."
    if not all(map(math.isfinite, costs["server"])):
        caption += " Against the server epsilon is infinite and is not drawn."
    return "Privacy spent", svg, caption


def _cohort_plot(view: View) -> tuple[str, str, str]:
    cohort = [float(report.cohort) for report in view.rounds]
    survivors = [float(report.survivors) for report in view.rounds]
    floor = float(view.minimum_survivors)
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
        "Clients invited, clients whose masked vector is in the sum, and the fewest that the noise is sized for. "
    ) + (
        "The invited cohort is padded to a fixed size: who was drawn, and how many, appears nowhere."
        if is_padded(view.statement)
        else "As many clients are drawn in every round, so how many were is no secret."
    )
    return "Cohort and survivors", svg, caption


def audit_plot(audit: Mapping[str, Any]) -> tuple[str, str]:
    """How canaries scored: drawing and caption."""
    scores = audit["scores"]
    included, excluded = sum(scores["included"]), sum(scores["excluded"])
    svg = score_plot(
        scores["edges"],
        {"server": scores["included"], "readers": scores["excluded"]},
        labels={"server": f"took part ({included:,})", "readers": f"sent zeros ({excluded:,})"},
        name="canaries",
        title="Scores of canaries that took part, and of those that did not",
        description=f"Two histograms over the same scores, {included:,} canaries that took part to the right of"
        f" {excluded:,} that sent zeros; the more they overlap, the less is given away.",
    )
    caption = (
        "How far the released sums lean towards each canary, in deviations of one round's noise. The more the two"
        " overlap, the less is given away."
    )
    return svg, caption
