"""The page of benchmarks says what the kept results say, missed limits included."""

import json
import re

import pytest

from docs import make_benchmarks
from docs.generated import blocks_in
from docs.make_benchmarks import keep, missed, row, rows_of, shown

PAGE = make_benchmarks.PAGE.read_text()


@pytest.mark.parametrize("name", ["summary", "tables"])
def test_the_page_is_what_the_results_give(name):
    assert blocks_in(PAGE)[name] == make_benchmarks.blocks()[name], "run python -m docs.make_benchmarks"


@pytest.mark.parametrize("name", make_benchmarks.results())
def test_every_result_is_complete_and_names_no_host(name):
    result = make_benchmarks.results()[name]
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
    monkeypatch.setattr(make_benchmarks, "RESULTS", tmp_path)
    text = (
        json.dumps({"what": "late", "figure": 3, "limit": 2})
        + "\n"
        + json.dumps({"what": "fine", "figure": 1})
    )
    keep("another", title="Another", command="python x.py", note="", text=text)
    assert make_benchmarks.blocks()["summary"] == "1 limits, 0 met, 1 missed:\n\n- Another: late: 3 <= 2\n"
    assert "| late | 3 | <= 2 | 1.5 | **no** |" in make_benchmarks.blocks()["tables"]
    assert "python x.py" in make_benchmarks.blocks()["tables"]


def test_what_the_secure_sum_benchmarks_print_becomes_rows():
    """The two that need minutes or another environment: their output's shape, not their figures."""
    line = {
        "case": "sparse_k52",
        "what": "client_ratio",
        "figure": 1.3,
        "limit": 1.4,
        "of_limit": 0.93,
        "met": True,
    }
    (found,) = make_benchmarks.figure_rows([line])
    assert shown(found) == ["sparse k52: client_ratio", "1.3", "<= 1.4", "0.9286", "yes"]
    survives = {"share": True}
    ours = {
        "client_cpu_s": 0.01,
        "server_cpu_s": 0.2,
        "client_bytes_up": 3.2e6,
        "survives_one_dropout_at": survives,
    }
    theirs = {"client_cpu_s": 0.2, "server_cpu_s": 8.0, "client_bytes_up": 8e6}
    raw = {
        "checks": {"client_times_cheaper": {"figure": 8.0, "limit": ">= 9", "met": False}},
        "veilsum": ours,
        "flower": theirs | {"survives_one_dropout_at": {"share": False}},
    }
    rows = [shown(found) for found in make_benchmarks.flower_rows(raw)]
    assert rows[0] == ["client times cheaper", "8", ">= 9", "0.8889", "**no**"]
    assert rows[2] == ["server_cpu_s", "0.2 CPU s", "Flower: 8 CPU s", "0.025", ""]
    assert rows[-1] == ["survives one dropout at share", "yes", "Flower: no", "", ""]
