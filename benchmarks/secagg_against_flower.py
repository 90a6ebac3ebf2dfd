"""Veilsum's secure aggregation beside Flower's SecAgg+: same machine, same run, same graph, same threshold.

Both sum 100 clients' float vectors of length 10^6, quantised to 19 bits (the quantising is counted on both
sides), 10% of the clients silent after they shared their keys: on a ring with 20 neighbours and threshold 11
("sparse"), then with everybody as a neighbour and threshold 51 ("complete"), then with one client lost at each
stage ("survival"). Flower runs in an environment of its own:

    python3.11 -m venv /tmp/flower && /tmp/flower/bin/pip install flwr
    python benchmarks/secagg_against_flower.py --flower-python /tmp/flower/bin/python
    python benchmarks/secagg_against_flower.py --flower-python ... --only sparse --repeats 3

Prints one JSON object a line: what was compared, our figure, Flower's, the ratio, the limit on it, whether it holds.
With repeats, the least of each side's CPU seconds.
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


def ours(**graph):
    """Our side of one round."""
    result = measure(
        clients=CLIENTS, length=LENGTH, modulus_bits=SUM_BITS, dropout=DROPPED / CLIENTS, **graph
    )
    if result["max_abs_error"]:
        raise SystemExit(f"our sum is wrong by {result['max_abs_error']}")
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, LENGTH).astype(np.float32)
    total = np.zeros(LENGTH, np.uint32)
    return {
        "client_cpu_s": result["client_cpu_s"] + cpu_seconds(lambda: quantise(values, rng)),
        "server_cpu_s": result["server_cpu_s"] + cpu_seconds(lambda: dequantise(total, CLIENTS - DROPPED)),
        "client_bytes_up": result["client_bytes_up"],
    }


def flower(python, shares, threshold, *options):
    """Flower's side of one round."""
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


def sparse(python, repeats):
    """20 neighbours, threshold 11; Flower counts the client itself among its shares."""
    mine = [ours(graph="sparse", neighbours=NEIGHBOURS, threshold=THRESHOLD) for _ in range(repeats)]
    theirs = [flower(python, NEIGHBOURS + 1, THRESHOLD) for _ in range(repeats)]
    yield compared("client_cpu_s", mine, theirs, 9)
    yield compared("server_cpu_s", mine, theirs, 28)
    yield compared("client_bytes_up", mine, theirs, 1 / 0.41)


def complete(python, repeats):
    """Everybody is everybody's neighbour, threshold 51."""
    mine = [ours(graph="complete", threshold=CLIENTS // 2 + 1, corruption=0.0) for _ in range(repeats)]
    theirs = [flower(python, CLIENTS, CLIENTS // 2 + 1) for _ in range(repeats)]
    yield compared("client_cpu_s", mine, theirs, 9)
    yield compared("server_cpu_s", mine, theirs, 130)


def compared(what, mine, theirs, times):
    """The least of ours and of theirs; how many times less ours is, and must be."""
    own, other = (min(side[what] for side in sides) for sides in (mine, theirs))
    return {
        "what": what, "veilsum": own, "flower": other, "times_less": other / own, "at_least": times,
        "met": other / own >= times,
    }  # fmt: skip


def survival(python, _):
    """One client of 100 goes silent at a stage: does the round still give the sum of the 99 others?"""
    theirs = flower(python, NEIGHBOURS + 1, THRESHOLD, "--survival-only")["survives_one_dropout_at"]
    stages = zip(("advertise", "share", "masked_input", "unmask"), theirs.items(), strict=True)
    for stage, (name, survives) in stages:
        own = len(survivors_without_one(stage)) >= CLIENTS - 1
        yield {"what": f"one client lost at {name}", "veilsum": own, "flower": survives, "met": own}


def survivors_without_one(stage):
    """Who is in our sum when client 1 goes silent at that stage."""
    inputs = {client: np.ones(1000, np.uint32) for client in range(CLIENTS)}
    return simulate(
        inputs, modulus_bits=SUM_BITS, neighbours=NEIGHBOURS, threshold=THRESHOLD, dropouts={stage: [1]}
    ).survivors


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flower-python", required=True, help="a Python that has flwr")
    parser.add_argument("--only", default="", help="sparse, complete or survival")
    parser.add_argument("--repeats", type=int, default=1, help="rounds on each side")
    options = parser.parse_args()
    for part in (sparse, complete, survival):
        if options.only in part.__name__:
            for line in part(options.flower_python, options.repeats):
                print(json.dumps({"case": part.__name__, **line}), flush=True)


if __name__ == "__main__":
    main()
