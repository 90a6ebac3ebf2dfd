"""The tables of `docs/scale.md`: `python -m docs.make.scale` works them out from `docs/results/unit_costs.json`.

A design is a number of groups, each a round of its own, and what is worked out for it follows from the unit costs,
from the parameters that `secagg` chooses and from the sizes of its messages. Nothing here is measured.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from docs.make.benchmarks import number, unit_rows
from docs.make.generated import DOCS, table, write
from docs.make.protocol import Sets, floor_of, sizes_of
from secagg import RoundParameters, Vector
from secagg.graph_parameters import _first_rare
from secagg.phases import Kind

PAGE = DOCS / "scale.md"
COSTS = DOCS / "results" / "unit_costs.json"

CLIENTS = 10**6
LENGTH = 10**6
INPUT_BITS = 16
SHARE = 0.05
SECURITY_BITS, FAILURE_BITS = 40, 30
PATH_BYTES = 32 * math.ceil(math.log2(CLIENTS))


def unit_costs() -> dict[str, float]:
    """The measured costs, by name."""
    costs: dict[str, float] = json.loads(COSTS.read_text())["raw"]
    return costs


@dataclass(frozen=True)
class Design:
    """A way to sum a million vectors.

    Attributes:
        name: what the table calls it.
        size: clients of a group; all of them where there is one.
        adversary: of every group's round.
        graph: of every group's round.
        by_path: True where a client gets its neighbours' keys with hash paths, not the roster.
    """

    name: str
    size: int
    adversary: str = "semi_honest"
    graph: str = "sparse"
    by_path: bool = False

    @property
    def groups(self) -> int:
        """How many rounds make up the sum."""
        return CLIENTS // self.size

    @cached_property
    def corrupted(self) -> int:
        """Most corrupted clients in any group, but for a chance of 2^-(sigma + 1): groups are drawn at random."""
        return self._most(SECURITY_BITS + 1)

    @cached_property
    def dropped(self) -> int:
        """Most silent clients in any group, but for a chance of 2^-(eta + 1)."""
        return self._most(FAILURE_BITS + 1)

    def _most(self, bits: int) -> int:
        marked = int(SHARE * CLIENTS)
        if self.groups == 1:
            return marked
        return _first_rare(CLIENTS, marked, self.size, -bits - math.log2(self.groups)) - 1

    @cached_property
    def parameters(self) -> RoundParameters:
        """Of every group's round; chances are divided among the groups."""
        extra = math.ceil(math.log2(self.groups))
        settings: dict[str, Any] = {"adversary": self.adversary, "graph": self.graph}
        if self.adversary == "malicious":
            settings["roster_hash"] = bytes(32)
        return RoundParameters.choose(
            clients=self.size,
            vectors=[Vector("update", LENGTH, INPUT_BITS + math.ceil(math.log2(self.size)))],
            dropout=self.dropped / self.size,
            corruption=self.corrupted / self.size,
            security_bits=SECURITY_BITS + extra,
            failure_bits=FAILURE_BITS + extra,
            task="scale",
            round=0,
            model_hash=bytes(32),
            application=b"",
            **settings,
        )

    @property
    def bits(self) -> int:
        """Modulus bits of a group's sum."""
        return self.parameters.vectors[0].modulus_bits

    def sizes(self) -> dict[Kind, int]:
        """Bytes of a client's messages, nobody silent."""
        k = self.parameters.neighbours
        return sizes_of(self.parameters, Sets(self.size, k, k))

    def up(self) -> int:
        """Bytes that a client sends."""
        kinds = {Kind.ADVERTISE, Kind.SHARE, Kind.MASKED_INPUT, Kind.CONSISTENCY, Kind.UNMASK}
        return sum(size for kind, size in self.sizes().items() if kind in kinds)

    def roster(self) -> int:
        """Bytes of public keys that a client receives."""
        whole = self.sizes()[Kind.ROSTER]
        return (self.parameters.neighbours + 1) * (whole // self.size + PATH_BYTES) if self.by_path else whole

    def down(self) -> int:
        """Bytes that a client receives, without the model."""
        kinds = {Kind.OFFER, Kind.INBOX, Kind.SURVIVORS, Kind.TAGS}
        return self.roster() + sum(size for kind, size in self.sizes().items() if kind in kinds)

    def client_seconds(self, costs: dict[str, float]) -> float:
        """CPU of one client."""
        k = self.parameters.neighbours
        seen = 0 if self.by_path else self.size
        roster = costs["check_the_roster_us_per_client"]
        if self.graph == "sparse":
            roster += costs["order_of_the_ring_us_per_client"]
        vector = (k + 1) * self._per_value(costs, "mask") + self._per_value(costs, "pack")
        return (
            1e-6 * (seen * roster + k * costs[f"client_{self.adversary}_us_per_neighbour"]) + LENGTH * vector
        )

    def server_hours(self, costs: dict[str, float]) -> float:
        """CPU hours of all servers together, as many clients silent as planned."""
        k, stay = self.parameters.neighbours, 1 - SHARE
        masks = CLIENTS * stay + CLIENTS * SHARE * k * stay
        vector = CLIENTS * stay * self._per_value(costs, "add") + masks * self._per_value(costs, "mask")
        small = k * costs[f"server_{self.adversary}_us_per_neighbour"] + costs["graph_us_per_client"]
        small += self._recovery(costs)
        return (LENGTH * vector + 1e-6 * CLIENTS * small) / 3600

    def _recovery(self, costs: dict[str, float]) -> float:
        """Microseconds to recover one client's secret, beyond a round in which all have the same holders left.

        On a ring with silent clients nearly everybody has a set of its own, whose weights grow with t squared.
        """
        if self.graph == "complete":
            return 0.0
        grown = self.parameters.threshold / 24
        return grown**2 * costs["lagrange_weights_of_24_us"] + grown * costs["recover_two_secrets_24_us"]

    def server_bytes(self, costs: dict[str, float]) -> float:
        """Memory of all servers together for keys, rows and shares; a vector per shard comes on top."""
        per_neighbour = costs[f"server_{self.adversary}_bytes_per_neighbour"]
        return CLIENTS * (self.parameters.neighbours * per_neighbour + self.sizes()[Kind.ADVERTISE])

    def _per_value(self, costs: dict[str, float], what: str) -> float:
        """Seconds a value; measured at 26 and 36 bits, for words of 32 and 64 bits."""
        return 1e-9 * costs[f"{what}_{26 if self.bits <= 32 else 36}_bits_ns_per_value"]

    def honest(self) -> int:
        """Fewest honest clients in a group's sum, silent clients and colluders taken off.

        In the malicious sparse round no client can count the whole ring, so that only its own floor holds.
        """
        if self.adversary == "malicious" and self.graph == "sparse":
            return floor_of(self.parameters)
        return self.size - self.corrupted - self.dropped

    def noise_if_groups_are_seen(self) -> float:
        """Deviation of the whole sum's noise over a central one's, where every group's sum must be noised enough."""
        return math.sqrt(CLIENTS / self.honest())

    def noise_if_only_the_total_is_seen(self) -> float:
        """The same, where the noise of all groups together must be enough."""
        if self.groups == 1:
            return self.noise_if_groups_are_seen()
        return math.sqrt(CLIENTS / (CLIENTS - 2 * int(SHARE * CLIENTS)))


DESIGNS = (
    Design("one ring, as implemented", CLIENTS),
    Design("one ring, keys by hash paths", CLIENTS, by_path=True),
    Design("100 rings of 10,000", 10**4),
    Design("1,000 rings of 1,000", 10**3),
    Design(
        "one ring, malicious (experimental), keys by hash paths", CLIENTS, adversary="malicious", by_path=True
    ),
    Design("1,000 complete graphs of 1,000, malicious", 10**3, adversary="malicious", graph="complete"),
)


def units() -> str:
    """The unit costs as measured."""
    rows = [[found["what"], number(found["figure"]), found["unit"]] for found in unit_rows(unit_costs())]
    return table(["what", "cost", "unit"], rows)


def plans() -> str:
    """What each design plans with."""
    rows = []
    for design in DESIGNS:
        p = design.parameters
        rows.append(
            (
                design.name,
                f"{design.corrupted:,}",
                f"{design.dropped:,}",
                f"{p.neighbours}, {p.threshold}",
                design.bits,
            )
        )
    return table(["design", "C of a group", "D of a group", "k, t", "bits"], rows)


def costs_of_designs() -> str:
    """What each design costs."""
    costs = unit_costs()
    rows = [
        (
            design.name,
            f"{design.up() / 1e6:.2f}",
            f"{design.down() / 1e6:,.3g}",
            f"{design.roster() / 1e6:,.3g}",
            f"{design.client_seconds(costs):.2f}",
            f"{design.server_hours(costs):,.1f}",
            f"{design.server_bytes(costs) / 1e9:,.1f}",
            f"{CLIENTS * design.down() / 1e12:,.2f}",
        )
        for design in DESIGNS
    ]
    head = ["design", "up, MB a client", "down, MB a client", "of it keys, MB", "client CPU, s", "servers' CPU, hours",
            "servers' memory, GB", "all downloads, TB"]  # fmt: skip
    return table(head, rows)


def noise() -> str:
    """What grouping does to noise."""
    rows = [
        (
            design.name,
            f"{design.honest():,}",
            f"{design.noise_if_groups_are_seen():.2f}",
            f"{design.noise_if_only_the_total_is_seen():.2f}",
        )
        for design in DESIGNS
        if design is not DESIGNS[1]
    ]
    head = ["design", "fewest honest survivors of a group", "noise of the total, group sums seen by the adversary",
            "noise of the total, group sums hidden from it"]  # fmt: skip
    return table(head, rows)


def blocks() -> dict[str, str]:
    """Every generated block of the page."""
    return {"units": units(), "plans": plans(), "costs": costs_of_designs(), "noise": noise()}


if __name__ == "__main__":
    write(PAGE, blocks())
