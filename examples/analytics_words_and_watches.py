"""Private analytics on real data, with its errors beside what theory says of them, as two plots.

Words: which words the roles of Shakespeare's plays use most, out of all words there could be (1,419 clients, a role
each). Watches: how hard ten people's watches shook, over windows of 2.56 seconds. Each *window* is a client here, so
what is protected is one window and not one person: ten people are too few to hide one among them.
"""

import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from fedavg import RunEntropy, SecureAggregation, analytics
from fedavg.core import Context
from fedavg.datasets.shakespeare import load_shakespeare
from fedavg.datasets.watch import load_watch

WINDOW = 128
SHOWN = 25
PROBABILITIES = (0.05, 0.25, 0.5, 0.75, 0.95)


def promise(population, epsilon, seed):
    """A simulation: seeded, and without masks, because nobody is to be protected from their own machine."""
    return Context(
        population=population,
        delta=1e-4,
        readers_epsilon=epsilon,
        secure=SecureAggregation.ideal(one_draw=True),
        entropy=RunEntropy.seeded(seed),
    )


def roles():
    """Each role's words, the most frequent first."""
    users = load_shakespeare(minimum_characters=0).users
    spoken = {role: re.findall("[a-z']+", " ".join(said).lower()) for role, said in users.items()}
    return {role: [word for word, _ in Counter(words).most_common()] for role, words in spoken.items()}


def windows():
    """How hard the watch shook, in g, window by window."""
    recordings = (rows for user in load_watch().users.values() for rows, _ in user)
    strength = (np.linalg.norm(rows[:, :3], axis=1) for rows in recordings)
    return [
        shaken[start : start + WINDOW]
        for shaken in strength
        for start in range(0, len(shaken) - WINDOW + 1, WINDOW)
    ]


def words(clients, *, epsilons=(1.0, 4.0), first=10, longest=8, seed=1):
    """Heavy hitters with their recall and precision against the true counts."""
    letters = {*"abcdefghijklmnopqrstuvwxyz'"}
    truth = Counter()
    for spoken in clients.values():
        truth.update([word for word in spoken if len(word) <= longest and {*word} <= letters][:first])
    results = {}
    for epsilon in epsilons:
        found = analytics.heavy_hitters(
            clients,
            context=promise(len(clients), epsilon, seed),
            words_per_client=first,
            longest=longest,
        )
        heavy = {word for word, count in truth.items() if count >= found.threshold}
        right = heavy & {*found.counts}
        errors = np.array([(count - truth[word]) / found.stddev for word, count in found.counts.items()])
        figures = {
            "threshold": round(found.threshold, 1),
            "heavy": len(heavy),
            "found": len(found.counts),
            "recall": round(len(right) / len(heavy), 3),
            "precision": round(len(right) / len(found.counts), 3),
            "held_by_nobody": sum(truth[word] == 0 for word in found.counts),
            "error_over_stddev": round(float(np.sqrt(np.mean(errors**2))), 2),
        }
        results[epsilon] = (found, truth, figures)
        print(f"words, epsilon {epsilon:g}: {figures}")
        print(found.statements.readers.claim)
    return results


def watches(clients, *, epsilon=1.0, bins=25, upper=2.5, repeats=20):
    """A histogram and quantiles, several times over, so that their errors can be held against theory."""
    edges = np.linspace(0.0, upper, bins + 1)
    exact = np.mean([np.histogram(np.clip(w, 0, upper), edges)[0] / len(w) for w in clients], axis=0)
    histograms = [
        analytics.histogram(clients, edges=edges, context=promise(len(clients), epsilon, seed))
        for seed in range(repeats)
    ]
    settings = {"lower": 0.0, "upper": upper}
    runs = [
        analytics.quantiles(clients, PROBABILITIES, context=promise(len(clients), epsilon, seed), **settings)
        for seed in range(repeats)
    ]
    every = np.sort(np.clip(np.concatenate(clients), 0.0, upper))
    true_cdf = np.searchsorted(every, runs[0].edges) / len(every)  # windows are of one length
    inside = np.mean(
        [(run.low <= q) & (q <= run.high) for run in runs for q in [np.quantile(every, PROBABILITIES)]]
    )
    bin_errors = np.stack([h.counts for h in histograms]) - exact * len(clients)
    figures = {
        "clients": len(clients),
        "bin_stddev": round(histograms[0].stddev, 2),
        "bin_rms_error": round(float(np.sqrt(np.mean(bin_errors**2))), 2),
        "cdf_error_over_stddev": round(_ratio(runs, true_cdf), 2),
        "quantiles_inside_two_deviations": round(float(inside), 3),
        "moments": _moments(clients, epsilon, upper),
    }
    print(f"watches, epsilon {epsilon:g}: {figures}")
    print(runs[0].statements.readers.claim)
    return histograms, runs, exact, true_cdf, every, figures


def _ratio(runs, true_cdf):
    errors = np.stack([(run.cumulative - true_cdf)[1:-1] for run in runs])
    return float(np.sqrt(np.mean(errors**2) / np.mean([run.cumulative_stddev[1:-1] ** 2 for run in runs])))


def _moments(clients, epsilon, upper):
    found = analytics.mean_and_variance(
        clients, lower=0.0, upper=upper, context=promise(len(clients), epsilon, 1)
    )
    own = np.concatenate([np.clip(w, 0, upper) for w in clients])
    return {
        "mean": (round(found.mean, 4), round(found.mean_stddev, 4), round(float(own.mean()), 4)),
        "variance": (round(found.variance, 4), round(found.variance_stddev, 4), round(float(own.var()), 4)),
    }


def plot_words(results, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4 * len(results)), layout="constrained")
    for axis, (epsilon, (found, truth, figures)) in zip(
        figure.subplots(len(results)), results.items(), strict=True
    ):
        shown = list(found.counts)[:SHOWN]
        positions = np.arange(len(shown))
        axis.bar(positions, [truth[word] for word in shown], color="#c9d3df", label="true count")
        axis.errorbar(
            positions,
            [found.counts[word] for word in shown],
            yerr=2 * found.stddev,
            fmt="o",
            color="#1f4e79",
            capsize=3,
            label="noised, with two deviations",
        )
        axis.axhline(found.threshold, color="#b3541e", linestyle="--", label="threshold")
        axis.set_xticks(positions, shown, rotation=60)
        axis.set_ylabel("roles")
        axis.set_title(
            f"epsilon {epsilon:g}: {figures['found']} words found; recall {figures['recall']:.2f},"
            f" precision {figures['precision']:.2f}"
        )
        axis.legend()
    figure.savefig(path, dpi=120)


def plot_watches(outcome, path):
    from matplotlib.figure import Figure

    histograms, runs, exact, true_cdf, every, _ = outcome
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    one = histograms[0]
    centres = (one.edges[1:] + one.edges[:-1]) / 2
    total = len(exact) and exact.sum()
    left.bar(centres, exact / total, width=np.diff(one.edges), color="#c9d3df", label="true")
    scale = runs[0].cumulative[-1] / max(one.counts.sum(), 1)
    left.errorbar(
        centres, one.counts * scale, yerr=2 * one.stddev * scale, fmt="o", markersize=4, color="#1f4e79", capsize=3,
        label="noised, with two deviations",
    )  # fmt: skip
    left.set(xlabel="strength (g)", ylabel="share of windows", title="Histogram")
    left.legend()
    run = runs[0]
    band = 2 * run.cumulative_stddev
    right.plot(run.edges, true_cdf, color="#8a99a8", linewidth=3, label="true")
    right.plot(run.edges, run.cumulative, color="#1f4e79", linewidth=1, label="noised")
    right.fill_between(run.edges, run.cumulative - band, run.cumulative + band, color="#1f4e79", alpha=0.2)
    right.errorbar(
        run.values,
        run.probabilities,
        xerr=[run.values - run.low, run.high - run.values],
        fmt="s",
        markersize=4,
        color="#b3541e",
        capsize=3,
        label="quantiles",
    )
    right.plot(
        np.quantile(every, run.probabilities), run.probabilities, "x", color="black", label="true quantiles"
    )
    right.set(xlabel="strength (g)", ylabel="share below", title="Distribution function")
    right.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def main(folder="."):
    spoken, shaken = words(roles()), watches(windows())
    plot_words(spoken, Path(folder) / "words.png")
    plot_watches(shaken, Path(folder) / "watches.png")
    print(f"plots: {Path(folder) / 'words.png'}, {Path(folder) / 'watches.png'}")
    return {epsilon: figures for epsilon, (_, _, figures) in spoken.items()}, shaken[-1]


if __name__ == "__main__":
    main(*sys.argv[1:])
