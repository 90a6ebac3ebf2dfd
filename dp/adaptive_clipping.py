"""Adaptive clipping: the clip follows a quantile of the clients' norms, learnt inside the same noised vector.

Every client adds one coordinate: +1 if its norm was within the clip C, -1 if not, 0 if it has nothing to say
(padding, failure). The noised sum tells the fraction b of clients below C, and C moves towards the quantile gamma:

    b = sum / (2 m) + 1/2,    C <- clamp(C exp(-eta (b - gamma)))    with m clients expected.

The coordinate is a block like any other. For its fraction to carry noise of deviation sigma_b clients where the whole
vector's noise multiplier is z, its weight must be (z / (2 sigma_b))^2; the update keeps the rest. With the
weight divided out that is [ATM21]'s z_update = (z^-2 - (2 sigma_b)^-2)^(-1/2): two Gaussians, one event, whose cost
does not depend on what C becomes. As scales are proportional to 1/C, the integer noise does not change either.

Source: Andrew, Thakkar, McMahan, Ramaswamy 2021 (arXiv 1905.03871), algorithm 1 and section 3.2.
Not here: the mechanism (`mechanisms`), what a round costs (`accounting`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dp import checks
from dp.blocks import Block
from dp.errors import ParameterError

__all__ = ["AdaptiveClip"]


@dataclass(frozen=True, kw_only=True)
class AdaptiveClip:
    """How a clip follows a quantile of norms.

    Guarantee:
        Nothing is learnt from the clients but through the noised sum of `block`, which is part of the vector that
        the mechanism's event already covers.

    Args:
        expected_clients: m, the public expected number of contributing clients, above 0.
        smallest: Least clip, above 0.
        largest: Greatest clip, above `smallest`.
        quantile: gamma, fraction of clients to leave unclipped, in (0, 1).
        learning_rate: eta, above 0: how fast the clip follows, geometrically.
        indicator_stddev: sigma_b, deviation of the noise on the number of clients below the clip; `None` is m / 20.

    Raises:
        ParameterError: A value is out of its range.

    >>> adaptive = AdaptiveClip(expected_clients=100, smallest=0.01, largest=10.0)
    >>> round(adaptive.block(noise_multiplier=1.0).weight, 4)
    0.01
    >>> round(adaptive.next_clip(0.5, noised_sum=40.0), 4)
    0.4804
    """

    expected_clients: float
    smallest: float
    largest: float
    quantile: float = 0.5
    learning_rate: float = 0.2
    indicator_stddev: float | None = None

    def __post_init__(self) -> None:
        checks.positive("expected_clients", self.expected_clients)
        checks.positive("smallest", self.smallest)
        checks.positive("largest", self.largest)
        checks.probability("quantile", self.quantile)
        checks.positive("learning_rate", self.learning_rate)
        if self.smallest >= self.largest:
            raise ParameterError(
                f"smallest is {self.smallest}, largest {self.largest}; "
                "the clip needs room to move: give a largest above the smallest"
            )
        checks.positive("indicator_stddev", self._stddev)

    @property
    def _stddev(self) -> float:
        return self.expected_clients / 20 if self.indicator_stddev is None else self.indicator_stddev

    def block(self, *, noise_multiplier: float, name: str = "below_clip") -> Block:
        """The indicator's block, to be planned beside the others, whose weights add up to the rest.

        Args:
            noise_multiplier: z of the whole vector.
            name: Of the block.

        Raises:
            ParameterError: z >= 2 sigma_b: the indicator alone would use up the noise.
        """
        share = checks.positive("noise_multiplier", noise_multiplier) / (2 * self._stddev)
        if share >= 1:
            raise ParameterError(
                f"noise_multiplier is {noise_multiplier:g}; with indicator_stddev {self._stddev:g} it must stay below "
                f"{2 * self._stddev:g}: raise indicator_stddev, or expect more clients"
            )
        return Block(name, 1, l2_bound=1.0, weight=share**2)

    def indicator(self, norm: float, *, clip: float) -> float:
        """What a contributing client adds: +1 if its norm before clipping was within the clip, else -1."""
        return 1.0 if norm <= clip else -1.0

    def next_clip(self, clip: float, *, noised_sum: float) -> float:
        """The next round's clip.

        Args:
            clip: This round's.
            noised_sum: The decoded sum of the indicators.

        Raises:
            ParameterError: The clip is not positive, or the sum is not finite.
        """
        clip = checks.positive("clip", clip)
        if not math.isfinite(noised_sum):
            raise ParameterError(f"noised_sum is {noised_sum}; it must be finite")
        below = noised_sum / (2 * self.expected_clients) + 0.5
        # Noise can make the fraction anything; an exponent of 700 is past every clamp.
        exponent = max(-700.0, min(700.0, -self.learning_rate * (below - self.quantile)))
        return max(self.smallest, min(self.largest, clip * math.exp(exponent)))
