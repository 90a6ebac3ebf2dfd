"""The page of benchmarks says what the kept results say, missed limits included."""

import json
import re

import pytest

from docs.make import benchmarks
from docs.make.benchmarks import keep, missed, row, rows_of, shown
from docs.make.generated import blocks_in

PAGE = benchmarks.PAGE.read_text()


@pytest.mark.parametrize("name", ["summary", "tables"])
def test_the_page_is_what_the_results_give(name):
    assert blocks_in(PAGE)[name] == benchmarks.blocks()[name], "run python -m docs.make.benchmarks"


@pytest.mark.parametrize("name", benchmarks.results())
def test_every_result_is_complete_and_names_no_host(name):
    result = benchmarks.results()[name]
    assert {"title", "command", "machine", "date", "raw"} <= set(result)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    assert re.match(
        r"\d+ cores of .+ \(family \w+, model \w+\), \w+, Python [\d.]+, numpy [\d.]+", result["machine"]
    )
    assert rows_of(name, result)


@pytest.mark.parametrize(
    ("found", "met", "ratio"),
    [
        (row("a", 1.5, 1.4), "**no**", "1.071"),
        (row("a", 1.4, 1.4), "yes", "1"),
        (row("a", 8.9, 9, ">="), "**no**", "0.9889"),
        (row("a", 9, 9, ">="), "yes", "1"),
        (row("a", 0, 0), "yes", ""),
        (row("a", 1, 0), "**no**", ""),
        (row("a", 5, 2, peer="another"), "", "2.5"),
        (row("a", 5), "", ""),
    ],
)
def test_a_missed_limit_says_no(found, met, ratio):
    assert shown(found)[3:] == [ratio, met]
    assert missed(found) == (met == "**no**")


def test_a_dropped_file_needs_no_code(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    text = (
        json.dumps({"what": "late", "figure": 3, "limit": 2})
        + "\n"
        + json.dumps({"what": "fine", "figure": 1})
    )
    keep("another", title="Another", command="python x.py", note="", text=text)
    assert benchmarks.blocks()["summary"] == "1 limits, 0 met, 1 missed:\n\n- Another: late: 3 <= 2\n"
    assert "| late | 3 | <= 2 | 1.5 | **no** |" in benchmarks.blocks()["tables"]
    assert "python x.py" in benchmarks.blocks()["tables"]


def test_what_other_benchmarks_print_becomes_rows():
    """Those that need minutes or another environment: their output's shape, not their figures."""
    line = {
        "case": "complete_semi_honest",
        "what": "client_cpu_s",
        "figure": 0.13,
        "limit": 0.12,
        "published": 1.699,
    }
    missed_it, published = map(shown, benchmarks.figure_rows([line]))
    assert missed_it == ["complete semi honest: client_cpu_s", "0.13", "<= 0.12", "1.083", "**no**"]
    assert published[2:] == ["Bonawitz et al. 2017: 1.699", "0.07652", ""]
    compared = {"veilsum": 0.2, "flower": 8.0, "times_less": 40.0, "at_least": 28}
    raw = [
        {"case": "sparse", "what": "server_cpu_s", **compared},
        {
            "case": "survival",
            "what": "one client lost at share",
            "veilsum": True,
            "flower": False,
            "met": True,
        },
    ]
    assert [shown(found) for found in benchmarks.flower_rows(raw)] == [
        ["sparse: server_cpu_s", "0.2", "Flower: 8", "0.025", ""],
        ["sparse: server_cpu_s, times less than Flower's", "40", ">= 28", "1.429", "yes"],
        ["survival: one client lost at share", "yes", "Flower: no", "", ""],
    ]
    raw = [{"figure": "charge a round", "cpu_s": 0.001, "wall_s": 0.028, "limit_s": 0.02, "ratio": 1.4}]
    assert shown(*benchmarks.ledger_rows(raw))[1:] == ["0.028 s", "<= 0.02 s", "1.4", "**no**"]
