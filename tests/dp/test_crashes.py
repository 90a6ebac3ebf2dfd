"""A process killed at any of its system calls leaves a ledger, or counts, that can be read and never say less.

Each test kills a child at every `STRIDE`-th stop of a few rounds, the drills at every one: between any two writes,
in the middle of every commit, with and without a journal that has to be taken back.
"""

import math
import os
import shutil
import sys

import numpy as np
import pytest

from dp.accounting import RunAccountant
from dp.cohorts import Draw, PaddedPoisson
from dp.ledger import Ledger
from dp.mechanisms import DistributedDiscreteGaussian
from dp.participation import ParticipationCounts
from dp.privacy import Privacy
from dp.shared_budget import SharedBudget
from dp.spending import spending
from tests.dp.kill import can_trace, killed_at

pytestmark = pytest.mark.skipif(
    not (sys.platform == "linux" and can_trace()), reason="this system does not let a process trace its child"
)

STRIDE = 37
DRAW = Draw(np.arange(3), np.array([True, True, False]))


def attach(path):
    figures = {"noise_multiplier": 3.0, "sensitivity": 9000.0, "dimension": 100, "honest_survivors": 100}
    privacy = Privacy(delta=1e-5, l2_clip_norm=1.0, noise_multiplier=3.0)
    accountant = RunAccountant(DistributedDiscreteGaussian(**figures), PaddedPoisson(1000, 100), privacy, 50)
    return Ledger.attach(path, accountant=accountant, run={"task": "crash"})


def every_kill(stride, prepare, task, check):
    """Kill a task ever later, until it is no longer killed; say how far it came each time."""
    stop = 1 + stride // 2
    kills = 0
    while True:
        prepared = prepare()
        reading, writing = os.pipe()
        killed = killed_at(stop, lambda p=prepared: attach(p), lambda ledger, w=writing: task(ledger, w))
        os.close(writing)
        with os.fdopen(reading, "rb") as said:
            check(prepared, said.read().decode(), killed)
        if not killed:
            return kills
        kills += 1
        stop += stride


@pytest.mark.parametrize("kind", ["one run", "shared"])
@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.drill)])
def test_a_ledger_never_says_less_than_was_charged(tmp_path, kind, stride):
    base = tmp_path / "base.sqlite"
    if kind == "shared":
        Ledger.share(base, budget=SharedBudget(delta=1e-5, readers_epsilon=8.0, server_epsilon=30.0))
    attach(base).reserve()
    before = spending(base)
    seen = {"journals": 0}

    def prepare():
        return shutil.copy(base, tmp_path / "ledger.sqlite")

    def rounds(ledger, said):
        """Small letters before, capital ones after."""
        number = ledger.reserve()
        os.write(said, b"R")
        ledger.settle(number, survivors=1, model_hash=bytes(32))
        os.write(said, b"S")
        number = ledger.reserve()
        os.write(said, b"R")
        os.write(said, b"f")
        ledger.refund(number, reason="none")

    def check(path, said, killed):
        files = [path, path.with_name("ledger.sqlite-journal")]
        left = [file.read_bytes() if file.exists() else None for file in files]
        seen["journals"] += left[1] is not None
        found = spending(path)
        Ledger.open(path).verify()
        assert [file.read_bytes() if file.exists() else None for file in files] == left
        least = said.count("R") - said.count("f")
        charged = found.runs[0].charged - before.runs[0].charged
        assert least <= charged <= said.count("R") + killed
        assert found.runs[0].settled >= said.count("S")
        if charged:
            assert found.spent.readers > before.spent.readers
            assert found.spent.server > before.spent.server
        again = attach(path)
        assert again.spent() == found.spent
        assert again.reserve() > said.count("R")
        assert not files[1].exists()

    kills = every_kill(stride, prepare, rounds, check)
    assert kills >= (10 if stride > 1 else 300)
    assert seen["journals"] > 0


@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.drill)])
def test_counts_never_say_less_than_was_claimed(tmp_path, stride):
    base = tmp_path / "base.sqlite"
    ledger = attach(base)
    ParticipationCounts(ledger).claim(DRAW, ["ann", "bob"], cap=None)
    ledger.reserve()

    def prepare():
        for part in (".sqlite", ".participations.sqlite", ".participations.key"):
            shutil.copy(base.with_name(f"base{part}"), tmp_path / f"run{part}")
        (tmp_path / "run.participations.sqlite-journal").unlink(missing_ok=True)
        return tmp_path / "run.sqlite"

    def claims(ledger, said):
        counts = ParticipationCounts(ledger)
        for _ in range(3):
            counts.claim(DRAW, ["ann", "cid"], cap=None)
            os.write(said, b"C")

    def check(path, said, killed):
        counts = ParticipationCounts(attach(path))
        assert said.count("C") <= counts.count("cid") <= said.count("C") + killed
        assert counts.count("ann") == counts.count("cid") + 1
        assert counts.count("bob") == 1

    assert every_kill(stride, prepare, claims, check) >= (5 if stride > 1 else 200)


@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.drill)])
def test_a_kill_while_ledger_and_counts_are_made_leaves_what_can_be_made_again(tmp_path, stride):
    path = tmp_path / "made.sqlite"

    def prepare():
        for old in tmp_path.iterdir():
            old.unlink()

    def make(_, said):
        ledger = attach(path)
        os.write(said, b"L")
        ParticipationCounts(ledger)
        os.write(said, b"C")

    def check(_, said, killed):
        ledger = attach(path)
        ParticipationCounts(ledger)
        ledger.verify()
        assert ledger.spent().readers == 0
        assert not math.isnan(ledger.spent().server)
        assert sum("key" in left.name for left in tmp_path.iterdir()) <= 1 + killed

    stop, killed = 1 + stride // 2, True
    while killed:
        prepare()
        reading, writing = os.pipe()
        killed = killed_at(stop, lambda: None, lambda _, w=writing: make(None, w))
        os.close(writing)
        with os.fdopen(reading, "rb") as said:
            check(None, said.read().decode(), killed)
        stop += stride
