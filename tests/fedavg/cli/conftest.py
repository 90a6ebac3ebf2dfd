"""The command line in this process: quick, and its stdout and stderr can be read."""

from __future__ import annotations

import sys
from typing import NamedTuple

import pytest

from fedavg.cli import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def veilsum(capsys, monkeypatch, tmp_path):
    """Run `veilsum ...` in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["veilsum", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return Ran(int(left.value.code or 0), *capsys.readouterr())

    return run
