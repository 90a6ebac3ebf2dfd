"""The tables of `docs/benchmarks.md`, out of the results that benchmarks printed.

    python benchmarks/x.py | python -m docs.make.benchmarks keep x --title "..." --command "..."
    python -m docs.make.benchmarks

`keep` reads what a benchmark prints (one JSON value, or one a line) and writes `docs/results/x.json` with the machine
and the date; the second command writes the page. A result is turned into rows by its function in `ROWS`; one without
such a function holds its rows itself: a list of objects with `what`, `figure` and, where there is one, `limit` (a
number), `sense` ("<=", the default, or ">="), `peer` (a name: `limit` is then the peer's own figure) and `unit`.

A row is met when its figure keeps the limit; a peer's figure is only compared. Not here: the benchmarks themselves.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from docs.make.generated import DOCS, table, write

PAGE = DOCS / "benchmarks.md"
RESULTS = DOCS / "results"

Row = dict[str, Any]


def row(what: str, figure: float, limit: float | None = None, sense: str = "<=", **more: Any) -> Row:
    """One line of a table."""
    return {"what": what, "figure": figure, "limit": limit, "sense": sense, **more}


def encoding_rows(raw: dict[str, Any]) -> Iterator[Row]:
    """CPU time against numpy's normal draw, error against a central Gaussian's."""
    for cost in raw["cost"]:
        name = (
            f"encode 2^20 values, {cost['encoding']}, {cost['bits']} bits: CPU over one standard_normal draw"
        )
        yield row(name, cost["ratio"], 2 if cost["encoding"] == "plain" else 3)
    limits = {("plain", 28): 0.03, ("rotated", 18): 0.01, ("rotated", 16): 0.03}
    for error in raw["error"]:
        kind = error["encoding"], error["bits"]
        yield row(
            f"error of the sum of 1,000 above a central Gaussian's, {kind[0]}, {kind[1]} bits",
            error["excess"],
            limits[kind],
        )


def sampler_rows(raw: dict[str, Any]) -> Iterator[Row]:
    """Draws against numpy's float normal; tables for a discrete Gaussian."""
    for found in raw["results"]:
        name = f"{found['sampler'].replace('_', ' ')}, deviation {found['stddev']:,g}"
        if found["sampler"] == "discrete_gaussian":
            yield row(
                f"{name}: times numpy's rate", found["ratio"], 1.6 if found["stddev"] <= 2000 else 1.1, ">="
            )
        else:
            yield row(f"{name}: times numpy's rate", found["ratio"], 1, ">=", peer="numpy")
    tables = [found for found in raw["results"] if "table_bytes" in found]
    yield row("largest table", max(found["table_bytes"] for found in tables) / 2**20, 2, unit="MiB")
    yield row("longest time to build one", max(found["build_cpu_s"] for found in tables), 0.1, unit="CPU s")


def figure_rows(raw: list[dict[str, Any]]) -> Iterator[Row]:
    """What `benchmarks/secagg_figures.py` prints: one row each, and one beside what others published."""
    for found in raw:
        what = f"{found['case'].replace('_', ' ')}: {found['what']}"
        yield row(what, found["figure"], found["limit"])
        if found.get("published"):
            yield row(what, found["figure"], found["published"], peer="Bonawitz et al. 2017")


def flower_rows(raw: list[dict[str, Any]]) -> Iterator[Row]:
    """What `benchmarks/secagg_against_flower.py` prints: our figure, Flower's, how many times less ours must be."""
    for found in raw:
        what = f"{found['case']}: {found['what']}"
        yield row(what, found["veilsum"], found["flower"], peer="Flower")
        if "at_least" in found:
            yield row(f"{what}, times less than Flower's", found["times_less"], found["at_least"], ">=")


def ledger_rows(raw: list[dict[str, Any]]) -> Iterator[Row]:
    """What `benchmarks/dp_ledger.py` prints: the larger of CPU and wall time."""
    for found in raw:
        yield row(found["figure"], max(found["cpu_s"], found["wall_s"]), found["limit_s"], unit="s")


def unit_rows(raw: dict[str, float]) -> Iterator[Row]:
    """Unit costs: figures without a limit; `docs/scale.md` multiplies them."""
    for name, cost in raw.items():
        what, unit, per = re.fullmatch(r"(.+?)_(us|ns|bytes)(?:_per_(\w+))?", name).groups()  # type: ignore[union-attr]
        yield row(what.replace("_", " "), cost, unit=unit + (f" per {per}" if per else ""))


ROWS: dict[str, Callable[[Any], Iterator[Row]]] = {
    "dp_encoding": encoding_rows,
    "dp_samplers": sampler_rows,
    "dp_ledger": ledger_rows,
    "secagg_figures": figure_rows,
    "secagg_against_flower": flower_rows,
    "unit_costs": unit_rows,
}


def number(value: Any) -> str:
    """A figure for reading: four digits, thousands separated."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def shown(found: Row) -> list[str]:
    """The cells of a row."""
    figure, limit, sense = found["figure"], found.get("limit"), found.get("sense", "<=")
    unit = f" {found['unit']}" if found.get("unit") else ""
    if limit is None:
        return [found["what"], number(figure) + unit, "", "", ""]
    peer = found.get("peer")
    ratio = number(figure / limit) if limit and not isinstance(figure, bool) else ""
    against = f"{peer}: {number(limit)}{unit}" if peer else f"{sense} {number(limit)}{unit}"
    met = "" if peer else ("yes" if (figure >= limit if sense == ">=" else figure <= limit) else "**no**")
    return [found["what"], number(figure) + unit, against, ratio, met]


def results() -> dict[str, dict[str, Any]]:
    """Every kept result, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def rows_of(name: str, result: dict[str, Any]) -> list[Row]:
    """The rows of one result."""
    return list(ROWS[name](result["raw"])) if name in ROWS else list(result["raw"])


def missed(found: Row) -> bool:
    """Whether a row misses its limit."""
    return shown(found)[-1] == "**no**"


def section(name: str, result: dict[str, Any]) -> str:
    """Heading, command, machine, date and table of one result."""
    note = f"\n{result['note']}\n" if result.get("note") else ""
    return (
        f"### {result['title']}\n\n    {result['command']}\n\n{result['machine']}; {result['date']}.\n{note}\n"
        + table(["what", "measured", "limit or peer", "ratio", "met"], map(shown, rows_of(name, result)))
        + "\n"
    )


def summary() -> str:
    """How many limits there are and which are missed."""
    rows = [(result["title"], found) for name, result in results().items() for found in rows_of(name, result)]
    limits = [found for _, found in rows if found.get("limit") is not None and not found.get("peer")]
    lines = [
        f"- {title}: {found['what']}: {' '.join(shown(found)[1:3])}\n"
        for title, found in rows
        if missed(found)
    ]
    head = f"{len(limits)} limits, {len(limits) - len(lines)} met, {len(lines)} missed"
    return head + (":\n\n" + "".join(lines) if lines else ".\n")


def blocks() -> dict[str, str]:
    """Every generated block of the page."""
    return {"summary": summary(), "tables": "\n" + "".join(section(*item) for item in results().items())}


def machine() -> str:
    """This machine without its name."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = {
        key: re.search(rf"^{key}\s*: (.+)$", info, re.MULTILINE)
        for key in ("model name", "cpu family", "model")
    }
    cpu, family, model = (match[1] if match else "unknown" for match in found.values())
    return (
        f"{os.cpu_count()} cores of {cpu} (family {family}, model {model}), {platform.system()}, Python"
        f" {platform.python_version()}, numpy {version('numpy')}, cryptography {version('cryptography')}"
    )


def keep(name: str, *, title: str, command: str, note: str, text: str) -> None:
    """Write one result file."""
    try:
        raw = json.loads(text)
    except json.JSONDecodeError:
        raw = [json.loads(line) for line in text.splitlines() if line.strip()]
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    result = {
        "title": title,
        "command": command,
        "machine": machine(),
        "date": date,
        "note": note,
        "raw": raw,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    """Keep a result from standard input, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="what")
    keeping = commands.add_parser("keep", help="write a result file from standard input")
    keeping.add_argument("name")
    keeping.add_argument("--title", required=True)
    keeping.add_argument("--command", required=True)
    keeping.add_argument("--note", default="")
    options = parser.parse_args()
    if options.what == "keep":
        keep(
            options.name,
            title=options.title,
            command=options.command,
            note=options.note,
            text=sys.stdin.read(),
        )
    else:
        write(PAGE, blocks())


if __name__ == "__main__":
    main()
