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

from dp.central import CentralMatrix
from dp.cohorts import Sampler, SelfSampling
from dp.filters import RenyiFilter
from dp.fixed_cohorts import FixedOrder, FixedSizeSample
from dp.mechanisms import Mechanism
from dp.privacy import Epsilons, Privacy, delta_warning
from dp.removable_noise import RemovableDiscreteGaussian
from dp.shared_budget import Sharing

__all__ = ["Statement", "Statements", "epsilon_text", "statements"]

_SIMULATION = (
    "simulation, no guarantee: every random choice of this run follows from a seed, and whoever knows it can subtract"
    " the noise; the figures are those of a run without a seed"
)
_UNMASKED = (
    "computed without cryptography: whoever ran this sum saw every input; the figures are the masked run's"
)
_RECORDED = (
    "nobody records a round and opens its masks later with a quantum computer: they rest on X25519, and single inputs"
    " would then show"
)
_RING = (
    "on the sparse graph of masks, who falls silent was not chosen by anybody who knows who masks with whom: such a"
    " choice could cut a client off from the others"
)
_OUTSIDE = (
    "not protected: that you took part, or that your device vanished; not proven: that other clients {} as they"
    " should"
)


@dataclass(frozen=True)
class Statement:
    """One observer's epsilon with its assumptions.

    Attributes:
        observer: "readers" or "server".
        epsilon: What the run cost one client against this observer; infinite where the observer sees inputs.
        delta: What a probability may change by beyond the factor e^epsilon.
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

    def __str__(self) -> str:
        return self.text

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
    """Both statements of one run; neither is shown without the other.

    Attributes:
        readers: Against readers of the released models and metrics.
        server: Against the server.
    """

    readers: Statement
    server: Statement

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"readers": self.readers.as_dict(), "server": self.server.as_dict()}


def statements(
    epsilons: Epsilons,
    *,
    mechanism: Mechanism,
    sampler: Sampler,
    privacy: Privacy,
    minimum_survivors: int,
    charged: int,
    aborted: int = 0,
    seeded: bool = False,
    masked: bool = True,
    active_server: bool = False,
    quantum_safe: bool = False,
    sparse: bool = False,
    sharing: Sharing | None = None,
) -> Statements:
    """Put a run's two epsilons into words.

    Args:
        epsilons: What `charged` rounds cost, both observers; on a shared ledger, what its filters say for all runs.
        mechanism: The noise of every round.
        sampler: Who drew the cohorts.
        privacy: The promise that was asked for.
        minimum_survivors: Fewest clients that a round's sum may hold, colluders included.
        charged: Rounds paid for.
        aborted: How many of these gave no sum, or were lost.
        seeded: Whether the run's randomness came from a seed.
        masked: Whether the sums were taken under masks.
        active_server: Whether clients check a server that may break the protocol.
        quantum_safe: Whether the masks withstand whoever records a round and has a quantum computer later.
        sparse: Whether each client masks with some of the others only.
        sharing: How the run shares its ledger, if it does: then what is claimed is the budget of all the runs on it,
            which holds however they were chosen, and what was spent of it so far is only told.

    Returns:
        The two statements.
    """
    shared = (
        "the unit is one client and everything it holds; two data sets are neighbours when one client's contribution is"
        " replaced by zeros (zero-out adjacency)",
        _noise(mechanism, sampler, minimum_survivors),
        f"averages are divided by the public expectation {sampler.expected:g} or by noised sums, never by the number"
        " drawn or surviving",
        f"{charged} rounds {'are' if sharing is None else 'of this run are'} charged"
        + (f", {aborted} of them without a result" if aborted else "")
        + (", and how many was not chosen by looking at their results" if sharing is None else ""),
        *(
            ([warning])
            if (warning := delta_warning(delta=privacy.delta, population=sampler.population))
            else []
        ),
        _OUTSIDE.format("clip" if mechanism.trusted_server else "clip and add noise"),
        *([_SIMULATION] if seeded else []),
        *([] if masked else [_UNMASKED]),
    )
    claimed = epsilons if sharing is None else sharing.budget.epsilons
    together = {who: _together(who, getattr(epsilons, who), sharing) for who in ("readers", "server")}
    of_masks = [] if quantum_safe or not masked else [_RECORDED]
    if sparse and not active_server:
        of_masks.append(_RING)
    if mechanism.trusted_server:
        of_masks = []
    return Statements(
        _readers(claimed.readers, sampler, privacy, (*together["readers"], *shared)),
        _server(
            claimed.server,
            mechanism,
            sampler,
            charged,
            privacy,
            (*together["server"], *of_masks, *shared),
            active_server,
        ),
    )


def _together(observer: str, spent: float, sharing: Sharing | None) -> tuple[str, ...]:
    """Whose budget it is that a shared ledger's statement claims, and what keeps it."""
    if sharing is None:
        return ()
    budget = sharing.budget
    own = budget.readers if observer == "readers" else budget.server
    kept = own or budget.server
    if kept is None:
        return (f"the ledger is shared by {_runs(sharing.runs)}, under a budget that promises nothing here",)
    kind = f"a Renyi filter of order {kept.order}" if isinstance(kept, RenyiFilter) else "a Gaussian filter"
    whose = "" if own else " against the server, who sees all that readers do,"
    return (
        f"the ledger is shared by {_runs(sharing.runs)}, and this is the budget of all of them together, kept by"
        f" {kind}{whose} however they were chosen, and each under the assumptions of its own statement; of it"
        f" {epsilon_text(spent)} is spent so far",
    )


def _noise(mechanism: Mechanism, sampler: Sampler, minimum_survivors: int) -> str:
    sensitivity = (
        "the joint integer sensitivity of everything a client sends (update, counts and metrics in one"
        " vector)"
    )
    times = f"{mechanism.noise_multiplier:g} times {sensitivity}"
    if isinstance(mechanism, CentralMatrix):
        return (
            f"the noise that the server adds is correlated over {mechanism.bands} rounds, and"
            f" {mechanism.noise_multiplier:g} times what one participation changes in all of them together, by"
            f" {sensitivity}"
        )
    if mechanism.trusted_server:
        return f"the noise that the server adds to the sum is {times}"
    honest = mechanism.honest_survivors
    return (
        f"every sum holds at least {minimum_survivors} of the {sampler.cohort_size} clients invited, of whom at most"
        f" {minimum_survivors - honest} collude; the noise of the {honest} others alone is {times}; "
        + _spare(mechanism, sampler)
    )


def _spare(mechanism: Mechanism, sampler: Sampler) -> str:
    """What becomes of noise beyond the promise where fewer drop out or collude than was planned for."""
    if isinstance(mechanism, RemovableDiscreteGaussian):
        return "what fewer dropouts leave too much of it is taken off the sum"
    most = math.sqrt(sampler.cohort_size / mechanism.honest_survivors)
    return f"a sum that all are in holds {most:.3g} times as much"


def _readers(epsilon: float, sampler: Sampler, privacy: Privacy, shared: tuple[str, ...]) -> Statement:
    claim = _claim("whoever reads the released models and metrics of every round", epsilon, privacy.delta)
    sampling = (_drawn(sampler), "the reader holds no roster of a round and does not work with the server")
    return Statement("readers", epsilon, privacy.delta, claim, (*sampling, *shared))


def _drawn(sampler: Sampler) -> str:
    """Who takes part, as far as a reader does not know it."""
    secret = "nothing published tells who or how many"
    if isinstance(sampler, FixedOrder):
        return (
            f"{sampler.population} clients take turns, {sampler.expected} a round, at least {sampler.separation} rounds"
            " apart; the order is no secret, and there is no amplification by sampling"
        )
    if isinstance(sampler, FixedSizeSample):
        return (
            f"each round's {sampler.expected} clients are a secret uniform sample of {sampler.population} (fixed size,"
            f" rate {sampler.sampling_rate:.6g}), and nothing published tells who"
        )
    if isinstance(sampler, SelfSampling):
        return (
            f"each of {sampler.population} clients contributes to a round with probability {sampler.sampling_rate:.6g}:"
            f" it is drawn to carry by a secret coin, and includes its data by another of its own, of probability"
            f" {sampler.coin:g} (self-sampling), and {secret}"
        )
    return (
        f"each of {sampler.population} clients is drawn for each round by its own secret coin of probability"
        f" {sampler.sampling_rate:.6g} (padded Poisson sampling), and {secret}"
    )


def _server(
    epsilon: float,
    mechanism: Mechanism,
    sampler: Sampler,
    charged: int,
    privacy: Privacy,
    shared: tuple[str, ...],
    active: bool,
) -> Statement:
    why = (
        "it sees the sums without noise"
        if mechanism.trusted_server
        else "the budget that the run shares sets no limit"
    )
    claim = _claim("the server, and whoever holds the rosters of the rounds,", epsilon, privacy.delta, why)
    if mechanism.trusted_server:
        trust = "the server is trusted with the sum before the noise, and to add the noise"
        return Statement("server", epsilon, privacy.delta, claim, (trust, *shared))
    follows = (
        "the server may break the protocol: clients check signed keys against a roster that they trust, and agree on"
        " who is in the sum before they unmask it; no more of any cohort collude with it than is said here, whoever"
        " chose the cohort"
        if active
        else "the server follows the protocol"
    )
    counted = (
        _contributions(sampler, charged, privacy.max_participations),
        f"{follows}; it sees only masked vectors and their noised sum, and no other channel depends on a client's data",
    )
    return Statement("server", epsilon, privacy.delta, claim, (*counted, *shared))


def _contributions(sampler: Sampler, charged: int, cap: int | None) -> str:
    """How often one client's data is in a round, as far as the server knows it."""
    if isinstance(sampler, SelfSampling):
        return (
            f"a client carries in at most {charged} rounds, all of them, and includes its data in each by a coin of its"
            f" own, of probability {sampler.coin:g}, which the server does not see"
        )
    turns = -(-charged // sampler.separation) if isinstance(sampler, FixedOrder) else charged
    most = turns if cap is None else min(cap, turns)
    return (
        f"a client contributes to at most {most} rounds"
        + (
            ", its cap, which it counts itself; past it the client pads"
            if cap is not None and cap <= turns
            else ", all of them"
            if turns == charged
            else ", its turns"
        )
        + "; there is no amplification by sampling, because the server knows the cohort"
    )


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def epsilon_text(epsilon: float) -> str:
    """Four figures, never rounded down: a privacy cost must not look smaller than it is.

    Args:
        epsilon: At least 0, or infinite.

    >>> [epsilon_text(value) for value in (0.0, 0.123412, 2.53022, 31.04, 1234.5, math.inf)]
    ['0', '0.1235', '2.531', '31.04', '1235', 'infinite']
    """
    if not math.isfinite(epsilon):
        return "infinite"
    if epsilon <= 0:
        return "0"
    digits = max(0, 3 - math.floor(math.log10(epsilon)))
    return f"{math.ceil(epsilon * 10**digits - 1e-9) / 10**digits:.{digits}f}"


def _claim(observer: str, epsilon: float, delta: float, why: str = "no limit is set") -> str:
    if not math.isfinite(epsilon):
        return f"Against {observer} there is no promise: epsilon is infinite, because {why}."
    shown = epsilon_text(epsilon)
    return (
        f"Against {observer} one client's data changes the probability of any outcome by a factor of at most"
        f" e^{shown} = {_factor(float(shown))}, plus {delta:g} (epsilon {shown}, delta {delta:g})."
    )


def _factor(epsilon: float) -> str:
    """e^epsilon to two or three figures, rounded up."""
    factor, figures = math.exp(min(epsilon, 700)), 3 if epsilon < 7 else 2
    unit = 10.0 ** (math.floor(math.log10(factor)) + 1 - figures)
    return f"{math.ceil(factor / unit) * unit:,.{figures}g}"
