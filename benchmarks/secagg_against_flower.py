"""Veilsum's secure aggregation beside Flower's SecAgg+: same machine, same run, same graph, same threshold.

Both sum 100 clients' float vectors of length 10^6, quantised to 19 bits (the quantising is counted on both
sides), on a ring with 20 neighbours, threshold 11, 10% of the clients silent after they shared their keys;
then Flower again with everybody as a neighbour. Flower runs in an environment of its own:

    python3.11 -m venv /tmp/flower && /tmp/flower/bin/pip install flwr
    python benchmarks/secagg_against_flower.py --flower-python /tmp/flower/bin/python

Prints one JSON object: both sides' figures and, for each limit, our figure, the limit and whether it holds.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np

from fedavg.bench_secagg import measure
from secagg import simulate

CLIENTS, LENGTH, NEIGHBOURS, THRESHOLD, DROPPED, LEVEL_BITS, CLIP = 100, 10**6, 20, 11, 10, 19, 8.0
SUM_BITS = LEVEL_BITS + (CLIENTS - 1).bit_length()


def quantise(values, rng):
    """Clip, scale to 2^19 levels and round at random, as Flower does before it masks."""
    scaled = np.clip(values, -CLIP, CLIP)
    scaled += CLIP
    scaled *= (2**LEVEL_BITS - 1) / (2 * CLIP)
    scaled += rng.random(len(values), dtype=np.float32)
    return scaled.astype(np.uint32)


def dequantise(total, count):
    """Turn the sum of levels into the mean."""
    return total * (2 * CLIP / (2**LEVEL_BITS - 1) / count) - CLIP


def cpu_seconds(work):
    """Median CPU seconds of nine calls."""
    spent = []
    for _ in range(9):
        begin = time.process_time()
        work()
        spent.append(time.process_time() - begin)
    return statistics.median(spent)


def ours():
    result = measure(
        clients=CLIENTS,
        length=LENGTH,
        graph="sparse",
        neighbours=NEIGHBOURS,
        threshold=THRESHOLD,
        modulus_bits=SUM_BITS,
        dropout=DROPPED / CLIENTS,
    )
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, LENGTH).astype(np.float32)
    total = np.zeros(LENGTH, np.uint32)
    return {
        "client_cpu_s": result["client_cpu_s"] + cpu_seconds(lambda: quantise(values, rng)),
        "server_cpu_s": result["server_cpu_s"] + cpu_seconds(lambda: dequantise(total, CLIENTS - DROPPED)),
        "client_bytes_up": result["client_bytes_up"],
        "max_abs_error": result["max_abs_error"],
        "survives_one_dropout_at": {
            stage: len(survivors_without_one(stage)) >= CLIENTS - 1
            for stage in ("advertise", "share", "masked_input", "unmask")
        },
    }


def survivors_without_one(stage):
    inputs = {client: np.ones(1000, np.uint32) for client in range(CLIENTS)}
    return simulate(
        inputs, modulus_bits=SUM_BITS, neighbours=NEIGHBOURS, threshold=THRESHOLD, dropouts={stage: [1]}
    ).survivors


def flower(python, shares, threshold, *options):
    script = Path(__file__).with_name("flower_secaggplus.py")
    settings = {
        "clients": CLIENTS,
        "length": LENGTH,
        "shares": shares,
        "threshold": threshold,
        "quantization-bits": LEVEL_BITS,
        "dropped": DROPPED,
    }
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    done = subprocess.run([python, str(script), *arguments, *options], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flower-python", required=True, help="a Python that has flwr")
    python = parser.parse_args().flower_python
    own = ours()
    sparse = flower(python, NEIGHBOURS + 1, THRESHOLD, "--survival")
    complete = flower(python, CLIENTS, CLIENTS // 2 + 1)
    figures = {
        "client_times_cheaper": (sparse["client_cpu_s"] / own["client_cpu_s"], ">=", 9),
        "server_times_cheaper": (sparse["server_cpu_s"] / own["server_cpu_s"], ">=", 28),
        "server_times_cheaper_than_complete": (complete["server_cpu_s"] / own["server_cpu_s"], ">=", 130),
        "bytes_up_share": (own["client_bytes_up"] / sparse["client_bytes_up"], "<=", 0.41),
    }
    checks = {
        name: {"figure": figure, "limit": f"{sign} {limit}", "met": (figure >= limit) == (sign == ">=")}
        for name, (figure, sign, limit) in figures.items()
    }
    print(
        json.dumps(
            {"checks": checks, "veilsum": own, "flower": sparse, "flower_complete": complete}, indent=1
        )
    )


if __name__ == "__main__":
    main()
