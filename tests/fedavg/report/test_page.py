"""The report: complete, self-contained, readable by a browser and by ear, and never telling more than it may."""

from __future__ import annotations

import html
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import dp
import fedavg
from fedavg.errors import CheckpointError
from fedavg.report import MissingLibrary, page, promises, write

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

CLIENTS = [np.full(3, float(i % 2)) for i in range(60)]


def step(weights, data):
    return {"w": weights["w"] + 0.2 * (data - weights["w"])}, {"loss": 0.5}


def run(rounds=3, **changes):
    settings = {
        "weights": {"w": np.zeros(3)},
        "rounds": rounds,
        "cohort_size": 20,
        "privacy": dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0),
        "secure": fedavg.SecureAggregation.ideal(),
        "metrics": {"loss": 1.0},
        "evaluate": lambda weights: {"accuracy": 0.5 + 0.1 * float(np.tanh(weights["w"][0]))},
        "simulated_dropout": 0.05,
        **changes,
    }
    return fedavg.train(step, CLIENTS, **settings)


@pytest.fixture(scope="module")
def result():
    """A finished run; its page is drawn as if under masks, which costs nothing to look at."""
    done = run()
    return replace(done, plan=replace(done.plan, secure=fedavg.SecureAggregation()))


def render(result, **changes):
    return page.render(result, **({"title": "A run", "facts": {}} | changes))


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
    assert [kept.name for kept in path.parent.iterdir()] == ["report.html"]


def test_a_place_that_cannot_be_written_is_named(result, tmp_path):
    (tmp_path / "public").write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match=r"report\.html cannot be written"):
        write(tmp_path, result)


def test_a_missing_library_is_named(result, monkeypatch):
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingLibrary, match=r"pip install 'veilsum\[report\]'"):
        render(result)


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


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
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,1400",
            "--no-first-run", "--disable-background-networking", f"--user-data-dir={tmp_path / scheme}",
            f"--blink-settings=preferredColorScheme={flag}", f"--screenshot={picture}", target.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        pixels = imread(picture)[:, :, :3]
        assert np.allclose(pixels[0, 0], paper[scheme], atol=0.01)
        for colour in lines[scheme]:
            wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            assert np.count_nonzero(np.abs(pixels - wanted).max(axis=2) < 0.02) > 300
