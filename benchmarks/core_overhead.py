"""What the typed layer costs over calling the aggregation directly, in CPU seconds: one JSON line.

Both sides take one sum over the same clients, data, blocks and noise: `AggregationPlan.sum_round` with a plain
function that hands over a client's vector, and a `fedavg.core` program that runs the same function in a context, with
its ledger, draw, types and judgement. Each is repeated in turns, and the median of the pairs' ratios is the overhead.
Sums are taken without masks unless `--masked` is given, which only makes the layer's part look larger.

    python -m benchmarks.core_overhead [--clients 10000] [--length 1000] [--repeats 9] [--masked]
"""

import argparse
import json
import time

import numpy as np

import dp
from fedavg import ClientData, RunEntropy, SecureAggregation
from fedavg.aggregation import AggregationPlan
from fedavg.core import (
    Context,
    at_clients,
    federated_computation,
    federated_map,
    federated_sum,
    local_computation,
    within,
)


def direct(plan, data, value, clients):
    start = time.process_time()
    plan.sum_round(
        lambda client: {"sum": value(data.for_client(client))},
        clients=range(clients),
        number=1,
        model_hash=bytes(32),
        dropouts={},
        entropy=RunEntropy(),
    )
    return time.process_time() - start


def layered(data, value, clients, length, secure):
    @federated_computation(at_clients((np.float64, (length,))))
    def total(x):
        form = within((np.float64, (length,)), l2=1.0)
        return federated_sum(federated_map(local_computation(returns=form)(value), x))

    context = Context(population=clients, delta=1e-6, noise_multiplier=1.0, secure=secure)
    start = time.process_time()
    context.run(total, data)
    return time.process_time() - start


def scaled(vector):
    return vector * 0.5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--masked", action="store_true", help="sums under real masks")
    given = parser.parse_args()
    secure = SecureAggregation() if given.masked else SecureAggregation.ideal()
    rows = np.random.default_rng(0).normal(size=(256, given.length)) / given.length**0.5
    data = ClientData(range(given.clients), lambda client: rows[client % 256])
    plan = AggregationPlan.choose(
        [dp.Block("sum", length=given.length, l2_bound=1.0, weight=1.0)],
        cohort=given.clients,
        privacy=dp.Privacy(delta=1e-6, l2_clip_norm=1.0, noise_multiplier=1.0),
        noise_multiplier=1.0,
        secure=secure,
    )
    times = [
        (
            direct(plan, data, scaled, given.clients),
            layered(data, scaled, given.clients, given.length, secure),
        )
        for _ in range(given.repeats)
    ]
    low, middle, high = np.quantile([typed / plain - 1 for plain, typed in times], [0.25, 0.5, 0.75])
    plain, typed = np.median(times, axis=0)
    figures = {
        "clients": given.clients,
        "length": given.length,
        "masked": given.masked,
        "repeats": given.repeats,
        "direct_cpu_s": round(plain, 3),
        "layer_cpu_s": round(typed, 3),
        "overhead": round(middle, 4),
        "overhead_quartiles": [round(low, 4), round(high, 4)],
        "overhead_us_per_client": round(middle * plain / given.clients * 1e6, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
