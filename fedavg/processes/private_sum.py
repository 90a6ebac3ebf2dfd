"""`private_sum`: the aggregator of private processes. Clipped, noised, masked sums; charged before anybody is invited.

A process's `next` is a pure function of state and data, save for two things that must not be: the noise is fresh every
time, and the *ledger lives here*, not in the state. So a round replayed from an old state is charged again, as it
must be: its noise is new, and both results are out.

Who takes part decides what may be claimed:

* given a *list* of clients' data, the caller chose them. Nothing about who took part can be taken as secret, so
  readers get no amplification by sampling: their epsilon is the server's;
* given the whole population as a `ClientData` (with `population=`), the library draws a padded Poisson cohort itself,
  and readers get the amplified epsilon.

Not here: a round of it (`fedavg.processes.private_rounds`), the outer loop with checkpoints (`fedavg.Federation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import dp
from fedavg.entropy import RunEntropy
from fedavg.errors import ParameterError
from fedavg.processes.collecting import Content
from fedavg.processes.private_rounds import PrivateAggregator
from fedavg.secure_aggregation import SecureAggregation
from fedavg.weighting import BoundedExamples

__all__ = ["PrivateSum", "private_sum"]


@dataclass(frozen=True, kw_only=True)
class PrivateSum:
    """What `private_sum` returns: settings that processes make their aggregators from, each with its own ledger.

    Attributes:
        privacy: The promise, its multiplier calibrated.
        clip: Bound on the joint L2 norm of a client's vector.
        rounds: How many are planned.
        cohort_size: Clients in a round, or expected ones where the library draws.
        population: Size of the population the library draws from, or None.
        weights: How a client's examples count, or None for one each.
        weight_share: Share of the squared joint norm that weights take.
        secure: How the sum is taken.
        ledger: File of the ledger, or None for memory.
        entropy: Where randomness comes from.
    """

    privacy: dp.Privacy
    clip: float
    rounds: int
    cohort_size: int
    population: int | None
    weights: BoundedExamples | None
    weight_share: float
    secure: SecureAggregation
    ledger: Path | None
    entropy: RunEntropy = field(repr=False)

    def create(self, content: Content) -> PrivateAggregator:
        """An aggregator for vectors of this content.

        Raises:
            ParameterError, dp.ParameterError, secagg.ParameterError: settings that cannot keep the promise.
            dp.LedgerError: the ledger cannot be used, or is another run's.
        """
        if content.counted and self.weights is None:
            raise ParameterError(
                "examples are counted here, for weights or metrics, and nothing bounds how many one client has; give"
                " private_sum(..., most_examples=M): a client counts for M examples at most"
            )
        return PrivateAggregator(self, content)

    @property
    def sampler(self) -> dp.Sampler:
        """Who takes part: a padded Poisson draw of the library's own, or everybody that the caller passes."""
        if self.population is None:
            return dp.FixedOrder(population=self.cohort_size, expected=self.cohort_size)
        return dp.PaddedPoisson(population=self.population, expected=self.cohort_size)


def private_sum(
    privacy: dp.Privacy,
    *,
    rounds: int,
    cohort_size: int,
    population: int | None = None,
    most_examples: int | None = None,
    least_share: float = 0.1,
    weight_share: float = 0.04,
    secure: SecureAggregation | None = None,
    ledger: str | Path | None = None,
    entropy: RunEntropy | None = None,
) -> PrivateSum:
    """Sums of clipped and noised vectors under masks: what `model_aggregator=` takes to be private.

    Guarantee: everything that a client sends, update, weight, counts and metrics, is in one clipped and noised vector
    per round; `process.statement()` says what that is worth against readers and against the server, and to whom not.

    Args:
        privacy: The promise; unit one client.
        rounds: How many are planned; the noise is calibrated to them.
        cohort_size: How many clients `next` is given in each round; with `population`, how many are drawn on average.
        population: Number of clients of the `ClientData` that `next` is given, from which the library then draws; None
            where the caller passes a list.
        most_examples: From how many examples on a client counts fully, in weights and metrics; public.
        least_share: Public floor of denominators, as a share of what a full cohort comes to, in (0, 1].
        weight_share: Share of the squared joint norm that the weight takes in weighted averaging, in (0, 1).
        secure: How the sum is taken; `SecureAggregation()` by default, `.ideal()` for sweeps without cryptography.
        ledger: File that keeps what was spent; in memory when None. One for each process, or one that several share
            under a common budget, made by `dp.Ledger.share`: the way to let training and evaluation spend together.
        entropy: `RunEntropy.seeded(n)` for a repeatable simulation without guarantee; the operating system by default.

    Raises:
        ParameterError: a value is out of its range, or an option that only `fedavg.train` has.

    >>> promise = dp.Privacy(noise_multiplier=1.0, delta=1e-5, l2_clip_norm=0.5)
    >>> private_sum(promise, rounds=10, cohort_size=30).sampler.cohort_size
    30
    """
    clip = privacy.l2_clip_norm
    if privacy.clip_quantile is not None or isinstance(clip, Mapping):
        raise ParameterError(
            "processes clip every update to one fixed l2_clip_norm; give one number, or use fedavg.train for bounds"
            " that adapt or differ by layer"
        )
    if privacy.mechanism == "central_matrix":
        raise ParameterError("processes draw fresh noise every round; use fedavg.train for central_matrix")
    if privacy.max_participations is not None and population is None:
        raise ParameterError(
            f"max_participations is {privacy.max_participations}, and nobody can count who takes part in lists that the"
            " caller chooses; give population= and pass the whole ClientData, or leave the cap out"
        )
    counts = {"rounds": rounds, "cohort_size": cohort_size, "most_examples": most_examples}
    for name, count in counts.items():
        if count is not None and not (isinstance(count, Integral) and count >= 1):
            raise ParameterError(f"{name} is {count!r}; give a whole number, at least 1")
    if not 0 < weight_share < 1 - privacy.metrics_share:
        raise ParameterError(
            f"weight_share is {weight_share}; give a share above 0 that leaves room for the update"
        )
    return PrivateSum(
        privacy=privacy,
        clip=float(clip),
        rounds=rounds,
        cohort_size=cohort_size,
        population=population,
        weights=None if most_examples is None else BoundedExamples(most_examples, least_share),
        weight_share=weight_share,
        secure=secure or SecureAggregation(),
        ledger=None if ledger is None else Path(ledger),
        entropy=entropy or RunEntropy(),
    )
