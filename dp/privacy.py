"""What a caller asks for: the promise, before any mechanism is chosen.

A promise has two halves, because two observers see different things: the *readers* of released models, who do
not know who was drawn, and the *server*, which does. At least one of the two epsilons, or the noise multiplier,
must be given; whatever is given binds.

Not here: turning the promise into noise (`dp.calibration`), or saying what it means in words (`dp.statements`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dp import checks
from dp.errors import ParameterError

__all__ = ["MECHANISMS", "Epsilons", "Privacy", "delta_warning"]

MECHANISMS = ("discrete_gaussian", "skellam", "central_gaussian", "central_matrix")
"""The first two are made of the clients' own shares; the central ones are added by a server that is trusted."""


@dataclass(frozen=True)
class Epsilons:
    """The two costs of one history, at the same delta.

    Args:
        readers: Epsilon against readers of the released models and metrics.
        server: Epsilon against the server and anybody who holds a roster; infinite where it sees inputs.
    """

    readers: float
    server: float


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """The promise to one client: adjacency is zero-out, the unit is everything the client holds.

    Args:
        delta: What a probability may change by beyond the factor e^epsilon, strictly between 0 and 1; below
            1/population to mean much.
        l2_clip_norm: Bound c on the l2 norm of a client's update, in the units of the update; or one bound for each
            layer, by its path, each layer being clipped by itself.
        readers_epsilon: Largest epsilon against readers of the released models, or None.
        server_epsilon: Largest epsilon against the server, or None.
        noise_multiplier: z, the effective noise over the joint integer sensitivity, or None to calibrate it.
        max_participations: Most rounds a client may contribute to, or None for every round.
        metrics_share: Share w of the squared joint norm that metrics and counts take from the update.
        clip_quantile: Let the clip follow this quantile of the clients' norms, in (0, 1), starting from `l2_clip_norm`
            and staying within a factor 1000 of it; None keeps it fixed. Learnt inside the same noised vector.
        mechanism: One of `MECHANISMS`.
        trusted_server: Must be True for the central mechanisms, against whose server nothing is promised.
        bands: Rounds over which `central_matrix` correlates its noise; None takes all that its cohorts allow.

    Raises:
        ParameterError: A value is out of range, or none of the three targets is given.

    >>> Privacy(delta=1e-5, l2_clip_norm=0.3, readers_epsilon=2.6).metrics_share
    0.01
    """

    delta: float
    l2_clip_norm: float | Mapping[str, float]
    readers_epsilon: float | None = None
    server_epsilon: float | None = None
    noise_multiplier: float | None = None
    max_participations: int | None = None
    metrics_share: float = 0.01
    clip_quantile: float | None = None
    mechanism: str = "discrete_gaussian"
    trusted_server: bool = False
    bands: int | None = None

    def __post_init__(self) -> None:
        checks.probability("delta", self.delta)
        self._check_clip()
        self._check_mechanism()
        targets = {
            "readers_epsilon": self.readers_epsilon,
            "server_epsilon": self.server_epsilon,
            "noise_multiplier": self.noise_multiplier,
        }
        if all(value is None for value in targets.values()):
            raise ParameterError(f"No target was given; give at least one of {', '.join(targets)}.")
        for name, value in targets.items():
            if value is not None:
                checks.positive(name, value)
        if self.max_participations is not None:
            checks.integer("max_participations", self.max_participations, 1)
        checks.probability("metrics_share", self.metrics_share)

    def _check_clip(self) -> None:
        if not isinstance(self.l2_clip_norm, Mapping):
            checks.positive("l2_clip_norm", self.l2_clip_norm)
        for layer, bound in self.l2_clip_norm.items() if isinstance(self.l2_clip_norm, Mapping) else ():
            checks.positive(f"l2_clip_norm of {layer!r}", bound)
        if self.clip_quantile is not None:
            checks.probability("clip_quantile", self.clip_quantile)
            if isinstance(self.l2_clip_norm, Mapping):
                raise ParameterError(
                    "clip_quantile was given with a bound for each layer; give one l2_clip_norm to start from, or leave"
                    " the quantile out."
                )

    def _check_mechanism(self) -> None:
        if self.mechanism not in MECHANISMS:
            raise ParameterError(f"mechanism is {self.mechanism!r}; choose one of {', '.join(MECHANISMS)}.")
        if self.mechanism.startswith("central") != self.trusted_server:
            raise ParameterError(
                f"mechanism is {self.mechanism!r} and trusted_server is {self.trusted_server!r}; the central mechanisms"
                " promise nothing against the server and want trusted_server=True, the others never trust it."
            )
        if self.bands is not None:
            checks.integer("bands", self.bands, 1)
            if self.mechanism != "central_matrix":
                raise ParameterError(
                    f"bands is {self.bands} and mechanism is {self.mechanism!r}; only central_matrix has bands."
                )


def delta_warning(*, delta: float, population: int) -> str | None:
    """Say why a delta is too large for a population, or return None.

    Args:
        delta: What a probability may change by beyond the factor e^epsilon, in (0, 1).
        population: Number of people the promise covers.

    Returns:
        One sentence, or None when delta is below 1/population.

    >>> delta_warning(delta=1e-5, population=3000) is None
    True
    >>> delta_warning(delta=1e-3, population=3000)
    'delta 0.001 is not below 1/population = 0.000333: a mechanism that publishes the data of ...'
    """
    checks.probability("delta", delta)
    checks.integer("population", population, 1)
    if delta < 1 / population:
        return None
    return (
        f"delta {delta:g} is not below 1/population = {1 / population:.3g}: a mechanism that publishes the data of "
        f"about {delta * population:.3g} people in full, chosen at random, would satisfy it; "
        f"choose a delta well below {1 / population:.3g}."
    )
