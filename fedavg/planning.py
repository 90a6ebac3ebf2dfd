"""Planning a run: from what is promised to cohorts, noise, blocks and the accountant, before anything is charged.

Not here: a single round's plan (`fedavg.aggregation`), running it (`fedavg.federation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real

import dp
from fedavg.aggregation import AggregationPlan, SecureAggregation
from fedavg.errors import ParameterError
from fedavg.layout import Layout
from fedavg.pytree import TreeSpec

__all__ = ["RunPlan", "require_kinds"]


@dataclass(frozen=True)
class RunPlan:
    """Everything that is fixed and public before a run's first round."""

    sampler: dp.Sampler
    layout: Layout
    aggregation: AggregationPlan
    accountant: dp.RunAccountant

    @classmethod
    def choose(
        cls,
        spec: TreeSpec,
        *,
        population: int,
        cohort_size: int | None,
        sampler: dp.Sampler | None,
        rounds: int,
        privacy: dp.Privacy,
        secure: SecureAggregation,
        metrics: Mapping[str, float],
        task: str,
        rotation_key: bytes,
    ) -> RunPlan:
        """Choose the noise that keeps the promise, and check that everything fits.

        Args:
            spec: Form of the weights.
            population: Number of clients.
            cohort_size: Clients drawn on average by padded Poisson sampling; None where `sampler` is given.
            sampler: Another way to draw them.
            rounds: Rounds planned.
            privacy: The promise.
            secure: How sums are taken.
            metrics: Declared metrics, name to bound.
            task: What the run is for, as a name.
            rotation_key: 32 public bytes, for compressed vectors.

        Raises:
            ParameterError, dp.ParameterError, secagg.ParameterError: settings that cannot keep the promise.
        """
        require_kinds(privacy, secure, metrics)
        if not isinstance(rounds, Integral) or rounds < 1:
            raise ParameterError(f"rounds is {rounds!r}; give a whole number, at least 1")
        if not isinstance(task, str):
            raise ParameterError(f"task is {task!r}; give a name, as text")
        if any("\ud800" <= letter <= "\udfff" for letter in task):
            raise ParameterError(f"the task's name {task!a} is no text that can be kept; give it another")
        sampler = _sampler(population, cohort_size, sampler)
        if privacy.mechanism == "central_matrix":
            privacy = replace(privacy, bands=privacy.bands or _most_bands(sampler))
        layout = Layout(spec, dict(metrics), privacy, sampler.expected)

        def rounds_with(noise_multiplier: float) -> AggregationPlan:
            return AggregationPlan.choose(
                layout.blocks(noise_multiplier),
                cohort=sampler.cohort_size,
                privacy=privacy,
                noise_multiplier=noise_multiplier,
                secure=secure,
                task=task,
                rotation_key=rotation_key,
            )

        # Plain Gaussians cost the same whatever the encoding; these two do not.
        special = privacy.mechanism in ("skellam", "central_matrix")
        event = (lambda z: rounds_with(z).mechanism.event) if special else None
        aggregation = rounds_with(dp.calibrate(privacy, sampler, rounds=rounds, event=event))
        if secure.masked:
            aggregation.check_graph()
        accountant = dp.RunAccountant(aggregation.mechanism, sampler, privacy, rounds)
        return cls(sampler, layout, aggregation, accountant)


def require_kinds(privacy: object, secure: object, metrics: object) -> None:
    """Refuse what anybody's first run may give in the place of these three, as a sentence."""
    if not isinstance(privacy, dp.Privacy):
        raise ParameterError(
            f"privacy is {privacy!r}; give a dp.Privacy, such as dp.Privacy(readers_epsilon=8.0, delta=1e-5,"
            " l2_clip_norm=1.0)"
        )
    if not isinstance(secure, SecureAggregation):
        raise ParameterError(
            f"secure is {secure!r}; give a fedavg.SecureAggregation, or leave it out for its defaults"
        )
    if not isinstance(metrics, Mapping):
        raise ParameterError(
            f'metrics is {metrics!r}; give a mapping of name to largest absolute value, such as {{"loss": 5.0}}'
        )


def _sampler(population: int, cohort_size: int | None, sampler: dp.Sampler | None) -> dp.Sampler:
    if (cohort_size is None) == (sampler is None):
        raise ParameterError(
            f"cohort_size is {cohort_size} and sampler is {sampler}; give exactly one of the two"
        )
    if sampler is None:
        if not isinstance(cohort_size, Real) or not 1 <= cohort_size <= population:
            raise ParameterError(
                f"cohort_size is {cohort_size!r} for {population} clients; give a number from 1 to the population"
            )
        return dp.PaddedPoisson(population=population, expected=cohort_size)
    if isinstance(sampler, type) or not hasattr(sampler, "population"):
        raise ParameterError(
            f"sampler is {sampler!r}; give one that is made, such as dp.FixedSizeSample(population, size)"
        )
    if sampler.population != population:
        raise ParameterError(
            f"the sampler draws from {sampler.population} clients and there are {population}; make it for these"
        )
    return sampler


def _most_bands(sampler: dp.Sampler) -> int:
    if not isinstance(sampler, dp.FixedOrder):
        raise ParameterError(
            "mechanism is 'central_matrix', which needs participations that are a known number of rounds apart; give"
            " sampler=dp.FixedOrder(population, expected)"
        )
    return sampler.separation
