"""What a run cost, in words: one statement for each observer, with every assumption it rests on.

An epsilon without its observer and its assumptions means nothing; so the number is only printed inside a
`Statement`, and there are always two: against the *server* (and whoever holds a roster), which knows who was drawn,
and against *readers* of the released models, who do not.

Not here: computing the epsilons (`dp.accounting`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dp.cohorts import PaddedPoisson
from dp.mechanisms import DistributedDiscreteGaussian
from dp.privacy import Epsilons, Privacy, delta_warning
from dp.removable_noise import RemovableDiscreteGaussian

__all__ = ["Statement", "Statements", "epsilon_text", "statements"]

_SIMULATION = (
    "simulation, no guarantee: every random choice of this run follows from a seed, and whoever knows it can subtract"
    " the noise; the figures are those of a run without a seed"
)
_UNMASKED = (
    "computed without cryptography: whoever ran this sum saw every input; the figures are the masked run's"
)
_OUTSIDE = (
    "not protected: that you took part, or that your device vanished; not proven: that other clients clip and add noise"
    " as they should"
)


@dataclass(frozen=True)
class Statement:
    """One observer's epsilon with its assumptions.

    Attributes:
        observer: "readers" or "server".
        epsilon: What the run cost one client against this observer; infinite where the observer sees inputs.
        delta: Probability that the promise fails.
        claim: The promise in one sentence.
        assumptions: What it rests on, one sentence each.
    """

    observer: str
    epsilon: float
    delta: float
    claim: str
    assumptions: tuple[str, ...]

    @property
    def text(self) -> str:
        """Claim and assumptions, as a paragraph."""
        return f"{self.claim} Assumptions: {'; '.join(self.assumptions)}."

    def as_dict(self) -> dict[str, Any]:
        """For JSON; an infinite epsilon is null."""
        return {
            "observer": self.observer,
            "epsilon": self.epsilon if math.isfinite(self.epsilon) else None,
            "delta": self.delta,
            "claim": self.claim,
            "assumptions": list(self.assumptions),
        }


@dataclass(frozen=True)
class Statements:
    """Both statements of one run; neither is shown without the other."""

    readers: Statement
    server: Statement

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"readers": self.readers.as_dict(), "server": self.server.as_dict()}


def statements(
    epsilons: Epsilons,
    *,
    mechanism: DistributedDiscreteGaussian | RemovableDiscreteGaussian,
    sampler: PaddedPoisson,
    privacy: Privacy,
    minimum_survivors: int,
    charged: int,
    aborted: int = 0,
    seeded: bool = False,
    masked: bool = True,
) -> Statements:
    """Put a run's two epsilons into words.

    Args:
        epsilons: What `charged` rounds cost, both observers.
        mechanism: The noise of every round.
        sampler: Who drew the cohorts.
        privacy: The promise that was asked for.
        minimum_survivors: Fewest clients that a round's sum may hold, colluders included.
        charged: Rounds paid for.
        aborted: How many of these gave no sum, or were lost.
        seeded: Whether the run's randomness came from a seed.
        masked: Whether the sums were taken under masks.

    Returns:
        The two statements.
    """
    colluders = minimum_survivors - mechanism.honest_survivors
    shared = (
        "the unit is one client and everything it holds; two data sets are neighbours when one client's contribution is"
        " replaced by zeros (zero-out adjacency)",
        f"every sum holds at least {minimum_survivors} of the {sampler.cohort_size} clients invited, of whom at most"
        f" {colluders} collude; the noise of the {mechanism.honest_survivors} others alone is"
        f" {mechanism.noise_multiplier:g} times the joint integer sensitivity of everything a client sends (update,"
        " counts and metrics in one vector)",
        f"averages are divided by the public expectation {sampler.expected:g}, never by the number drawn or surviving",
        f"{charged} rounds are charged"
        + (f", {aborted} of them without a result" if aborted else "")
        + ", and how many was not chosen by looking at their results",
        *(
            ([warning])
            if (warning := delta_warning(delta=privacy.delta, population=sampler.population))
            else []
        ),
        _OUTSIDE,
        *([_SIMULATION] if seeded else []),
        *([] if masked else [_UNMASKED]),
    )
    return Statements(
        _readers(epsilons.readers, sampler, privacy, shared),
        _server(epsilons.server, charged, privacy, shared),
    )


def _readers(epsilon: float, sampler: PaddedPoisson, privacy: Privacy, shared: tuple[str, ...]) -> Statement:
    claim = _claim("whoever reads the released models and metrics of every round", epsilon, privacy.delta)
    sampling = (
        f"each of {sampler.population} clients is drawn for each round by its own secret coin of probability"
        f" {sampler.sampling_rate:.6g} (padded Poisson sampling), and nothing published tells who or how many",
        "the reader holds no roster of a round and does not work with the server",
        "nothing else that was released used these clients' data",
    )
    return Statement("readers", epsilon, privacy.delta, claim, (*sampling, *shared))


def _server(epsilon: float, charged: int, privacy: Privacy, shared: tuple[str, ...]) -> Statement:
    claim = _claim("the server, and whoever holds the rosters of the rounds,", epsilon, privacy.delta)
    cap = privacy.max_participations
    draws = charged if cap is None else min(cap, charged)
    counted = (
        f"a client contributes to at most {draws} rounds"
        + (
            ", its cap, which it counts itself; past it the client pads"
            if cap is not None and cap <= charged
            else ", all of them"
        )
        + "; there is no amplification by sampling, because the server knows the cohort",
        "the server follows the protocol, sees only masked vectors and their noised sum, and no other channel depends"
        " on a client's data",
    )
    return Statement("server", epsilon, privacy.delta, claim, (*counted, *shared))


def epsilon_text(epsilon: float) -> str:
    """Four figures, never rounded down: a privacy cost must not look smaller than it is.

    >>> [epsilon_text(value) for value in (0.0, 0.123412, 2.53022, 31.04, 1234.5, math.inf)]
    ['0', '0.1235', '2.531', '31.04', '1235', 'infinite']
    """
    if not math.isfinite(epsilon):
        return "infinite"
    if epsilon <= 0:
        return "0"
    digits = max(0, 3 - math.floor(math.log10(epsilon)))
    return f"{math.ceil(epsilon * 10**digits - 1e-9) / 10**digits:.{digits}f}"


def _claim(observer: str, epsilon: float, delta: float) -> str:
    if not math.isfinite(epsilon):
        return f"Against {observer} there is no promise: epsilon is infinite, because the inputs are seen."
    shown = epsilon_text(epsilon)
    return (
        f"Against {observer} one client's data changes the probability of any outcome by a factor of at most"
        f" e^{shown} = {_factor(float(shown))}, except with probability {delta:g} (epsilon {shown}, delta {delta:g})."
    )


def _factor(epsilon: float) -> str:
    return f"{math.exp(epsilon):,.3g}" if epsilon < 7 else f"{math.exp(min(epsilon, 700)):,.2g}"
