"""What encoding a large vector costs, and how far a decoded sum is from a central Gaussian's.

Prints one JSON object. `cost`: CPU milliseconds to clip, rotate, round, check and noise one vector (`ours`) and to
draw one `standard_normal` of the same length (`reference`), taken in turns in the same process, and their `ratio`.
`error`: mean squared error of a coordinate of the sum of all clients, each with its own noise share and all with the
same vector of full norm (the worst case for wrapping), over that of a central Gaussian of the same noise multiplier.
Run alone: `PYTHONPATH=. python benchmarks/dp_encoding.py` (a minute); `--clients 0` for the cost only.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dp.blocks import Block
from dp.compression import compressed
from dp.discrete_gaussian import DiscreteGaussian
from dp.encoding import Encoding
from dp.keystream import Keystream

NOISE_MULTIPLIER = 1.0
BOUND = 0.5


def cpu_ms(function: Callable[[], Any]) -> float:
    start = time.process_time_ns()
    function()
    return (time.process_time_ns() - start) / 1e6


def plans(length: int, clients: int) -> list[tuple[str, int, Encoding]]:
    blocks = [Block("update", length, BOUND, 1.0)]
    plain = Encoding.plan(blocks)
    bits = plain.check_bits(None, summands=clients, noise_stddev=NOISE_MULTIPLIER * plain.sensitivity)
    rotated = [
        compressed(
            blocks,
            rotation_key=bytes(32),
            summands=clients,
            noise_multiplier=NOISE_MULTIPLIER,
            modulus_bits=few,
            excess=1.0,
        )
        for few in (18, 16)
    ]
    return [("plain", bits, plain), ("rotated", 18, rotated[0]), ("rotated", 16, rotated[1])]


def cost(encoding: Encoding, vector: np.ndarray, clients: int, repeats: int) -> dict[str, float]:
    noise = DiscreteGaussian(stddev=NOISE_MULTIPLIER * encoding.sensitivity / math.sqrt(clients))
    stream, generator = Keystream(), np.random.default_rng(0)

    def encode() -> None:
        integers = encoding.encode({"update": vector}, stream)
        noise.add_to(integers, stream)

    encode()
    pairs = [(cpu_ms(encode), cpu_ms(lambda: generator.standard_normal(len(vector)))) for _ in range(repeats)]
    ours, reference = (min(column) for column in zip(*pairs, strict=True))
    return {"ours": round(ours, 2), "reference": round(reference, 2), "ratio": round(ours / reference, 2)}


def error(encoding: Encoding, bits: int, vector: np.ndarray, clients: int) -> float:
    noise = DiscreteGaussian(stddev=NOISE_MULTIPLIER * encoding.sensitivity / math.sqrt(clients))
    stream = Keystream()
    total = np.zeros(encoding.dimension, dtype=np.int64)
    for _ in range(clients):
        total += encoding.encode({"update": vector}, stream)
        noise.add_to(total, stream)
    wrapped = total.view(np.uint64) & np.uint64((1 << bits) - 1)
    decoded = encoding.decode(wrapped, modulus_bits=bits)["update"]
    return float(np.mean((decoded - clients * vector) ** 2)) / (NOISE_MULTIPLIER * BOUND) ** 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=1 << 20)
    parser.add_argument("--clients", type=int, default=1000, help="of the sum whose error is measured")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    vector = np.random.default_rng(1).normal(size=options.length)
    vector *= BOUND / np.linalg.norm(vector)
    clients = options.clients or 1000
    costs, errors = [], []
    for name, bits, encoding in plans(options.length, clients):
        facts = {"encoding": name, "bits": bits}
        costs.append(facts | cost(encoding, vector, clients, options.repeats))
        if options.clients:
            errors.append(facts | {"excess": round(error(encoding, bits, vector, clients) - 1, 4)})
    print(
        json.dumps({"length": options.length, "clients": clients, "cost": costs, "error": errors}, indent=1)
    )


if __name__ == "__main__":
    main()
