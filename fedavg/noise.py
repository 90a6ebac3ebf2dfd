"""Which noise keeps a promise in a cohort: from the caller's promise to the mechanism.

Not here: how much noise (`dp.calibrate`), and why it is enough (`dp.mechanisms`, `dp.central`, `dp.removable_noise`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import dp
from fedavg.errors import ParameterError
from fedavg.secure_aggregation import SecureAggregation, share_of

__all__ = ["Central", "Distributed", "Noise", "Shares"]

Shares = dp.DistributedDiscreteGaussian | dp.DistributedSkellam
Distributed = Shares | dp.RemovableDiscreteGaussian
Central = dp.CentralGaussian | dp.CentralMatrix


@dataclass(frozen=True)
class Noise:
    """The noise of one kind of round, for any encoding.

    Args:
        privacy: The promise, which names the mechanism.
        secure: Dropouts and colluders to withstand, and what becomes of excess noise.
        cohort: Number of clients invited.
        noise_multiplier: z.

    Raises:
        ParameterError: nobody honest is left, or the settings exclude each other.
    """

    privacy: dp.Privacy
    secure: SecureAggregation
    cohort: int
    noise_multiplier: float

    def __post_init__(self) -> None:
        if self.honest_survivors < 1:
            raise ParameterError(
                f"a cohort of {self.cohort} less {self.lost} dropouts and {self.corrupted} colluders leaves"
                f" {self.honest_survivors} honest survivors; lower dropout= or corruption=, or draw a larger cohort"
            )
        if self.secure.excess_noise == "remove" and self.privacy.mechanism != "discrete_gaussian":
            raise ParameterError(
                f"excess_noise is 'remove' and mechanism is {self.privacy.mechanism!r}; only discrete_gaussian can take"
                " excess noise off: leave excess_noise at 'keep'"
            )
        if self.secure.compression != "none" and self.privacy.trusted_server:
            raise ParameterError(
                f"compression is {self.secure.compression!r} and mechanism is {self.privacy.mechanism!r}; compressed"
                " sums may wrap, and before the server adds its noise one client may then move them by a whole modulus:"
                " leave compression at 'none'"
            )

    @property
    def lost(self) -> int:
        """Most clients that may drop out."""
        return share_of(self.secure.dropout, self.cohort)

    @property
    def corrupted(self) -> int:
        """Most clients whose noise the observer may know."""
        return share_of(self.secure.corruption, self.cohort)

    @property
    def honest_survivors(self) -> int:
        """Fewest honest clients in a sum."""
        return self.cohort - self.lost - self.corrupted

    def mechanism(self, *, sensitivity: float, dimension: int) -> Distributed | Central:
        """The mechanism at an encoding's joint integer sensitivity.

        Raises:
            dp.ParameterError: the noise shares are too small for what is claimed of them.
        """
        z, privacy = self.noise_multiplier, self.privacy
        if privacy.mechanism == "central_gaussian":
            return dp.CentralGaussian(
                noise_multiplier=z, sensitivity=sensitivity, dimension=dimension, trusted_server=True
            )
        if privacy.mechanism == "central_matrix":
            return dp.CentralMatrix(
                noise_multiplier=z,
                sensitivity=sensitivity,
                dimension=dimension,
                bands=privacy.bands or 1,
                trusted_server=True,
            )
        if self.secure.excess_noise == "remove":
            return dp.RemovableDiscreteGaussian(
                noise_multiplier=z,
                sensitivity=sensitivity,
                dimension=dimension,
                cohort=self.cohort,
                dropouts=self.lost,
                colluders=self.corrupted,
            )
        kind = dp.DistributedSkellam if privacy.mechanism == "skellam" else dp.DistributedDiscreteGaussian
        return kind(
            noise_multiplier=z,
            sensitivity=sensitivity,
            dimension=dimension,
            honest_survivors=self.honest_survivors,
        )

    def is_wide_enough(self, encoding: dp.Encoding) -> bool:
        """Whether shares are as wide, in an encoding's integer units, as is needed for what is claimed of them."""
        try:
            self.mechanism(sensitivity=encoding.sensitivity, dimension=encoding.dimension)
        except dp.ParameterError:
            return False
        return True

    def check_drawable(self, mechanism: Distributed | Central) -> None:
        """Refuse noise that is out of its sampler's range: a round that could not draw it would have been paid for.

        Raises:
            ParameterError: says how much noise it is.
        """
        shares = self.cohort if self.secure.one_draw else 1
        try:
            if isinstance(mechanism, dp.DistributedSkellam):
                dp.Skellam(variance=mechanism.local_variance * shares)
            elif isinstance(mechanism, Central):
                dp.DiscreteGaussian(stddev=mechanism.stddev)
            else:
                dp.DiscreteGaussian(stddev=mechanism.local_stddev * sqrt(shares))
        except dp.ParameterError as error:
            raise ParameterError(
                f"a noise multiplier of {self.noise_multiplier:g} over {mechanism.dimension:,} values cannot be drawn"
                f" ({error}); raise epsilon, or give a smaller multiplier"
            ) from error

    def in_masked_sum(self, mechanism: Distributed | Central) -> float:
        """Deviation of the noise that a sum of the whole cohort has under its masks, in integer units."""
        if isinstance(mechanism, Central):
            return 0.0
        if isinstance(mechanism, dp.RemovableDiscreteGaussian):
            return mechanism.local_stddev * sqrt(self.cohort)
        return mechanism.stddev_of_sum(self.cohort)

    @property
    def full_multiplier(self) -> float:
        """Deviation of the noise, with every share in, over the sensitivity."""
        unit = 2.0**40  # So fine that discreteness does not show.
        mechanism = self.mechanism(sensitivity=unit, dimension=1)
        return max(self.in_masked_sum(mechanism) / unit, self.noise_multiplier)
