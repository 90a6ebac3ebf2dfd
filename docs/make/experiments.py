"""The tables, findings and plots of `docs/experiments.md`: `python -m docs.make.experiments`.

Every figure on the page is worked out here from `docs/results/experiments/*.json`, which `python -m examples.NAME`
writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from docs.make.experiment_plots import digest_in, draw, picture
from docs.make.experiment_results import Results, names
from docs.make.generated import DOCS, table, write

PAGE = DOCS / "experiments.md"
ORDER = ("image", "text", "people", "agnostic", "matching", "poisoning", "mechanisms")


@dataclass(frozen=True)
class Shown:
    """How an experiment is shown.

    Attributes:
        columns: From a figure's key to the head of its column.
        found: What there is to learn, with the figures that say so.
        tables: Parts of the table: a head, and which settings are in it. One table of all when empty.
    """

    columns: Mapping[str, str]
    found: Callable[[Results], Sequence[str]] = lambda results: ()
    tables: Mapping[str, Callable[[str], bool]] | None = None


ABOUT = {
    "image": """\
The image tutorial: MNIST by 3,000 clients whose labels differ (Dirichlet 1), trained and evaluated, federated and
centrally.""",
    "text": """\
The text tutorial: Shakespeare by role. A model of the next character starts from weights trained on public speeches
(State of the Union), and 644 roles fine-tune it.""",
    "people": """\
Human activity by phone: 24 people train and six are held out (UCI HAR).""",
    "agnostic": """\
Agnostic federated learning (Mohri, Sivek, Suresh 2019): the server trains for the worst mixture of public domains.
A client's step, its weight, and its domain's loss and count travel in one clipped, noised vector. The step and its
weight are clipped as one: apart, a client could move the model further than it says. Two quotients of noised sums
decide what happens next, and a noised sum may come out small or negative: the weights' sum is never taken below
half of what is expected, which is public, and losses are summed over ten rounds or so before they are divided by
their count.""",
    "matching": """\
Probabilistic federated neural matching (Yurochkin et al. 2019) by sums: the server publishes slots, every client
matches its own neurons to them and sends its permuted weights. Ten people with scikit-learn's digits, and a
thousand with MNIST shrunk to 7x7.""",
    "poisoning": """\
Model poisoning (Bhagoji et al. 2019) on Fashion-MNIST: one of ten clients wants twenty ankle boots taken for
sandals. Every epsilon is an honest client's, with the liar on the side of readers and server: the liar knows its
own noise and may add none, so that the shares of the others alone are z. One of the ten colludes, in other words, and
in a group of two one of two; the liar itself, where it does not clip, is promised nothing.""",
    "mechanisms": """\
Which noise, at equal epsilon against readers, on the demo's task. 5% of a cohort drop out, except in two controls:
in tensorflow-privacy's rows and without privacy nobody does, and the latter draws exactly 300 each round.
tensorflow-privacy's rows come from the same command in the second environment:
`.venv-tf/bin/python -m examples.mechanisms`. A seed deals the data in them but does not draw the cohorts: they vary a
little from run to run.""",
}
"""What each section begins with."""

UNSHOWN = ("seed", "cpu_s", "delta", "worst_loss")
EPSILONS = {"readers": "epsilon, readers", "server": "epsilon, server"}
TOTALS = {"total_readers": "epsilon, readers, evaluation included", "total_server": "epsilon, server"}
ACCURACY = {"accuracy": "accuracy"}


def found_in_mechanisms(r: Results) -> list[str]:
    """What to choose."""
    low, high = "epsilon 0.5", "epsilon 2.53"
    shares, alone = "discrete Gaussian shares", "shares that protect alone (local)"
    own, trusted = f"{shares}, self-sampling", "trusted server: discrete Gaussian"
    matrix, theirs = (
        "trusted server: correlated noise (DP-FTRL)",
        "trusted server: tensorflow-privacy's query",
    )
    forty, removed = "the same, sized for 40% dropouts", "the same, excess taken off"

    def at(setting: str, epsilon: str) -> str:
        return f"{r.mean(f'{setting}, {epsilon}', 'accuracy'):.3f}"

    def paid(setting: str) -> str:
        return f"{r.mean(f'{setting}: cost under masks', 'bytes_up_per_client') / 1000:.0f} kB"

    return [
        f"Noise shares under masks cost nearly nothing beside a trusted server: {at(shares, high)} against"
        f" {at(trusted, high)}, and {at(theirs, high)} with tensorflow-privacy's own query, at epsilon"
        " 2.53; at 0.5"
        f" {at(shares, low)}, {at(trusted, low)} and {at(theirs, low)}. Noise that must protect each client"
        " alone gives"
        f" {at(alone, high)} and {at(alone, low)}.",
        "What differs is what the server could learn. It knows who was drawn, so that padded Poisson"
        " cohorts leave it an"
        f" epsilon of {r.mean(f'{shares}, {high}', 'server'):.1f}; where clients flip a coin of their own it is"
        f" {r.mean(f'{own}, {high}', 'server'):.1f}, at {at(own, high)} accuracy and four times as many"
        " invited.",
        f"Tolerating 40% dropouts with noise left in costs {at(forty, low)} against {at(removed, low)} at"
        " epsilon 0.5 when"
        f" 5% drop out; taking the excess off restores it for {paid(removed)} a client and round instead of"
        f" {paid(forty)}."
        f" At epsilon 2.53 it is not worth it: {at(forty, high)} against {at(removed, high)}.",
        f"Compression sends {paid(f'{shares}, compressed')} instead of {paid(shares)} at the same accuracy."
        " Correlated noise"
        f" is best at 2.53 ({at(matrix, high)}), and not at 0.5 ({at(matrix, low)}): it takes turns in"
        " place of sampling.",
    ]


def found_in_agnostic(r: Results) -> list[str]:
    """Direction, not digits."""

    def of(task: str, how: str, key: str) -> str:
        before, after = (r.mean(f"{task}: {way}, {how}", key) for way in ("FedAvg", "agnostic"))
        return f"{before:.3f} to {after:.3f}"

    adult, fashion, text = "Adult, trained little", "Fashion-MNIST", "next character"
    long, one = "Adult, trained long", "data in one place"
    doctor, shirt = "accuracy: doctorate", "accuracy: shirt"
    return [
        f"The direction is the published one. Adult, exact: doctorates {of(adult, 'exact', doctor)}, everybody"
        f" {of(adult, 'exact', 'accuracy')} (published: 69.6 to 71.5 and 82.1 to 80.1). Fashion-MNIST: shirts"
        f" {of(fashion, 'exact', shirt)} (published: 71.2 to 74.5), the worst of the three"
        f" {of(fashion, 'exact', 'worst')}, all"
        f" {of(fashion, 'exact', 'accuracy')}. Next character: the loss on plays"
        f" {of(text, 'exact', 'loss: plays')}, on speeches"
        f" {of(text, 'exact', 'loss: speeches')}.",
        "It survives noise where domains are large: at epsilon 2 shirts go"
        f" {of(fashion, 'epsilon 2', shirt)}. The 413"
        f" doctorates among 32,561 pay: at epsilon 2 their accuracy goes {of(adult, 'epsilon 2', doctor)}"
        " while everybody's"
        f" goes {of(adult, 'epsilon 2', 'accuracy')}. The agnostic model leans on a few clients, and noise"
        " is over their number.",
        "q-FedAvg, which knows no domains, brings the worst of Fashion-MNIST to"
        f" {r.mean(f'{fashion}: q-FedAvg, exact', 'worst'):.3f}, of Adult to"
        f" {r.mean(f'{adult}: q-FedAvg, exact', 'worst'):.3f}.",
        "In the next-character task noise hides which domain is worse: at epsilon 2 the loss on plays goes"
        f" {of(text, 'epsilon 2', 'loss: plays')}, and nothing is won.",
        "On Adult the regime in which that direction appears was searched for, test accuracy in sight: the model is"
        " held small (the server shrinks it by 6% a round). **With a well-trained model it does not appear:** trained"
        f" long, doctorates have {r.mean(f'{long}: FedAvg, {one}', doctor):.3f} to begin with, and agnostic training"
        f" overfits the 413 of them: {r.mean(f'{long}: agnostic, {one}', doctor):.3f}, their test loss from"
        f" {r.mean(f'{long}: FedAvg, {one}', 'loss: doctorate'):.3f} to"
        f" {r.mean(f'{long}: agnostic, {one}', 'loss: doctorate'):.3f}. The test set has 181 of them: one standard"
        " error of their accuracy is .03.",
    ]


def found_in_poisoning(r: Results) -> list[str]:
    """The three findings of the attack, and what groups do."""

    def success(defence: str, attack: str = "explicit boosting") -> str:
        return f"{r.mean(f'{attack}; {defence}', 'attack_success'):.2f}"

    own, enforced = "masks, each client's own code clips", "masks, clipping enforced"
    stealth = "alternating minimisation"
    noisy = f"{enforced}, noise z = 1"
    return [
        "**Self-clipping under masks is no defence.** One of ten lies and boosts ten times:"
        f" {success('no defence: plain mean')}"
        f" of its images are misread with no defence, {success(own)} where each client's own code clips"
        " (the attacker's does"
        f" not, and the others' smaller steps no longer outvote it), {success(enforced)} where the clip is"
        " enforced."
        f" With stealth: {success('no defence: plain mean', stealth)}, {success(own, stealth)},"
        f" {success(enforced, stealth)}."
        " This library's clients clip by their own code: the third row would take a proof of the norm that"
        " the server checks.",
        f"Noise alone protects no better: {success(f'{own}, noise z = 1')} at z = 1, while ten clients who"
        " are in each of 40"
        f" rounds still have epsilon {r.mean(f'nobody lies; {noisy}', 'readers'):.0f}. Noise for epsilon"
        f" {r.mean(f'nobody lies; {enforced}, noise z = 4.6', 'readers'):.0f} ends the learning:"
        f" accuracy {r.mean(f'nobody lies; {enforced}, noise z = 4.6', 'accuracy'):.2f}.",
        f"Groups of secure sums help where noise promises nothing: {success('groups of two, trimmed mean')} with a"
        f" trimmed mean across five groups, {success('groups of two, median')} with the median, at epsilon"
        f" {r.mean('nobody lies; groups of two, median', 'readers'):,.0f}. With each group's own noise of z = 1:"
        f" {success('groups of two, trimmed mean, noise z = 1')} and"
        f" {success('groups of two, median, noise z = 1')}. In a group of two each share must hide its client alone,"
        " for the other may be the liar: the mean of two carries nearly seven times the noise of the mean of ten, and"
        " ranks across groups then say little.",
    ]


def found_in_matching(r: Results) -> list[str]:
    """When it is worth it."""

    def at(people: str, way: str) -> str:
        return f"{r.mean(f'{people}: {way}', 'accuracy'):.3f}"

    ten, crowd = "10 people", "1,000 people"
    seen, sums, shared = (
        "matched, weights seen",
        "matched by sums",
        "one round of averaging from a shared start",
    )
    return [
        f"Sums suffice: ten networks come to {at(ten, sums)} by sums and {at(ten, seen)} where the server"
        " sees all weights; a"
        f" thousand to {at(crowd, sums)} and {at(crowd, seen)}. The mean of the weights gives"
        f" {at(ten, 'mean of the weights')} and"
        f" {at(crowd, 'mean of the weights')}, one network alone {r.mean(f'{ten}: {sums}', 'alone'):.3f} and"
        f" {r.mean(f'{crowd}: {sums}', 'alone'):.3f}.",
        f"Privacy of a person needs the crowd: ten people have {at(ten, f'{sums}, epsilon 8')} at epsilon"
        " 8; a thousand have"
        f" {at(crowd, f'{sums}, epsilon 8')} at 8 and {at(crowd, f'{sums}, epsilon 2')} at 2.",
        "It is worth it for networks that are already trained apart. Where a start shared by all can still be"
        f" chosen, one round of averaging gives {at(ten, shared)} among ten, without matching. Among a thousand it"
        f" gives only {at(crowd, shared)}, but keeps {at(crowd, f'{shared}, epsilon 2')} at epsilon 2, because a"
        " client sends only what it changed, and it can go on from there.",
    ]


def found_in_text(r: Results) -> list[str]:
    """Perplexities, and how it talks."""
    begun, loose = "start, trained on speeches", "private, readers' epsilon 8"
    steps = {
        begun: "before",
        "federated, no privacy": "after, federated without privacy",
        loose: "after, at epsilon 8",
        "private, readers' epsilon 2": "after, at epsilon 2",
        "central, plain torch": "all roles in one place",
    }
    listed = "; ".join(f"{words} {r.mean(setting, 'perplexity'):.2f}" for setting, words in steps.items())
    samples = [
        f"{words[0].upper()}{words[1:]}:\n\n```text\n{r.of(setting)[0]['text']}\n```"
        for setting, words in (item for item in steps.items() if item[0] in (begun, loose))
    ]
    asked = f"{r.mean(loose, 'federated_perplexity'):.1f} ± {r.spread(loose, 'federated_perplexity'):.1f}"
    return [
        f"Perplexity on roles that are nobody's: {listed}.",
        "To ask the roles themselves, at epsilon 0.5 against readers, is of no use with so few: their federated"
        f" evaluation of the model at epsilon 8 says {asked}, the deviation being the noise, so the table leaves it"
        " out.",
        *samples,
    ]


def found_in_image(r: Results) -> list[str]:
    """What privacy costs, by model."""
    ways = (
        "central, same framework",
        "federated, no privacy",
        *(f"private, readers' epsilon {e}" for e in ("2", "0.5")),
    )
    told = []
    for model in dict.fromkeys(setting.split(": ")[0] for setting in r.settings):
        central, free, loose, strict = (f"{r.mean(f'{model}: {way}', 'accuracy'):.3f}" for way in ways)
        told.append(
            f"{model}: {central} with all data in one place, {free} federated, {loose} and {strict} private at epsilon"
            " 2 and 0.5"
        )
    text = "; ".join(told) + "."
    return [text[0].upper() + text[1:]]


def found_in_people(r: Results) -> list[str]:
    """Thirty are few."""
    small, large, copies = "features", "network", " of one copy, with 200 copies"

    def at(kind: str, way: str) -> str:
        return f"{r.mean(f'{kind}: {way}', 'accuracy'):.3f}"

    free, strict, loose = (
        "federated, no privacy",
        "private, readers' epsilon 2",
        "private, readers' epsilon 8",
    )
    return [
        f"**Thirty people cannot train a network privately:** {at(large, free)} without privacy,"
        f" {at(large, loose)} at epsilon 8,"
        f" {at(large, strict)} at 2. A regression on 18 features stands more: {at(small, free)},"
        f" {at(small, loose)},"
        f" {at(small, strict)}. Sampling hides nobody when all take part every time, so readers and server"
        " have one epsilon.",
        "How many it would take, by the noise each model stands:"
        f" {r.mean(f'{small}: people needed', 'people_for_2'):.0f} people"
        f" for the features and {r.mean(f'{large}: people needed', 'people_for_2'):.0f} ±"
        f" {r.spread(f'{large}: people needed', 'people_for_2'):.0f} for the network at epsilon 2."
        " With the 24 copied to 200, at epsilon 2 of one copy:"
        f" {at(small, strict + copies)} and {at(large, strict + copies)}; a real person is eight of the copies there,"
        " and has no such promise.",
        "Even asking 24 people how good the model is, at epsilon 0.5, gives nothing but noise.",
    ]


def _of_task(task: str, setting: str) -> bool:
    return setting.startswith(task) and "cost under" not in setting


SHOWN: dict[str, Shown] = {
    "mechanisms": Shown(
        {**ACCURACY, "noise_in_average": "noise in the average", **EPSILONS},
        found_in_mechanisms,
        {
            "accuracy and epsilons": lambda setting: "cost under" not in setting,
            "cost": lambda setting: "cost under" in setting,
        },
    ),
    "agnostic": Shown(
        {},
        found_in_agnostic,
        {
            **{task: partial(_of_task, task) for task in ("Adult", "Fashion-MNIST", "next character")},
            "cost": lambda setting: "cost under" in setting,
        },
    ),
    "poisoning": Shown({"attack_success": "attack success", **ACCURACY, **EPSILONS}, found_in_poisoning),
    "matching": Shown({**ACCURACY, "neurons": "neurons", **EPSILONS}, found_in_matching),
    "people": Shown(
        {
            **ACCURACY,
            "people_for_2": "people for epsilon 2",
            "before_fine_tuning": "own test windows",
            "after_fine_tuning": "after fine-tuning",
            **TOTALS,
        },
        found_in_people,
    ),
    "text": Shown(
        {
            "perplexity": "perplexity",
            **ACCURACY,
            **TOTALS,
        },
        found_in_text,
    ),
    "image": Shown(
        {**ACCURACY, "federated_accuracy": "accuracy, evaluated federated", **TOTALS}, found_in_image
    ),
}


def cell(results: Results, setting: str, key: str) -> str:
    """Mean and, of several seeds that differ, deviation; a null epsilon is infinite."""
    given = [trial[key] for trial in results.of(setting) if key in trial]
    if not given:
        return ""
    if any(value is None for value in given):
        return "infinite"
    mean, spread = results.mean(setting, key), results.spread(setting, key)
    digits = 5 if key == "noise_in_average" else 0 if mean.is_integer() else 3 if abs(mean) < 10 else 1
    return f"{mean:,.{digits}f}" + (f" ± {spread:.{max(digits, 2)}f}" if spread else "")


def tabled(results: Results, settings: Sequence[str], columns: Mapping[str, str]) -> str:
    """Settings as rows, columns that no setting has left out; without columns, every figure."""
    if not columns:
        keys = [
            key
            for setting in settings
            for key, value in results.of(setting)[0].items()
            if not isinstance(value, str)
        ]
        columns = {key: key.replace("_", " ") for key in dict.fromkeys(keys) if key not in UNSHOWN}
    there = {
        key: head
        for key, head in columns.items()
        if any(key in results.of(setting)[0] for setting in settings)
    }
    rows = [
        [setting, len(results.of(setting)), *(cell(results, setting, key) for key in there)]
        for setting in settings
    ]
    return table(["setting", "seeds", *there.values()], rows)


def section(name: str) -> str:
    """One experiment: command, findings, plot, tables."""
    results, shown = Results(name), SHOWN[name]
    told = "total_delta" if "total_readers" in shown.columns else "delta"
    deltas = sorted({trial[told] for trial in results.trials if told in trial})
    said = (
        f"`python -m examples.{name}`: {len(results.trials)} trials, {results.minutes:.1f} CPU minutes; up to"
    )
    said += f" {results.seeds()} seeds (mean ± standard deviation)"
    said += f"; delta {' and '.join(f'{delta:g}' for delta in deltas)}.\n" if deltas else ".\n"
    found = "".join(f"\n{text}\n" for text in shown.found(results))
    plot = f"\n![{name}: the figures of the table](images/{picture(name).name})\n"
    parts = shown.tables or {"": lambda setting: True}
    tables = ""
    for head, wanted in parts.items():
        settings = [setting for setting in results.settings if wanted(setting)]
        columns = {} if "cost under" in settings[0] else shown.columns
        tables += (
            f"\n{head[0].upper()}{head[1:]}:\n" if head else ""
        ) + f"\n{tabled(results, settings, columns)}"
    return f"{said}{found}{plot}{tables}"


LAST = {
    "text": "private, readers' epsilon 8, real protocol",
    "image": "network: private, readers' epsilon 2, real protocol",
}
"""The last trial of those that take longest: an experiment under way is not on the page yet."""


def there() -> list[str]:
    """Experiments with all their results, in the page's order."""
    found = [name for name in ORDER if name in names()]
    return [name for name in found if name not in LAST or LAST[name] in Results(name).settings]


def total() -> str:
    """CPU time of the standard set."""
    rows = [
        [f"[{name}](#{name})", f"`python -m examples.{name}`", f"{Results(name).minutes:.1f}"]
        for name in there()
    ]
    minutes = sum(Results(name).minutes for name in there())
    text = table(["experiment", "command", "CPU minutes"], rows)
    seeds = "three seeds a row, ten in half of matching, one under real masks, of copies and in agnostic's controls"
    return (
        f"{text}\nThe standard set ({seeds}) takes {minutes:.0f} CPU minutes: about {minutes / 2:.0f} minutes on two"
        " cores.\n"
    )


def blocks() -> dict[str, str]:
    """Every generated block of the page."""
    sections = "\n".join(f"## {name}\n\n{ABOUT[name]}\n\n{section(name)}" for name in there())
    return {"total": total(), "experiments": sections}


def main() -> None:
    """Draw the plots and write the page."""
    for name in there():
        if not picture(name).exists() or digest_in(picture(name)) != Results(name).digest:
            draw(name)
    write(PAGE, blocks())


if __name__ == "__main__":
    main()
