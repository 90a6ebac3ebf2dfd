"""How a sum is taken: the settings of the masks, and the refusal of those that would not keep their promise.

Not here: the sum itself (`fedavg.aggregation`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

import secagg
from fedavg.errors import ParameterError

__all__ = ["SecureAggregation", "refuse_weak", "share_of"]


@dataclass(frozen=True, kw_only=True)
class SecureAggregation:
    """How the sum is taken: real masks by default.

    Guarantee: a server that follows the protocol, together with at most `corruption` of the cohort, learns the sum of
    at least cohort * (1 - dropout) inputs, theirs among them, and nothing else about any other (Bonawitz et al. 2017;
    Bell et al. 2020). On the sparse graph who falls silent must not depend on who masks with whom.

    Args:
        dropout: Share of the cohort that may fall silent before the round is given up, in [0, 1).
        corruption: Share of the cohort assumed to collude with the server, in [0, 1); their noise is not counted.
        graph: "sparse", "complete", or "auto": sparse where feasible with fewer than half the cohort as neighbours.
        neighbours: Neighbours of each client (sparse graph only); chosen from the rest when None.
        threshold: Shares that unmask; chosen from the rest when None.
        adversary: "semi_honest" is a server that follows the protocol; "malicious" one that does not: clients then
            check identities and agree on the sets before they unmask (complete graph only).
        key_agreement: "x25519-mlkem768" also hides inputs from whoever records a round and breaks X25519 later, with a
            quantum computer; "x25519" does not, and is faster.
        modulus_bits: Bits of the ring, at most 62; the fewest that hold the worst sum when None.
        excess_noise: "keep" leaves in the sum what shares sized for the most dropouts hold too much when fewer
            drop out; "remove" takes it off again, by seeds that clients share (`dp.RemovableDiscreteGaussian`).
        compression: "rotation" sends about half the bits: vectors are rotated at random, rounded coarsely, and now and
            then a coordinate wraps, at the cost of at most 1% more error than the noise's own (`dp.compressed`).
        masked: False only by `ideal()`: the plain sum of the same integers.
        one_draw: Only by `ideal(one_draw=True)`: the noise of a sum drawn at once.
    """

    dropout: float = 0.1
    corruption: float = 0.1
    graph: Literal["auto", "sparse", "complete"] = "auto"
    neighbours: int | None = None
    threshold: int | None = None
    adversary: Literal["semi_honest", "malicious"] = "semi_honest"
    key_agreement: Literal["x25519", "x25519-mlkem768"] = "x25519"
    modulus_bits: int | None = None
    excess_noise: Literal["keep", "remove"] = "keep"
    compression: Literal["none", "rotation"] = "none"
    masked: bool = field(default=True, repr=False)
    one_draw: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("dropout", "corruption"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= float(value) < 1:
                raise ParameterError(
                    f"{name} is {value!r}; give a share of the cohort from 0 up to, not including, 1"
                )
        for name, choices in {
            "graph": ("auto", "sparse", "complete"),
            "excess_noise": ("keep", "remove"),
            "compression": ("none", "rotation"),
            "adversary": ("semi_honest", "malicious"),
            "key_agreement": ("x25519", "x25519-mlkem768"),
        }.items():
            if getattr(self, name) not in choices:
                raise ParameterError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        if self.adversary == "malicious" and self.graph == "sparse":
            raise ParameterError(
                "graph is 'sparse' and adversary is 'malicious'; there a server may split the sum, and fewer honest"
                " clients would stand in it than are counted: use graph='complete'"
            )
        if self.one_draw and (self.masked or self.excess_noise == "remove"):
            raise ParameterError("one_draw is for SecureAggregation.ideal() with excess_noise='keep' only")

    @classmethod
    def ideal(cls, *, one_draw: bool = False, **settings: Any) -> SecureAggregation:
        """The same integers summed without any cryptography: for sweeps and tests, hides nothing from anybody.

        Bit-identical to the real protocol for the same entropy; with `one_draw`, the noise of the sum is drawn once
        instead of share by share: the same law (`one_draw` of the mechanisms), other bits.

        Args:
            one_draw: Draw the noise of the sum at once.
            settings: As of `SecureAggregation`.
        """
        return cls(masked=False, one_draw=one_draw, **settings)


def refuse_weak(parameters: secagg.RoundParameters) -> None:
    """Refuse neighbours and a threshold of the caller's that do not keep the promise of `SecureAggregation`."""
    n, graph = parameters.clients, (parameters.neighbours, parameters.threshold)
    if parameters.graph == "complete":
        least = secagg.complete_threshold(n, dropout=parameters.dropout, corruption=parameters.corruption)
        unmet = {f"a threshold of at least {least}"} if parameters.threshold < least else set()
    else:
        fewest = parameters.minimum_roster
        corruption = parameters.corrupted / fewest
        unmet = {
            *secagg.unmet_conditions(n, *graph, dropout=parameters.dropout, corruption=parameters.corruption)
        }
        unmet |= {*secagg.unmet_conditions(fewest, *graph, dropout=0.0, corruption=corruption)}
    if unmet:
        raise secagg.ParameterError(
            f"{graph[0]} neighbours and threshold {graph[1]} among {n} clients do not meet {', '.join(sorted(unmet))}"
            f" at dropout {parameters.dropout} and corruption {parameters.corruption}; leave them out"
        )


def share_of(fraction: float, cohort: int) -> int:
    """floor(fraction * cohort), with the float product's own error forgiven (0.29 * 100 is 28.999...)."""
    return int(fraction * cohort + 1e-9)
