"""The command itself: help, version, warnings, and errors as exit codes."""

from __future__ import annotations

import subprocess
import sys
import warnings
from importlib.metadata import version

import pytest

import dp
import fedavg
import secagg
from fedavg.cli import app as module


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("simulate", "--help"),
        ("data", "-h"),
        ("budget", "plan", "-h"),
        ("bench", "secagg", "-h"),
    ],
)
def test_help_fits_80_columns(veilsum, arguments):
    ran = veilsum(*arguments)
    assert ran.code == 0
    assert "Usage: veilsum" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_version(veilsum):
    assert veilsum("--version") == (0, f"veilsum {version('veilsum')}\n", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (fedavg.ParameterError("a sentence"), 2),
        (secagg.ParameterError("a sentence"), 2),
        (dp.ParameterError("a sentence"), 2),
        (dp.LedgerError("a sentence"), 2),
        (fedavg.RoundAborted("a sentence", charged=True), 1),
    ],
)
def test_errors_raised_on_purpose_are_a_sentence_and_a_code(veilsum, monkeypatch, error, code):
    def fail(**_):
        raise error

    monkeypatch.setattr(module, "app", fail)
    assert veilsum() == (code, "", "veilsum: a sentence\n")


def test_any_other_error_is_a_bug_and_keeps_its_traceback(veilsum, monkeypatch):
    def fail(**_):
        raise ZeroDivisionError

    monkeypatch.setattr(module, "app", fail)
    with pytest.raises(ZeroDivisionError):
        module.main()


def test_warnings_for_users_are_sentences(veilsum, monkeypatch):
    def warn(**_):
        warnings.simplefilter("always")
        warnings.warn("mind the gap", stacklevel=1)
        raise SystemExit(0)

    monkeypatch.setattr(module, "app", warn)
    assert veilsum() == (0, "", "Warning: mind the gap\n")


def test_importing_the_library_loads_no_command_line():
    code = (
        "import sys, fedavg, fedavg.datasets, fedavg.report;"
        "print(sorted({'typer', 'rich', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
