"""Where lines go: figures to stdout, complaints to stderr, one object with `--json`, a bar in terminals only."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fedavg.cli.screen import Screen

LONG = "word " * 60


def everything(screen):
    screen.say(LONG)
    screen.warn(LONG)
    screen.heading("Heading")
    screen.paragraph(LONG)
    screen.paragraph(LONG, bullet="-")
    screen.facts({"name": LONG, "a longer name": "value"})
    screen.table(("one", "two"), [("a", LONG), ("b", "c")])
    with screen.download("fetching") as fetched:
        fetched(1, 2)
    with screen.rounds(2) as advance:
        advance(1)
        screen.line("[bold]a row[/bold] :smile:")
    screen.result({"answer": 42})


def test_prose_fits_80_columns_and_leaves_no_trailing_blanks(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    everything(Screen())
    out, err = capsys.readouterr()
    assert max(map(len, (out + err).splitlines())) <= 80
    assert "Heading" in out
    assert "[bold]a row[/bold] :smile:" in out  # Nothing a user wrote is taken for markup.
    assert err.startswith("Warning: word")
    assert "answer" not in out


def test_with_json_stdout_holds_the_object_alone(capsys):
    everything(Screen(as_json=True))
    out, err = capsys.readouterr()
    assert json.loads(out) == {"answer": 42}
    assert out.count("\n") == 1
    assert "Heading" in err


def test_no_bar_is_drawn_where_nobody_looks(capsys):
    everything(Screen())
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "━" not in out + err


def test_forced_colours_move_no_line_to_stderr_and_draw_no_bar(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    everything(Screen())
    out, err = capsys.readouterr()
    assert "a longer name" in out
    assert "a row" in out
    assert "━" not in err


def test_a_failure_is_one_line_however_long(capsys):
    Screen().fail(LONG.strip())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"veilsum: {LONG.strip()}"]


SCRIPT = """
    from fedavg.cli.screen import Screen
    screen = Screen()
    with screen.rounds(2) as advance:
        for done in (1, 2):
            screen.line(f"line {done}")
            advance(done)
"""


@pytest.mark.parametrize("piped", [False, True])
def test_in_a_terminal_a_bar_is_drawn_unless_stdout_is_a_pipe(piped, tmp_path):
    """What reads a pipe may write to the same terminal and would run into the bar."""
    ours, theirs = pty.openpty()
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE if piped else theirs,
        stderr=theirs,
        env=environment,
    ) as process:
        out = process.communicate(timeout=60)[0]
        os.set_blocking(ours, False)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except BlockingIOError:
                break
    os.close(theirs)
    os.close(ours)
    assert process.returncode == 0
    assert ("━".encode() in shown) is not piped
    assert (out or shown).count(b"line 1") == 1
