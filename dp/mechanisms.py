"""How much noise is left in a sum, whoever drops out: mechanisms that state their guarantee and carry their event.

`DistributedDiscreteGaussian`: every client adds its own share of discrete Gaussian noise to its integer vector before
masking; the sum of the honest shares is the noise. The noise multiplier is the one the accountant may use, after
the correction of `docs/tight-epsilon.md`, from the fewest honest survivors and the joint integer sensitivity.

Invariants:
- Sensitivity is a property of the object, never a loose float; it is the inflated integer one, joint over blocks.
- Deviations are rounded up, so that the noise never falls short of the stated multiplier.

Source: Kairouz, Liu, Steinke 2021 (2102.06387), section 4; the tight form is this project's.
Not here: sampling noise (`dp.discrete_gaussian`), choosing the multiplier (`dp.calibration`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dp import checks
from dp.errors import ParameterError
from dp.events import Gaussian
from dp.tight import LEAST_STDDEV, SMOOTHING_VARIANCE, tight_slack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dp.discrete_gaussian import DiscreteGaussian
    from dp.keystream import Keystream

__all__ = ["DistributedDiscreteGaussian"]

_ROUNDING = 1 + 2.0**-50


@dataclass(frozen=True, kw_only=True)
class DistributedDiscreteGaussian:
    """Discrete Gaussian noise in equal shares, one from every client of the sum.

    Guarantee: if at least `honest_survivors` shares the observer does not know are in the sum, one release costs a
    client no more than `event`, under zero-out adjacency, whatever the data and the other clients' vectors.

    Args:
        noise_multiplier: z, effective deviation of the sum of the honest shares over `sensitivity`, above 0.
        sensitivity: D, joint l2 norm of one client's integer vector, in integer units, above 0.
        dimension: d, number of integer coordinates (padded, where a rotation pads).
        honest_survivors: n_h, fewest honest shares the sum can hold, the client's own included.

    Raises:
        ParameterError: A value is out of range, or a share's deviation would fall below 2.

    >>> mechanism = DistributedDiscreteGaussian(
    ...     noise_multiplier=1.5, sensitivity=1000.0, dimension=100, honest_survivors=225)
    >>> round(mechanism.local_stddev, 4)
    100.0001

    Source: `docs/tight-epsilon.md`.
    """

    noise_multiplier: float
    sensitivity: float
    dimension: int
    honest_survivors: int

    def __post_init__(self) -> None:
        checks.positive("noise_multiplier", self.noise_multiplier)
        checks.positive("sensitivity", self.sensitivity)
        checks.integer("dimension", self.dimension, 1)
        checks.integer("honest_survivors", self.honest_survivors, 1)
        if self.local_stddev < LEAST_STDDEV:
            raise ParameterError(
                f"Each of {self.honest_survivors} shares would have deviation {self.local_stddev:.3g} in integer "
                f"units, below {LEAST_STDDEV:g}, where the tight epsilon is not proven; raise the encoding's "
                "scale (more modulus bits) or the noise multiplier."
            )

    @cached_property
    def local_stddev(self) -> float:
        """Parameter sigma of one client's share, in integer units, rounded up."""
        target = self.noise_multiplier * self.sensitivity
        local = math.sqrt((target * target + SMOOTHING_VARIANCE) / self.honest_survivors)
        return local * _ROUNDING

    def stddev_of_sum(self, shares: int) -> float:
        """Deviation of the noise in a sum that holds `shares` shares, in integer units."""
        return self.local_stddev * math.sqrt(checks.integer("shares", shares, 1))

    @cached_property
    def event(self) -> Gaussian:
        """What one release costs one client."""
        slack = tight_slack(
            local_stddev=self.local_stddev, shares=self.honest_survivors, dimension=self.dimension
        )
        return Gaussian(self.noise_multiplier, slack)

    def describe(self) -> dict[str, Any]:
        """Everything the event follows from, as JSON values."""
        return {
            "kind": "distributed discrete Gaussian",
            "noise_multiplier": self.noise_multiplier,
            "sensitivity": self.sensitivity,
            "dimension": self.dimension,
            "honest_survivors": self.honest_survivors,
        }

    def share(self, keystream: Keystream) -> NDArray[np.int64]:
        """Draw one client's noise share.

        Args:
            keystream: The client's own randomness, never the server's.

        Returns:
            int64 array, shape (dimension,). Secret: it must be added before anything leaves the client.
        """
        return self._sampler.sample(self.dimension, entropy=keystream)

    @cached_property
    def _sampler(self) -> DiscreteGaussian:
        from dp.discrete_gaussian import DiscreteGaussian

        return DiscreteGaussian(stddev=self.local_stddev)
