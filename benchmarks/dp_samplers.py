"""Exact integer noise against numpy's float normal, in one process: nanoseconds of CPU time a draw.

Prints one JSON object: for each sampler `ours` and `reference` (both ns a draw), `ratio` (reference over ours, above 1
is faster than numpy), the tables' bytes and the CPU seconds to build them.
Run alone: `PYTHONPATH=. python benchmarks/dp_samplers.py`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dp.discrete_gaussian import DiscreteGaussian, _sampler
from dp.keystream import Keystream
from dp.skellam import Skellam

STDDEVS = (0.5, 1.0, 10.0, 100.0, 700.0, 2_000.0, 8_000.0, 1e4, 1e5, 1e6)


def cpu_ns(function: Callable[[], Any]) -> int:
    start = time.process_time_ns()
    function()
    return time.process_time_ns() - start


def measure(sample: Callable[[int], Any], *, draws: int, repeats: int) -> dict[str, float]:
    """Least CPU time of each, the two taken in turns."""
    generator = np.random.default_rng(0)
    sample(draws)
    pairs = [
        (cpu_ns(lambda: sample(draws)), cpu_ns(lambda: generator.standard_normal(draws)))
        for _ in range(repeats)
    ]
    ours, reference = (min(column) / draws for column in zip(*pairs, strict=True))
    return {"ours": round(ours, 3), "reference": round(reference, 3), "ratio": round(reference / ours, 2)}


def table_bytes(stddev: float) -> int:
    sampler = _sampler(stddev)
    return getattr(sampler, "_blocks", sampler).nbytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1 << 20)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    stream = Keystream()
    results = []
    for stddev in STDDEVS:
        noise = DiscreteGaussian(stddev=stddev)
        built = cpu_ns(lambda stddev=stddev: _sampler(stddev)) / 1e9
        figures = measure(
            lambda n, d=noise: d.sample(n, stream), draws=options.draws, repeats=options.repeats
        )
        results.append(
            {
                "sampler": "discrete_gaussian",
                "stddev": stddev,
                **figures,
                "table_bytes": table_bytes(stddev),
                "build_cpu_s": round(built, 4),
            }
        )
    for stddev in (1.0, 100.0, 2_000.0):
        skellam = Skellam(variance=stddev**2)
        built = cpu_ns(lambda d=skellam: d.sample(1, stream)) / 1e9
        figures = measure(
            lambda n, d=skellam: d.sample(n, stream), draws=options.draws, repeats=options.repeats
        )
        results.append({"sampler": "skellam", "stddev": stddev, **figures, "build_cpu_s": round(built, 4)})
    print(json.dumps({"unit": "ns of CPU time a draw", "draws": options.draws, "results": results}, indent=1))


if __name__ == "__main__":
    main()
