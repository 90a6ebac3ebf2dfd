"""The plots of `docs/experiments.md`, from the kept results. Each carries the digest of the results it was made of.

Not here: the tables (`docs.make.experiments`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from docs.make.experiment_results import Results
from docs.make.generated import DOCS

__all__ = ["PLOTS", "digest_in", "draw", "picture"]

DIGEST = "Description"
BLUE, ORANGE, GREEN, GREY = "#2f6db5", "#d9742b", "#3f9155", "#8a8f98"


def picture(name: str) -> Path:
    """Where an experiment's plot is."""
    return DOCS / "images" / f"experiments-{name}.png"


def draw(name: str) -> None:
    """Make one experiment's plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results = Results(name)
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = PLOTS[name](results)
        figure.savefig(
            picture(name), dpi=130, bbox_inches="tight", metadata={DIGEST: results.digest, "Software": None}
        )
        pyplot.close(figure)


def panels(columns: int, width: float, height: float, **settings: Any) -> tuple[Any, Any]:
    """A figure with some axes side by side."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, columns, figsize=(width, height), layout="constrained", squeeze=False, **settings
    )
    return figure, axes[0]


def dots(axis: Any, results: Results, rows: Sequence[str], key: str, look: dict[str, Any]) -> None:
    """Each row's mean as a dot with its spread; rows without the figure stay empty."""
    there = [
        (place, row) for place, row in enumerate(rows) if row in results.settings and results.values(row, key)
    ]
    axis.errorbar(
        [results.mean(row, key) for _, row in there],
        [place for place, _ in there],
        xerr=[results.spread(row, key) for _, row in there],
        **{"fmt": "o", "capsize": 2.5, "markersize": 5.5, **look},
    )


def named(axis: Any, labels: Sequence[str], title: str) -> None:
    """Rows with their names, first on top, and light lines across."""
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.grid(axis="both", color="#e6e8eb", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.set_title(title, fontsize=9.5, loc="left")


def mechanisms(results: Results) -> Any:
    """Accuracy, the server's epsilon and the upload of every mechanism."""
    rows = list(
        dict.fromkeys(
            setting.split(", epsilon")[0]
            for setting in results.settings
            if ", epsilon" in setting and "real" not in setting
        )
    )
    figure, (left, middle, right) = panels(3, 11, 4.3, sharey=True, width_ratios=(3, 2, 2))
    for epsilon, colour in (("2.53", BLUE), ("0.5", ORANGE)):
        settings = [f"{row}, epsilon {epsilon}" for row in rows]
        look = {"color": colour, "label": f"epsilon {epsilon} against readers"}
        dots(left, results, settings, "accuracy", look)
        dots(middle, results, settings, "server", look)
        for place, setting in enumerate(settings):
            if not results.values(setting, "server"):
                middle.text(0.97, place, "none: it is trusted", ha="right", va="center", color=GREY, fontsize=8,
                            transform=middle.get_yaxis_transform())  # fmt: skip
    left.axvline(
        results.mean("no privacy: plain numpy", "accuracy"),
        color=GREY,
        linestyle="--",
        linewidth=1,
        label="no privacy",
    )
    left.set_xlim(0.84, 0.925)
    for place, row in enumerate(rows):
        found = [results.mean(f"{row}, epsilon {epsilon}", "accuracy") for epsilon in ("2.53", "0.5")]
        if max(found) < 0.84:
            left.text(
                0.842,
                place,
                f"far left: {found[0]:.2f} and {found[1]:.2f}",
                va="center",
                color=GREY,
                fontsize=8,
            )
    named(left, rows, "test accuracy")
    named(middle, rows, "epsilon against the server")
    middle.set_xscale("log")
    middle.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    middle.minorticks_off()
    costs = [f"{row}: cost under masks" for row in rows]
    for place, cost in enumerate(costs):
        if cost in results.settings:
            size = results.mean(cost, "bytes_up_per_client") / 1000
            right.barh(place, size, color=GREEN, height=0.55)
            right.text(
                size + 2,
                place,
                f"{size:.0f} kB, {results.mean(cost, 'cpu_ms_per_client'):.1f} ms",
                va="center",
                fontsize=8,
            )
    right.set_xlim(0, 150)
    named(right, rows, "a client's upload under masks, CPU")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def agnostic(results: Results) -> Any:
    """Every domain's figure by way of training: agnostic training draws them together."""
    tasks = list(dict.fromkeys(setting.split(":")[0] for setting in results.settings if "exact" in setting))
    ways = [f"{way}, {how}" for how in ("exact", "epsilon 8", "epsilon 2") for way in ("FedAvg", "agnostic")]
    ways = ["FedAvg, data in one place", "agnostic, data in one place", *ways, "q-FedAvg, exact"]
    figure, axes = panels(len(tasks), 11.5, 3.7, sharey=True)
    for axis, task in zip(axes, tasks, strict=True):
        settings = [f"{task}: {way}" for way in ways]
        text = task == "next character"
        keys = [
            key for key in results.of(settings[0])[0] if key.startswith("loss: " if text else "accuracy: ")
        ]
        for key, colour in zip(keys, (BLUE, ORANGE, GREEN), strict=False):
            dots(axis, results, settings, key, {"color": colour, "label": key.split(": ")[1]})
        if not text:
            dots(
                axis,
                results,
                settings,
                "accuracy",
                {"color": GREY, "fmt": "|", "label": "all", "markersize": 9},
            )
        named(axis, ways, f"{task}: {'test loss' if text else 'test accuracy'}")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False, fontsize=8)
    return figure


def poisoning(results: Results) -> Any:
    """Attack success and accuracy by defence."""
    rows = list(
        dict.fromkeys(setting.split("; ")[1] for setting in results.settings if "real" not in setting)
    )
    figure, (left, right) = panels(2, 10, 4.4, sharey=True)
    looks = {"explicit boosting": BLUE, "alternating minimisation": ORANGE, "nobody lies": GREY}
    for attack, colour in looks.items():
        settings = [f"{attack}; {row}" for row in rows]
        dots(left, results, settings, "attack_success", {"color": colour, "label": attack})
        dots(right, results, settings, "accuracy", {"color": colour, "label": attack})
    named(left, rows, "share of the attacked images that are misread")
    named(right, rows, "test accuracy of all images")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def matching(results: Results) -> Any:
    """Accuracy of the one network made of many."""
    crowds = list(dict.fromkeys(setting.split(": ")[0] for setting in results.settings))
    rows = list(
        dict.fromkeys(setting.split(": ")[1] for setting in results.settings if "real" not in setting)
    )
    figure, axes = panels(len(crowds), 10, 3.2, sharey=True)
    for axis, crowd in zip(axes, crowds, strict=True):
        settings = [f"{crowd}: {row}" for row in rows]
        dots(axis, results, settings, "accuracy", {"color": BLUE})
        axis.axvline(
            results.mean(settings[0], "alone"),
            color=GREY,
            linestyle="--",
            linewidth=1,
            label="one network alone",
        )
        named(axis, rows, f"{crowd}: test accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return figure


def one_figure(key: str, title: str) -> Callable[[Results], Any]:
    """One figure of every setting that has it."""

    def plotted(results: Results) -> Any:
        rows = [row for row in results.settings if results.values(row, key) and "people needed" not in row]
        figure, (axis,) = panels(1, 8, 0.9 + 0.24 * len(rows))
        dots(axis, results, rows, key, {"color": BLUE})
        named(axis, rows, title)
        return figure

    return plotted


PLOTS: dict[str, Callable[[Results], Any]] = {
    "image": one_figure("accuracy", "test accuracy"),
    "text": one_figure("perplexity", "perplexity by next character on what nobody trained on"),
    "people": one_figure("accuracy", "accuracy on six people who did not train"),
    "agnostic": agnostic,
    "matching": matching,
    "poisoning": poisoning,
    "mechanisms": mechanisms,
}


def digest_in(path: Path) -> str:
    """The digest of the results that a plot was made of.

    Raises:
        ValueError: the file has none.
    """
    content = path.read_bytes()
    mark = b"tEXt" + DIGEST.encode() + b"\0"
    place = content.find(mark)
    if place < 0:
        raise ValueError(
            f"{path.name} does not say which results it was made of; run python -m docs.make.experiments"
        )
    length = int.from_bytes(content[place - 4 : place], "big") - len(DIGEST) - 1
    return content[place + len(mark) : place + len(mark) + length].decode()
