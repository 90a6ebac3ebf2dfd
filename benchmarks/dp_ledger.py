"""What a long ledger costs: charging a round, counting its cohort, reading what was spent, statements, verifying.

    python benchmarks/dp_ledger.py [--quick]

One JSON line each: seconds of CPU and on the wall, and each over its limit; what is short is the median of many. A
charge waits for the disk a few times, which the wall shows and the CPU does not.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import dp

PRIVACY = dp.Privacy(
    delta=1e-6, l2_clip_norm=0.3, readers_epsilon=1e3, server_epsilon=1e4, max_participations=500
)
SAMPLER = dp.PaddedPoisson(100_000, 1_000)
MECHANISM = dp.DistributedDiscreteGaussian(
    noise_multiplier=1.5, sensitivity=9000.0, dimension=7850, honest_survivors=900
)


def filled(path: Path, rounds: int, *, shared: bool) -> dp.Ledger:
    """A ledger of so many settled rounds; without waiting for the disk, which is not what is measured here."""
    if shared:
        dp.Ledger.share(path, budget=dp.SharedBudget(delta=1e-6, readers_epsilon=1e3, server_epsilon=1e3))
    accountant = dp.RunAccountant(MECHANISM, SAMPLER, PRIVACY, rounds + 1_000)
    ledger = dp.Ledger.attach(path, accountant=accountant, run={"task": "benchmark"})
    ledger._file._connection.execute("PRAGMA synchronous = OFF")
    ledger._file._connection.execute("PRAGMA journal_mode = MEMORY")
    for number in range(rounds):
        reserved = ledger.reserve(timestamp=float(number))
        ledger.settle(reserved, survivors=1_000, model_hash=bytes(32), timestamp=float(number))
    ledger._file._connection.close()
    return dp.Ledger.attach(path, accountant=accountant, run={"task": "benchmark"})


def timed(figure: str, limit: float, task: Callable[[], object], repeats: int = 1) -> None:
    """Run, time, print."""
    cpu, wall = [], []
    for _ in range(repeats):
        started = time.process_time(), time.perf_counter()
        task()
        cpu.append(time.process_time() - started[0])
        wall.append(time.perf_counter() - started[1])
    line = {"figure": figure, "limit_s": limit}
    for name, seconds in (("cpu", statistics.median(cpu)), ("wall", statistics.median(wall))):
        line |= {f"{name}_s": round(seconds, 5), f"{name}_ratio": round(seconds / limit, 3)}
    print(json.dumps(line), flush=True)


def measure(folder: Path, *, shared: bool, short: int, long: int) -> None:
    """The figures of one kind of ledger."""
    kind = "shared" if shared else "one run"
    ledger = filled(folder / "short.sqlite", short, shared=shared)
    charges = iter(range(10**6))
    timed(
        f"charge a round, {short} rounds, {kind}",
        0.02,
        lambda: ledger.reserve(timestamp=1e9 + next(charges)),
        50,
    )
    timed(f"statements, {short} rounds, {kind}", 1.0, lambda: statements(ledger))
    filled(folder / "long.sqlite", long, shared=shared)
    timed(f"spending, {long} rounds, {kind}", 2.0, lambda: dp.spending(folder / "long.sqlite"))
    timed(f"verify, {long} rounds, {kind}", 30.0, lambda: dp.verify(folder / "long.sqlite"))


def claim(folder: Path) -> None:
    """Counting a cohort of a thousand among clients that are a million."""
    accountant = dp.RunAccountant(MECHANISM, SAMPLER, PRIVACY, 100)
    counts = dp.ParticipationCounts(
        dp.Ledger.attach(folder / "counted.sqlite", accountant=accountant, run={})
    )
    draws = iter(np.random.default_rng(1).choice(10**6, (20, 1_000), replace=False).tolist())
    invited = dp.Draw(np.arange(1_000), np.ones(1_000, dtype=bool))
    timed("count a cohort of 1000", 0.1, lambda: counts.claim(invited, next(draws), cap=5), 20)


def statements(ledger: dp.Ledger) -> dp.Statements:
    """Both statements of a ledger as it stands."""
    return dp.statements(
        ledger.spent(),
        mechanism=MECHANISM,
        sampler=SAMPLER,
        privacy=PRIVACY,
        minimum_survivors=950,
        charged=ledger.charged,
        aborted=ledger.aborted,
        sharing=ledger.sharing,
    )


if __name__ == "__main__":
    short, long = (1_000, 2_000) if "--quick" in sys.argv else (10_000, 100_000)
    with tempfile.TemporaryDirectory() as folder:
        claim(Path(folder))
    for shared in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), shared=shared, short=short, long=long)
