"""What the typed layer costs over calling the aggregation directly, in CPU seconds: rows as JSON.

Three ways to take one sum over the same clients, data, blocks and noise:

    layer       a `fedavg.core` program in a `Context`: types, graph, judgement, ledger, draw, counts, sum
    direct      `AggregationPlan.sum_round` on a plain function, in a `paid_round` with the same draw and counts
    bare        `AggregationPlan.sum_round` alone, which charges nobody and counts nobody's participations

All are planned beforehand. They are repeated in turns; a figure is the median of the turns' ratios, and beside it the
ratio of the least times. Sums are without masks, which only makes the layer's part look larger, but for the last rows.

    python -m benchmarks.core_overhead [--clients 10000] [--length 1000] [--repeats 9] [--masked-clients 300]
"""

import argparse
import gc
import json
import time
from statistics import median

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
from fedavg.paid_round import paid_round


def scaled(vector):
    return vector * 0.5


class Ways:
    """The three ways, planned; each call takes one sum with a fresh ledger and gives its CPU seconds."""

    def __init__(self, clients, length, secure):
        rows = np.random.default_rng(0).normal(size=(256, length)) / length**0.5
        self.data = ClientData(range(clients), lambda client: rows[client % 256])
        self.clients, self.length, self.secure = clients, length, secure
        self.privacy = dp.Privacy(delta=1e-6, l2_clip_norm=1.0, noise_multiplier=1.0)
        self.sampler = dp.PaddedPoisson(population=clients, expected=clients)
        self.plan = AggregationPlan.choose(
            [dp.Block("sum", length=length, l2_bound=1.0, weight=1.0)],
            cohort=clients,
            privacy=self.privacy,
            noise_multiplier=1.0,
            secure=secure,
        )

    def bare(self):
        """`sum_round` alone."""
        start = time.process_time()
        self._sum(1, range(self.clients))
        return time.process_time() - start

    def direct(self):
        """`sum_round` with what a charged round takes."""
        accountant = dp.RunAccountant(self.plan.mechanism, self.sampler, self.privacy, 1)
        start = time.process_time()
        ledger = dp.Ledger.attach(None, accountant=accountant, run={"program": "direct"})
        counts = dp.ParticipationCounts(ledger)
        with paid_round(ledger) as paid:
            draw = self.sampler.draw(RunEntropy().keystream("cohort", paid.number))
            drawn = [self.data.client_ids[position] for position in draw.invited[draw.contributes]]
            draw = counts.claim(draw, drawn, cap=None)
            total = self._sum(paid.number, draw.invited.tolist())
            paid.settle(survivors=total.survivors, model_hash=bytes(32))
        ledger.spent()
        return time.process_time() - start

    def layer(self):
        """The program."""
        kind = (np.float64, (self.length,))

        @federated_computation(at_clients(kind))
        def total(x):
            form = within(kind, l2=1.0)
            return federated_sum(federated_map(local_computation(returns=form)(scaled), x))

        context = Context(population=self.clients, delta=1e-6, noise_multiplier=1.0, secure=self.secure)
        total.privacy(context)
        start = time.process_time()
        context.run(total, self.data)
        return time.process_time() - start

    def _sum(self, number, clients):
        return self.plan.sum_round(
            lambda client: {"sum": scaled(self.data.for_client(client))},
            clients=clients,
            number=number,
            model_hash=bytes(32),
            dropouts={},
            entropy=RunEntropy(),
        )


def timed(ways, names, repeats):
    """CPU seconds of each way, in turns whose order rotates; the first turn, which warms up, is left out."""
    turns = []
    for turn in range(repeats + 1):
        times = {}
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            gc.collect()
            times[name] = getattr(ways, name)()
        turns.append(times)
    return turns[1:]


def rows(clients, length, repeats, secure):
    turns = timed(Ways(clients, length, secure), ["layer", "direct", "bare"], repeats)
    case = f"{clients:,} clients of {length:,} values, {'masks' if secure.masked else 'no masks'}"

    def over(name):
        return median(turn["layer"] / turn[name] for turn in turns) - 1

    least = {name: min(turn[name] for turn in turns) for name in turns[0]}
    yield {
        "what": f"{case}: the layer over the sum called directly, ledger, draw and counts on both sides",
        "figure": over("direct"),
        "limit": 0.05,
    }
    yield {
        "what": f"{case}: ... least time over least",
        "figure": least["layer"] / least["direct"] - 1,
        "limit": 0.05,
    }
    yield {"what": f"{case}: ... over a bare sum, which charges and counts nobody", "figure": over("bare")}
    yield {
        "what": f"{case}: ... a client",
        "figure": (least["layer"] - least["direct"]) / clients * 1e6,
        "unit": "CPU us",
    }
    yield {"what": f"{case}: the sum called directly", "figure": least["direct"], "unit": "CPU s"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--masked-clients", type=int, default=300, help="0: no sums under masks")
    given = parser.parse_args()
    found = [*rows(given.clients, given.length, given.repeats, SecureAggregation.ideal())]
    if given.masked_clients:
        found += rows(given.masked_clients, given.length, given.repeats, SecureAggregation())
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
