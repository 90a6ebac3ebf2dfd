"""Planning a privacy budget before a run, in one call: leave one figure out, and it is solved for.

The unknown may be epsilon, the noise multiplier, rounds, cohort, population or delta. The accountant is the one that
charges a run, so that a plan, the run and its ledger agree; to compare with a published figure, ask for its accountant.

Not here: charging a budget (`dp.ledger`), checking one that was spent (`dp.verification`), the command line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dp import checks
from dp.accounting import epsilon
from dp.calibration import calibrate
from dp.cohorts import PaddedPoisson
from dp.errors import ParameterError, UnsupportedEvent
from dp.events import Composed, Gaussian, NoiseEvent, Poisson, Skellam
from dp.mechanisms import integer_l1
from dp.privacy import Epsilons, Privacy, delta_warning
from dp.tight import SMOOTHING_VARIANCE, smoothing_slack, worst_slack

__all__ = ["ACCOUNTANTS", "MECHANISMS", "Release", "plan"]

MECHANISMS = ("discrete_gaussian", "gaussian", "skellam")
"""Distributed discrete Gaussian; central Gaussian, which trusts the server; distributed Skellam."""

ACCOUNTANTS = ("pld", "rdp")
"""Privacy loss distributions, which runs are charged by; dp-accounting's Renyi orders, which many papers used."""

Release = Callable[[PaddedPoisson, float], NoiseEvent]
"""What one release costs, from the cohort's sampler and the noise multiplier."""

_MOST_ROUNDS = 10**7
_LEAST_DELTA = 1e-15


def plan(
    *,
    population: int | None = None,
    cohort: float | None = None,
    rounds: int | None = None,
    delta: float | None = None,
    noise_multiplier: float | None = None,
    readers_epsilon: float | None = None,
    server_epsilon: float | None = None,
    max_participations: int | None = None,
    mechanism: str = "discrete_gaussian",
    dimension: int = 10**6,
    accountant: str = "pld",
    release: Release | None = None,
) -> dict[str, Any]:
    """Plan a run of padded Poisson cohorts: leave out one figure, and it is solved for.

    Args:
        population: Number of clients; the smallest that keeps the epsilons, if left out.
        cohort: Expected number drawn a round; the largest, if left out.
        rounds: The most, if left out.
        delta: The smallest, if left out.
        noise_multiplier: The least, if left out; the epsilons follow from it, if they are left out.
        readers_epsilon: Most epsilon against readers, or None.
        server_epsilon: Most epsilon against the server, or None.
        max_participations: Cap on the rounds a client contributes to; every round, if left out.
        mechanism: One of `MECHANISMS`.
        dimension: Number of coordinates, for what discreteness costs.
        accountant: One of `ACCOUNTANTS`.
        release: What one release costs, where the caller has planned the encoding; `dimension` is not read then.

    Returns:
        JSON values: `epsilon` (`readers`, `server`; null where infinite), `noise_multiplier`, `population`, `expected`
        (drawn), `cohort` (invited: the padded size), `sampling_rate`, `rounds`, `delta`, `max_participations`,
        `mechanism`, `solved_for`, `warnings`.

    Raises:
        ParameterError: More or less than one figure is left out, or no figure keeps the epsilons.

    >>> answer = plan(population=3000, cohort=300, rounds=50, delta=1e-5, noise_multiplier=1.5)
    >>> round(answer["epsilon"]["readers"], 3), answer["cohort"], answer["solved_for"]
    (2.53, 416, 'epsilon')
    """
    setting = _Setting(
        population, cohort, rounds, delta, noise_multiplier, readers_epsilon, server_epsilon, max_participations,
        mechanism, checks.integer("dimension", dimension, 1), accountant, release,
    )  # fmt: skip
    if rounds is not None:
        checks.integer("rounds", rounds, 1)
    if mechanism not in MECHANISMS:
        raise ParameterError(f"mechanism is {mechanism!r}; choose one of {', '.join(MECHANISMS)}.")
    if accountant not in ACCOUNTANTS or (accountant == "rdp" and mechanism == "skellam"):
        raise ParameterError(
            f"accountant is {accountant!r} for {mechanism}; choose one of {', '.join(ACCOUNTANTS)} for a Gaussian, "
            "and pld for skellam, which is accounted for by its own Renyi bound."
        )
    if mechanism == "gaussian" and server_epsilon is not None:
        raise ParameterError(
            "The central Gaussian trusts the server, whose epsilon is infinite; leave the server's epsilon out, "
            "or plan discrete_gaussian."
        )
    unknown = setting.unknown()
    if accountant == "rdp" and unknown != "epsilon":
        raise ParameterError(
            f"accountant 'rdp' compares epsilons with published ones and solves for nothing; leave the epsilons out "
            f"and give {unknown}, or use pld."
        )
    return setting.solved(unknown).answer(unknown)


@dataclass(frozen=True)
class _Setting:
    """A plan with at most one figure missing."""

    population: Any
    cohort: Any
    rounds: Any
    delta: Any
    noise_multiplier: Any
    readers_epsilon: float | None
    server_epsilon: float | None
    max_participations: int | None
    mechanism: str
    dimension: int
    accountant: str
    release: Release | None

    def unknown(self) -> str:
        figures = ("population", "cohort", "rounds", "delta", "noise_multiplier")
        missing = [name for name in figures if getattr(self, name) is None]
        if self.readers_epsilon is None and self.server_epsilon is None:
            missing.append("epsilon")
        if len(missing) > 1 or (not missing):
            said = ", ".join(missing) or "nothing"
            verb = "are" if len(missing) > 1 else "is"
            raise ParameterError(
                f"{said} {verb} left out; give all but one of {', '.join(figures)} and the epsilons, and that one is"
                " solved for."
            )
        return missing[0]

    def solved(self, unknown: str) -> _Setting:
        if unknown == "epsilon":
            return self
        if unknown == "noise_multiplier":
            return self._with("noise_multiplier", self._least_noise())
        searches: dict[str, Callable[[], Any]] = {
            "rounds": lambda: _largest_integer(self._kept_with("rounds"), 1, _MOST_ROUNDS),
            "cohort": lambda: _largest_integer(self._kept_with("cohort"), 1, self.population),
            "population": lambda: _smallest_integer(
                self._kept_with("population"), math.ceil(self.cohort), 10**12
            ),
            "delta": lambda: _smallest_delta(self._kept_with("delta")),
        }
        found = searches[unknown]()
        if found is None:
            raise ParameterError(
                f"No {unknown} keeps epsilon at {self._targets()} with noise multiplier {self.noise_multiplier:g}; "
                "raise epsilon or the noise multiplier."
            )
        return self._with(unknown, found)

    def answer(self, unknown: str) -> dict[str, Any]:
        sampler, epsilons = self.sampler(), self.epsilons()
        warning = delta_warning(delta=self.delta, population=self.population)
        return {
            "epsilon": {"readers": _finite(epsilons.readers), "server": _finite(epsilons.server)},
            "noise_multiplier": self.noise_multiplier,
            "population": sampler.population,
            "expected": sampler.expected,
            "cohort": sampler.cohort_size,
            "sampling_rate": sampler.sampling_rate,
            "rounds": self.rounds,
            "delta": self.delta,
            "max_participations": self.max_participations,
            "mechanism": self.mechanism,
            "accountant": self.accountant,
            "solved_for": unknown,
            "warnings": [] if warning is None else [warning],
        }

    def sampler(self) -> PaddedPoisson:
        return PaddedPoisson(self.population, self.cohort)

    def epsilons(self) -> Epsilons:
        sampler = self.sampler()
        event = self.event(self.noise_multiplier) if self.release is None else self._released(sampler)
        cost = epsilon if self.accountant == "pld" else _renyi_epsilon
        readers = cost(sampler.readers_event(event, self.rounds, self.max_participations), delta=self.delta)
        if self.mechanism == "gaussian":
            return Epsilons(readers, math.inf)
        server = cost(sampler.server_event(event, self.rounds, self.max_participations), delta=self.delta)
        return Epsilons(min(readers, server), server)

    def _released(self, sampler: PaddedPoisson) -> NoiseEvent:
        release: Any = self.release
        event: NoiseEvent = release(sampler, self.noise_multiplier)
        return event

    def event(self, noise_multiplier: float) -> NoiseEvent:
        if self.mechanism == "gaussian":
            return Gaussian(noise_multiplier, self.dimension * smoothing_slack(SMOOTHING_VARIANCE))
        if self.mechanism == "discrete_gaussian":
            return Gaussian(noise_multiplier, worst_slack(shares=_MOST_ROUNDS, dimension=self.dimension))
        # The encoding's default: clip and rounding together reach 101 sqrt(d) in integer units.
        sensitivity = 101 * math.sqrt(self.dimension)
        variance = (checks.positive("noise_multiplier", noise_multiplier) * sensitivity) ** 2
        return Skellam(variance, sensitivity, integer_l1(sensitivity, self.dimension))

    def _with(self, name: str, value: Any) -> _Setting:
        figures: dict[str, Any] = {name: value}
        return replace(self, **figures)

    def _least_noise(self) -> float:
        privacy = Privacy(
            delta=self.delta,
            l2_clip_norm=1.0,
            readers_epsilon=self.readers_epsilon,
            server_epsilon=self.server_epsilon,
            max_participations=self.max_participations,
        )
        if self.mechanism == "skellam":
            release, sampler = self.release, self.sampler()
            event = self.event if release is None else lambda noise: release(sampler, noise)
            return calibrate(privacy, sampler, self.rounds, event=event)
        return calibrate(privacy, self.sampler(), self.rounds)  # As a run calibrates itself.

    def _kept_with(self, name: str) -> Callable[[Any], bool]:
        def kept(value: Any) -> bool:
            reached = self._with(name, value).epsilons()
            readers, server = self.readers_epsilon, self.server_epsilon
            return (readers is None or reached.readers <= readers) and (
                server is None or reached.server <= server
            )

        return kept

    def _targets(self) -> str:
        named = {"readers": self.readers_epsilon, "the server": self.server_epsilon}
        return " and ".join(f"{value:g} against {who}" for who, value in named.items() if value is not None)


def _largest_integer(holds: Callable[[int], bool], least: int, most: int) -> int | None:
    """Largest integer in least..most at which a condition that once false stays false holds."""
    if not holds(least):
        return None
    low, high = least, least + 1
    while high <= most and holds(high):
        low, high = high, min(2 * high, most + 1)
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _smallest_integer(holds: Callable[[int], bool], least: int, most: int) -> int | None:
    """Smallest integer in least..most at which a condition that once true stays true holds."""
    found = _largest_integer(lambda n: n == least - 1 or not holds(n), least - 1, most)
    return None if found is None or found >= most else found + 1


def _smallest_delta(holds: Callable[[float], bool]) -> float | None:
    """Smallest delta, to a part in ten thousand and rounded up, at which the epsilons hold."""
    low, high = math.log(_LEAST_DELTA), math.log(0.5)
    if not holds(0.5):
        return None
    if holds(_LEAST_DELTA):
        return _LEAST_DELTA
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(math.exp(middle)) else (middle, high)
    return math.exp(high)


def _renyi_epsilon(cost: Composed, *, delta: float) -> float:
    """Epsilon by dp-accounting's Renyi accountant and its orders: for comparison with figures published with it."""
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    if cost.count == 0:
        return 0.0
    step, rate = (cost.step.event, cost.step.rate) if isinstance(cost.step, Poisson) else (cost.step, 1.0)
    if not isinstance(step, Gaussian):
        raise UnsupportedEvent(f"The Renyi accountant is offered for Gaussian noise, not for {step!r}.")
    slack = cost.count * step.slack
    event = dp_accounting.GaussianDpEvent(step.noise_multiplier)
    sampled = dp_accounting.PoissonSampledDpEvent(rate, event) if rate < 1 else event
    accountant = RdpAccountant().compose(sampled, cost.count)
    return float(accountant.get_epsilon(delta * math.exp(-slack))) + 2 * slack


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
