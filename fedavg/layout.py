"""What one client's vector holds, as named blocks: the update, the counts and metrics, the clip's indicator.

* `update`: the change of the weights, clipped to `l2_clip_norm` as a whole; or `update/<path>`, layer by layer;
* `scalars`: 1 for having contributed, 1 for having failed, and each declared metric over its bound, in [-1, 1];
  clipped jointly to the square root of their number;
* `below_clip` (adaptive clipping only): +1 if the update's norm was within the clip, -1 if not.

A client that was invited only to fill the cohort, or whose step failed, sends the same form with zeros in all but the
count of failures.

Not here: how blocks become noised integers (`fedavg.aggregation`), what becomes of their sums (`fedavg.process`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import dp
from fedavg.errors import ParameterError
from fedavg.pytree import TreeSpec
from fedavg.step import Trained

__all__ = ["Contribution", "Layout"]

Contribution = Trained | Literal["padding", "failed"]
_CLIP_RANGE = 1000.0
_INDICATOR = "below_clip"


@dataclass(frozen=True)
class Layout:
    """The blocks of one run.

    Args:
        spec: Form of the weights.
        metrics: Declared metrics, name to largest absolute value.
        privacy: The promise: clip, shares, adaptive quantile.
        expected_contributors: Public expected number of clients whose data is in a round.

    Raises:
        ParameterError: a metric's bound is not positive, or bounds for layers that do not exist.
    """

    spec: TreeSpec
    metrics: Mapping[str, float]
    privacy: dp.Privacy
    expected_contributors: float

    def __post_init__(self) -> None:
        for name, bound in self.metrics.items():
            if not isinstance(bound, Real) or not 0 < bound < np.inf:
                raise ParameterError(
                    f"metric {name} has bound {bound!r}; give the largest absolute value it can take"
                )
        layers, clip = self._layers, self.privacy.l2_clip_norm
        if isinstance(clip, Mapping) and {*clip} != {*layers}:
            raise ParameterError(
                f"l2_clip_norm has bounds for {sorted(clip)}; give one number, or one for each of {sorted(layers)}"
            )

    @cached_property
    def adaptive(self) -> dp.AdaptiveClip | None:
        """How the clip follows a quantile of the norms, or None where it is fixed."""
        start, quantile = self.privacy.l2_clip_norm, self.privacy.clip_quantile
        if quantile is None or isinstance(start, Mapping):
            return None
        return dp.AdaptiveClip(
            expected_clients=self.expected_contributors,
            smallest=start / _CLIP_RANGE,
            largest=start * _CLIP_RANGE,
            quantile=quantile,
        )

    @property
    def first_clip(self) -> float | None:
        """Where an adaptive clip starts, or None."""
        clip = self.privacy.l2_clip_norm
        return clip if self.adaptive is not None and not isinstance(clip, Mapping) else None

    def blocks(self, noise_multiplier: float) -> tuple[dp.Block, ...]:
        """All blocks, for a vector with this noise multiplier; their weights add up to 1.

        Raises:
            dp.ParameterError: the noise leaves no room for the indicator of an adaptive clip.
        """
        scalars, share = 2 + len(self.metrics), self.privacy.metrics_share
        indicator = (
            ()
            if self.adaptive is None
            else (self.adaptive.block(noise_multiplier=noise_multiplier, name=_INDICATOR),)
        )
        rest = 1 - share - sum(block.weight for block in indicator)
        if rest <= 0:
            raise ParameterError(
                f"metrics_share is {share} and the clip's indicator takes {1 - share - rest:.3g} of the noise, which"
                " leaves none for the update; lower metrics_share, or draw larger cohorts"
            )
        return (
            *self._update_blocks(rest),
            dp.Block("scalars", length=scalars, l2_bound=sqrt(scalars), weight=share),
            *indicator,
        )

    def values(self, contribution: Contribution, *, clip: float | None = None) -> dict[str, NDArray[Any]]:
        """One client's blocks, before they are clipped.

        Args:
            contribution: What its step gave, or why it has nothing to give.
            clip: This round's clip, where it is adaptive.
        """
        scalars, indicator = np.zeros(2 + len(self.metrics)), 0.0
        update = contribution.delta if isinstance(contribution, Trained) else np.zeros(self.spec.size)
        if contribution == "failed":
            scalars[1] = 1.0
        elif isinstance(contribution, Trained):
            scalars[0] = 1.0
            for i, (name, bound) in enumerate(self.metrics.items(), start=2):
                scalars[i] = min(max(contribution.metrics[name] / bound, -1.0), 1.0)
            if self.adaptive is not None and clip is not None:
                indicator = self.adaptive.indicator(_norm(update), clip=clip)
        blocks = {**self._split(update), "scalars": scalars}
        return blocks if self.adaptive is None else {**blocks, _INDICATOR: np.array([indicator])}

    def update(self, sums: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """The update's sum as one flat vector, shape (spec.size,)."""
        if not isinstance(self.privacy.l2_clip_norm, Mapping):
            return sums["update"]
        return np.concatenate([sums[name] for name in self._layers_named()])

    def next_clip(self, clip: float | None, sums: Mapping[str, NDArray[np.float64]]) -> float | None:
        """The next round's clip; None where it is fixed."""
        if self.adaptive is None or clip is None:
            return None
        return self.adaptive.next_clip(clip, noised_sum=float(sums[_INDICATOR][0]))

    @property
    def _layers(self) -> dict[str, int]:
        return {leaf.path or "weights": leaf.size for leaf in self.spec.leaves}

    def _layers_named(self) -> dict[str, int]:
        return {f"update/{path}": size for path, size in self._layers.items()}

    def _update_blocks(self, weight: float) -> tuple[dp.Block, ...]:
        clip = self.privacy.l2_clip_norm
        if not isinstance(clip, Mapping):
            return (dp.Block("update", length=self.spec.size, l2_bound=clip, weight=weight),)
        bounds = {f"update/{path}": bound for path, bound in clip.items()}
        return dp.per_layer(self._layers_named(), l2_bound=bounds, weight=weight)

    def _split(self, update: NDArray[Any]) -> dict[str, NDArray[Any]]:
        if not isinstance(self.privacy.l2_clip_norm, Mapping):
            return {"update": update}
        layers = self._layers_named()
        ends = np.cumsum(list(layers.values()))[:-1]
        return dict(zip(layers, np.split(update, ends), strict=True))


def _norm(update: NDArray[Any]) -> float:
    with np.errstate(over="ignore"):  # An infinite norm is above every clip, as it should be.
        return float(np.linalg.norm(update.astype(np.float64)))
