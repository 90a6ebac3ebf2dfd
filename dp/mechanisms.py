"""How much noise is left in a sum, whoever drops out: mechanisms that state their guarantee and carry their event.

Every client adds its own share of integer noise to its integer vector before masking; the sum of the honest shares is
the noise. The noise multiplier is the one the accountant may use, from the fewest honest survivors and the joint
integer sensitivity.

Invariants:
- Sensitivity is a property of the object, never a loose float; it is the inflated integer one, joint over blocks.
- Deviations are rounded up, so that the noise never falls short of the stated multiplier.

Source: Kairouz, Liu, Steinke 2021 (2102.06387), section 4; Agarwal, Kairouz, Liu 2021 (2110.04995); the tight form is
this project's (`docs/tight-epsilon.md`).
Not here: mechanisms that trust the server (`dp.central`), sampling noise (`dp.discrete_gaussian`, `dp.skellam`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from dp import checks
from dp.errors import ParameterError
from dp.events import DiscreteGaussianShares, Gaussian, NoiseEvent
from dp.events import Skellam as SkellamNoise
from dp.tight import LEAST_STDDEV, SMOOTHING_VARIANCE, tight_slack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dp.discrete_gaussian import DiscreteGaussian
    from dp.keystream import Keystream
    from dp.skellam import Skellam

__all__ = ["DistributedDiscreteGaussian", "DistributedSkellam", "Mechanism", "NarrowDiscreteGaussian"]

_ROUNDING = 1 + 2.0**-50


class Mechanism(Protocol):
    """What every mechanism offers the accountants and the statements."""

    @property
    def noise_multiplier(self) -> float:
        """Effective deviation of the noise over the joint sensitivity."""
        ...

    @property
    def honest_survivors(self) -> int:
        """Fewest honest shares that the noise is made of; 1 where the server adds it."""
        ...

    @property
    def event(self) -> NoiseEvent:
        """What one release, or one participation, costs one client."""
        ...

    @property
    def trusted_server(self) -> bool:
        """Whether the server sees what noise has not covered, so that nothing is promised against it."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Everything the event follows from, as JSON values."""
        ...


@dataclass(frozen=True, kw_only=True)
class _DiscreteGaussianShares:
    """What both discrete Gaussian mechanisms share: figures, deviations, drawing."""

    noise_multiplier: float
    sensitivity: float
    dimension: int
    honest_survivors: int

    def __post_init__(self) -> None:
        _check_shares(self.noise_multiplier, self.sensitivity, self.dimension, self.honest_survivors)

    @property
    def trusted_server(self) -> bool:
        """False: the server never sees a vector without noise."""
        return False

    @cached_property
    def local_stddev(self) -> float:
        """Parameter sigma of one client's share, in integer units, rounded up."""
        target = self.noise_multiplier * self.sensitivity
        return math.sqrt((target * target + self._given_up) / self.honest_survivors) * _ROUNDING

    def stddev_of_sum(self, shares: int) -> float:
        """Deviation of the noise in a sum that holds `shares` shares, in integer units."""
        return self.local_stddev * math.sqrt(checks.integer("shares", shares, 1))

    def describe(self) -> Mapping[str, Any]:
        """Everything the event follows from, as JSON values."""
        return {
            "kind": self._kind,
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

    def add_share(self, vector: NDArray[np.int64], keystream: Keystream) -> None:
        """Add to a client's integer vector, shape (dimension,), what `share` would draw."""
        self._sampler.add_to(vector, entropy=keystream)

    def one_draw(self, keystream: Keystream, shares: int) -> NDArray[np.int64]:
        """One draw in place of the sum of `shares` shares: for simulations, where nobody hides a share from anybody.

        Its law is the sum's up to a factor e^(+-`event.slack`) at every point: discrete Gaussians are almost closed
        under sums (`dp.tight`).
        """
        from dp.discrete_gaussian import DiscreteGaussian

        return DiscreteGaussian(stddev=self.stddev_of_sum(shares)).sample(self.dimension, entropy=keystream)

    @cached_property
    def _sampler(self) -> DiscreteGaussian:
        from dp.discrete_gaussian import DiscreteGaussian

        return DiscreteGaussian(stddev=self.local_stddev)

    _given_up: ClassVar[float] = 0.0
    _kind: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class DistributedDiscreteGaussian(_DiscreteGaussianShares):
    """Discrete Gaussian noise in equal shares of deviation 2 or more, one from every client of the sum.

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
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.local_stddev < LEAST_STDDEV:
            raise ParameterError(
                f"Each of {self.honest_survivors} shares would have deviation {self.local_stddev:.3g} in integer "
                f"units, below {LEAST_STDDEV:g}, where the tight epsilon is not proven; raise the encoding's "
                "resolution or the noise multiplier, or use NarrowDiscreteGaussian."
            )

    @cached_property
    def event(self) -> Gaussian:
        """What one release costs one client."""
        shares, d = self.honest_survivors, self.dimension
        return Gaussian(
            self.noise_multiplier, tight_slack(local_stddev=self.local_stddev, shares=shares, dimension=d)
        )

    _given_up = SMOOTHING_VARIANCE
    _kind = "distributed discrete Gaussian"


@dataclass(frozen=True, kw_only=True)
class NarrowDiscreteGaussian(_DiscreteGaussianShares):
    """Discrete Gaussian noise in equal shares of any deviation, at the larger epsilon of Renyi accounting.

    Guarantee: as `DistributedDiscreteGaussian`, by the divergences of `event`.

    Args:
        noise_multiplier: z, deviation of the sum of the honest shares over `sensitivity`, above 0.
        sensitivity: D, joint l2 norm of one client's integer vector, in integer units, above 0.
        dimension: d, number of integer coordinates (padded, where a rotation pads).
        honest_survivors: n_h, fewest honest shares the sum can hold, the client's own included.

    >>> mechanism = NarrowDiscreteGaussian(
    ...     noise_multiplier=1.5, sensitivity=10.0, dimension=100, honest_survivors=225)
    >>> round(mechanism.local_stddev, 6)
    1.0
    """

    @cached_property
    def event(self) -> DiscreteGaussianShares:
        """What one release costs one client."""
        return DiscreteGaussianShares(
            self.local_stddev,
            self.honest_survivors,
            self.sensitivity,
            integer_l1(self.sensitivity, self.dimension),
            self.dimension,
        )

    _kind = "narrow discrete Gaussian"


@dataclass(frozen=True, kw_only=True)
class DistributedSkellam:
    """Skellam noise in equal shares, one from every client of the sum: closed under addition, Renyi accounting only.

    Guarantee: as `DistributedDiscreteGaussian`, by the divergences of `event`.

    Args:
        noise_multiplier: z, deviation of the sum of the honest shares over `sensitivity`, above 0.
        sensitivity: D, joint l2 norm of one client's integer vector, in integer units, above 0.
        dimension: d, number of integer coordinates.
        honest_survivors: n_h, fewest honest shares the sum can hold, the client's own included.

    >>> mechanism = DistributedSkellam(noise_multiplier=2.0, sensitivity=50.0, dimension=10, honest_survivors=100)
    >>> round(mechanism.local_variance, 6)
    100.0
    """

    noise_multiplier: float
    sensitivity: float
    dimension: int
    honest_survivors: int

    def __post_init__(self) -> None:
        _check_shares(self.noise_multiplier, self.sensitivity, self.dimension, self.honest_survivors)

    @property
    def trusted_server(self) -> bool:
        """False: the server never sees a vector without noise."""
        return False

    @cached_property
    def local_variance(self) -> float:
        """Variance of one client's share, in integer units squared, rounded up."""
        return (self.noise_multiplier * self.sensitivity) ** 2 / self.honest_survivors * _ROUNDING

    def stddev_of_sum(self, shares: int) -> float:
        """Deviation of the noise in a sum that holds `shares` shares, in integer units."""
        return math.sqrt(self.local_variance * checks.integer("shares", shares, 1))

    @cached_property
    def event(self) -> SkellamNoise:
        """What one release costs one client."""
        variance = self.local_variance * self.honest_survivors / _ROUNDING
        return SkellamNoise(variance, self.sensitivity, integer_l1(self.sensitivity, self.dimension))

    def describe(self) -> Mapping[str, Any]:
        """Everything the event follows from, as JSON values."""
        return {
            "kind": "distributed Skellam",
            "noise_multiplier": self.noise_multiplier,
            "sensitivity": self.sensitivity,
            "dimension": self.dimension,
            "honest_survivors": self.honest_survivors,
        }

    def share(self, keystream: Keystream) -> NDArray[np.int64]:
        """Draw one client's noise share: see `DistributedDiscreteGaussian.share`.

        Args:
            keystream: Where its randomness comes from.

        Returns:
            int64, shape (dimension,).
        """
        return self._sampler.sample(self.dimension, entropy=keystream)

    def add_share(self, vector: NDArray[np.int64], keystream: Keystream) -> None:
        """Add to a client's integer vector, shape (dimension,), what `share` would draw.

        Args:
            vector: int64, changed in place.
            keystream: Where its randomness comes from.
        """
        self._sampler.add_to(vector, entropy=keystream)

    def one_draw(self, keystream: Keystream, shares: int) -> NDArray[np.int64]:
        """One draw in place of the sum of `shares` shares, for simulations: Skellam noise is closed under sums.

        Args:
            keystream: Where its randomness comes from.
            shares: How many shares it stands for.
        """
        from dp.skellam import Skellam

        variance = self.local_variance * checks.integer("shares", shares, 1)
        return Skellam(variance=variance).sample(self.dimension, entropy=keystream)

    @cached_property
    def _sampler(self) -> Skellam:
        from dp.skellam import Skellam

        return Skellam(variance=self.local_variance)


def integer_l1(l2_sensitivity: float, dimension: int) -> float:
    """Largest l1 norm of an integer vector of that l2 norm: it has at most D^2 coordinates that are not 0."""
    return l2_sensitivity * min(math.sqrt(dimension), max(l2_sensitivity, 1.0))


def _check_shares(noise_multiplier: float, sensitivity: float, dimension: int, honest_survivors: int) -> None:
    checks.positive("noise_multiplier", noise_multiplier)
    checks.positive("sensitivity", sensitivity)
    checks.integer("dimension", dimension, 1)
    checks.integer("honest_survivors", honest_survivors, 1)
