"""The report: complete, self-contained, readable by a browser and by ear, and never telling more than it may."""

from __future__ import annotations

import html
import json
import math
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import dp
import fedavg
from fedavg.errors import CheckpointError
from fedavg.report import MissingLibrary, View, page, promises, rewrite, write
from fedavg.report.wording import plain, right_guesses
from tests.fedavg.report.pages import AUDIT, BROWSER, FLAGS, audited, finished, run

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def result():
    """A finished run; its page is drawn as if under masks, which costs nothing to look at."""
    done = run()
    return replace(done, plan=replace(done.plan, secure=fedavg.SecureAggregation()))


def render(result, **changes):
    return page.render(View.of(result, **({"title": "A run", "facts": {}} | changes)))


class Reader(HTMLParser):
    """Checks that tags nest, and gathers ids, tags and words."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags, self.words, self.links = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.links.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_holds_three_plots_both_statements_and_every_round(result):
    text = render(result)
    read = Reader(text)
    assert read.tags.count("svg") == 3
    assert read.tags.count("title") == read.tags.count("desc") + 1 == 4
    words = " ".join(" ".join(read.words).split())
    for statement in (result.statement.readers, result.statement.server):
        assert html.unescape(statement.claim) in words
        for assumption in statement.assumptions:
            assert assumption[1:] in words
    for report in result.rounds:
        assert f"{report.evaluation['accuracy']:.4f}" in words
    assert "In every round the server received nothing but masked vectors" in words
    assert len(text) < 2_000_000


def test_the_page_needs_nothing_from_anywhere(result):
    text = render(result)
    read = Reader(text)
    assert all(link.startswith("#") for link in read.links)
    assert not {"script", "link", "iframe", "img", "object"} & set(read.tags)
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert addresses <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}  # Names, not places.
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_ids_are_unique_and_every_reference_has_one(result):
    text = render(result)
    read = Reader(text)
    assert len(read.ids) == len(set(read.ids))
    used = re.findall(r"url\(#([^)]+)\)", text) + [link[1:] for link in read.links]
    used += " ".join(re.findall(r'aria-labelledby="([^"]+)"', text)).split()
    assert used
    assert set(used) <= set(read.ids)


def test_every_colour_is_the_pages_own(result):
    """A colour of matplotlib's own would be wrong in the dark or on paper."""
    text = render(result)
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b(?!\w)(?=[;\"])", drawings)
    variables = set(re.findall(r"var\(--([a-z-]+)\)", text))
    styles = text[text.index("<style>") : text.index("</style>")]
    for scheme in styles.split(":root {")[1:]:
        assert variables <= set(re.findall(r"--([a-z-]+):", scheme[: scheme.index("}")]))


def test_what_users_write_is_text(result):
    text = render(result, title="<script>alert(1)</script>", facts={"<b>Data</b>": "a & b"})
    assert "<script" not in text
    assert "&lt;b&gt;Data&lt;/b&gt;" in text
    Reader(text)


def test_a_run_without_cryptography_does_not_claim_any():
    words = " ".join(render(run(rounds=1)).split())
    assert "Computed without cryptography." in words
    assert "received nothing but masked vectors" not in words


def test_a_seeded_run_says_so_at_the_top():
    text = render(run(rounds=1, entropy=fedavg.RunEntropy.seeded(1)))
    assert text.index("simulation, no guarantee") < text.index("<main>")
    assert "simulation, no guarantee" not in render(run(rounds=1))


def test_a_stopped_run_says_so_at_the_top(result):
    text = render(replace(result, stopped="the budget is spent", rounds=result.rounds[:2]))
    assert "Stopped after round 2 of 3." in text
    assert "the budget is spent" in text


def test_an_infinite_epsilon_is_said_and_not_drawn(result):
    rounds = [
        replace(report, epsilon=dp.Epsilons(readers=report.epsilon.readers, server=math.inf))
        for report in result.rounds
    ]
    server = replace(result.statement.server, epsilon=math.inf)
    text = render(replace(result, rounds=rounds, statement=replace(result.statement, server=server)))
    assert "epsilon infinite" in text
    assert "Against the server epsilon is infinite and is not drawn." in text
    assert "nan" not in re.findall(r"[a-z]+", "".join(re.findall(r' d="[^"]*"', text)))
    Reader(text)


def test_budgets_are_drawn_dashed():
    budgeted = run(privacy=dp.Privacy(readers_epsilon=3.0, server_epsilon=30.0, delta=1e-3, l2_clip_norm=1.0))
    text = render(budgeted)
    assert "Dashed: the budgets." in text
    assert text.count("stroke-dasharray") == 2 + 1  # Two budgets, and the fewest survivors.
    assert "Dashed" not in render(run())


def test_a_cap_that_is_reached_is_explained():
    capped = dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0, max_participations=2)
    assert "once a client has contributed 2 times, its cap" in render(run(privacy=capped))
    assert "its cap." not in render(run(rounds=2, privacy=capped))


@pytest.mark.parametrize("rounds", [1, 2, 20])
@pytest.mark.parametrize("evaluate", [None, lambda weights: {"loss": 12.5}, lambda weights: {"share": 1.0}])
def test_few_or_many_rounds_and_any_measure_make_a_page(rounds, evaluate):
    read = Reader(render(run(rounds=rounds, evaluate=evaluate, metrics={})))
    assert read.tags.count("svg") == (2 if evaluate is None else 3)


def test_both_cards_and_the_shared_part_hold_every_word_of_both_statements(result):
    cards, shared = promises(result.statement)
    for card, statement in zip(cards, (result.statement.readers, result.statement.server), strict=True):
        shown = {text.lower().rstrip(".") for text in [*card.assumptions, *shared]}
        assert shown == {text.lower() for text in statement.assumptions}
        assert card.claim == statement.claim
        assert card.assumptions


def test_it_is_written_whole_into_the_public_folder(result, tmp_path):
    path = write(tmp_path, result, title="A run")
    assert path == tmp_path / "public" / "report.html"
    assert "<h1>A run</h1>" in path.read_text(encoding="utf-8")
    assert {kept.name for kept in path.parent.iterdir()} == {"report.html", "report.json"}


def test_a_place_that_cannot_be_written_is_named(result, tmp_path):
    (tmp_path / "public").write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match=r"report\.html cannot be written"):
        write(tmp_path, result)


def test_a_missing_library_is_named(result, monkeypatch):
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingLibrary, match=r"pip install 'veilsum\[report\]'"):
        render(result)


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed, so no page is looked at")
def test_a_browser_draws_it_in_both_schemes(result, tmp_path):
    """Counts pixels of the colours that the style sheet gives the readers' and the server's lines."""
    from matplotlib.image import imread

    target = write(tmp_path, result, title="A run")
    paper = {"light": (1.0, 1.0, 1.0), "dark": (0x14 / 255, 0x17 / 255, 0x1B / 255)}
    lines = {"light": ("#0b62a8", "#b34700"), "dark": ("#6cb6ff", "#ffa057")}
    for scheme, flag in (("light", 1), ("dark", 0)):
        picture = tmp_path / f"{scheme}.png"
        command = [
            BROWSER, *FLAGS, "--window-size=1000,2400", f"--user-data-dir={tmp_path / scheme}",
            f"--blink-settings=preferredColorScheme={flag}", f"--screenshot={picture}", target.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        pixels = imread(picture)[:, :, :3]
        assert np.allclose(pixels[0, 0], paper[scheme], atol=0.01)
        for colour in lines[scheme]:
            wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            assert np.count_nonzero(np.abs(pixels - wanted).max(axis=2) < 0.02) > 300


def test_plain_words_come_first_and_say_what_the_figures_say(result):
    text = render(result)
    assert text.index("in plain words") < text.index("The figures") < text.index("Epsilon, readers")
    words = " ".join(" ".join(Reader(text).words).split())
    for paragraph in plain(result.statement, masked=True, fewest=result.plan.minimum_survivors):
        assert paragraph in words
    assert f"sums over at least {result.plan.minimum_survivors} clients" in words


def test_guesses_are_the_most_that_an_epsilon_and_delta_allow():
    """(e^eps + delta)/(1 + e^eps): pure randomised response reaches it, and a coin is the other end."""
    assert right_guesses(0.0, 0.0) == 0.5
    assert right_guesses(math.log(3), 0.0) == 0.75
    assert right_guesses(0.0, 0.1) == pytest.approx(0.55)
    assert right_guesses(1000.0, 0.0) == 1.0


@pytest.mark.parametrize(
    ("epsilon", "share"), [(0.5, "63%"), (2.53, "93%"), (10.67, "99.998%"), (40.0, "100%")]
)
def test_percentages_are_never_rounded_down(result, epsilon, share):
    readers = replace(result.statement.readers, epsilon=epsilon, delta=1e-9)
    (first, *_) = plain(replace(result.statement, readers=readers), masked=True, fewest=9)
    shown = float(share.rstrip("%")) / 100
    assert f"at most {share} of the time" in first
    assert shown >= right_guesses(epsilon, 1e-9) - 1e-12


def test_a_trusted_server_is_named_in_plain_words(result):
    trusted = "the server is trusted with the sum before the noise, and to add the noise"
    server = replace(result.statement.server, epsilon=math.inf, assumptions=(trusted,))
    *_, last = plain(replace(result.statement, server=server), masked=False, fewest=9)
    assert "nothing is promised against it: it has to be trusted" in last


def test_a_shared_budget_without_a_limit_is_not_said_to_show_the_server_anything(result):
    server = replace(result.statement.server, epsilon=math.inf)
    *_, last = plain(replace(result.statement, server=server), masked=True, fewest=9)
    assert "sets no limit against the server, so nothing is promised against it" in last
    assert "sees" not in last


def test_an_audit_stands_beside_the_promise(result):
    view = audited(View.of(result, title="A run"))
    words = " ".join(" ".join(Reader(page.render(view)).words).split())
    for part in ("Attacked with canaries", "0.510", "2.400", "2.750", "noise in full", "nothing found",
                 "An attack that fails proves nothing"):  # fmt: skip
        assert part in words
    assert "Attacked with canaries" not in render(result)
    flagged = replace(view, audit={**AUDIT, "flagged": ["Half the noise is missing."]})
    assert "Something speaks against the promise." in page.render(flagged)
    assert "Something speaks" not in page.render(view)


def test_the_page_can_be_made_again_from_the_public_folder(tmp_path, result):
    first = write(tmp_path, result, title="A run", command="veilsum simulate").read_text("utf-8")
    assert rewrite(tmp_path).read_text("utf-8") == first
    (tmp_path / "public" / "audit.json").write_text(json.dumps(AUDIT))
    again = rewrite(tmp_path, output=tmp_path / "other.html")
    assert "Attacked with canaries" in again.read_text("utf-8")


@pytest.mark.parametrize("content", [None, "no json", "{}"])
def test_a_folder_without_a_report_is_named(tmp_path, content):
    (tmp_path / "public").mkdir()
    if content is not None:
        (tmp_path / "public" / "report.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"holds no report\.json|cannot be read"):
        rewrite(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy": dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm={"w": 0.5})},
        {"privacy": dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0, mechanism="central_gaussian",
                               trusted_server=True)},
        {"privacy": dp.Privacy(noise_multiplier=2.0, delta=1e-3, l2_clip_norm=1.0, mechanism="skellam")},
        {"sampler": dp.SelfSampling(dp.PaddedPoisson(60, 20), 0.5)},
        {"sampler": dp.FixedSizeSample(60, 20)},
    ],
)  # fmt: skip
def test_other_runs_make_a_page_that_can_be_made_again(tmp_path, changes):
    """An infinite epsilon, too, comes back as it was."""
    done = run(rounds=2, **changes)
    first = write(tmp_path, done).read_text("utf-8")
    Reader(first)
    assert rewrite(tmp_path).read_text("utf-8") == first


def words_of(done):
    return " ".join(" ".join(Reader(render(done)).words).split())


def under_masks(done):
    return replace(done, plan=replace(done.plan, secure=fedavg.SecureAggregation()))


def test_no_noise_is_claimed_under_the_masks_of_a_server_that_adds_it():
    central = dp.Privacy(
        noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0, mechanism="central_gaussian", trusted_server=True
    )
    words = words_of(under_masks(run(privacy=central)))
    assert "which already held the noise" not in words
    assert "could open only their sum, without noise: it is trusted to add that." in words
    assert "which already held the noise" in words_of(under_masks(run()))


@pytest.mark.parametrize("sampler", [dp.FixedOrder(60, 20), dp.FixedSizeSample(60, 20)])
def test_a_cohort_that_nobody_pads_is_not_called_padded(sampler):
    words = words_of(run(sampler=sampler))
    for claim in ("padded to a fixed size", "appears nowhere", "neither who was drawn nor how many"):
        assert claim not in words
        assert claim in words_of(run())


def test_what_a_cap_does_not_stop_is_not_said_to_stop():
    """With coins of the clients' own, the server's cost grows past the cap: it does not see how they fell."""
    capped = dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0, max_participations=2)
    done = run(rounds=4, privacy=capped, sampler=dp.SelfSampling(dp.PaddedPoisson(60, 20), 0.5))
    assert done.rounds[3].epsilon.server > done.rounds[2].epsilon.server
    words = words_of(done)
    assert "the cost stops growing" not in words
    assert "sampling does not help against it" not in words
    assert "padded to a fixed size" in words


def test_how_to_run_it_again_is_told(result):
    text = page.render(finished())
    assert "<code>veilsum simulate digits --rounds 3</code>" in text
    assert result.plan.canonical().hex() in render(result)


def test_a_statement_for_examples_stands_beside_and_not_instead(result):
    view = View.of(result, title="A run", example_level="DP-SGD <performed> over 200 examples")
    words = " ".join(" ".join(Reader(page.render(view)).words).split())
    assert "DP-SGD <performed> over 200 examples" in words
    assert "it adds to the two above and replaces neither" in words
    assert result.statement.server.claim in words
    assert "One example inside a client" not in render(result)
