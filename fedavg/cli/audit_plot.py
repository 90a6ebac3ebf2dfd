"""The picture of an audit: how canaries that took part score beside those that did not.

Matplotlib (extra `report`) is imported when a picture is drawn.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from fedavg.auditing import Audit
from fedavg.errors import ParameterError
from fedavg.report import epsilon_text

__all__ = ["draw"]

_IN, _OUT, _INK, _MUTED, _GRID = "#b34700", "#0b62a8", "#1b1f24", "#5b6470", "#e3e6ea"
_BINS = 40


def draw(found: Audit, target: Path) -> None:
    """Draw the scores' distributions as PNG.

    Args:
        found: The audit.
        target: Where the picture goes; what is there is replaced.

    Raises:
        ParameterError: matplotlib is missing, or the picture cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ParameterError("no picture was drawn: it needs matplotlib; pip install 'veilsum[report]'")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    edges = np.histogram_bin_edges(np.concatenate([found.included, found.excluded]), bins=_BINS)
    with rc_context({"font.size": 10, "axes.edgecolor": _MUTED, "text.color": _INK, "axes.axisbelow": True}):
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        for scores, colour, label in (
            (found.excluded, _OUT, f"sent zeros ({len(found.excluded):,})"),
            (found.included, _IN, f"took part ({len(found.included):,})"),
        ):
            axes.hist(scores, bins=edges.tolist(), color=colour, alpha=0.45, label=label)
            axes.hist(scores, bins=edges.tolist(), color=colour, histtype="step", linewidth=1.6)
        axes.set_title(
            f"Canaries' scores: epsilon at least {found.bound.epsilon:.3g}, estimated {found.estimate.epsilon:.3g},"
            f" promised {epsilon_text(found.promised)}",
            loc="left",
            fontsize=10.5,
            fontweight="bold",
        )
        axes.set_xlabel(
            "length of the released sums along a canary, in deviations of one round's noise", color=_MUTED
        )
        axes.set_ylabel("canaries", color=_MUTED)
        axes.legend(frameon=False)
        axes.grid(axis="y", color=_GRID)
        for side in ("right", "top"):
            axes.spines[side].set_visible(False)
        try:
            figure.savefig(target, format="png", dpi=110)
        except OSError as error:
            raise ParameterError(
                f"the picture {target} cannot be written: {error.strerror or error}; give another path"
            ) from error
