"""Mechanisms that trust the server: it sees the sum, adds the noise, and nothing is promised against it.

They take the same integer path as the distributed ones, so that floating point breaks no promise; the one that does not
says so in its name. Each wants `trusted_server=True` in so many words.

*Correlated noise* (`CentralMatrix`): instead of fresh noise on every round's sum x_t, the server releases
y_t = sum_j c_j x_(t-j) + w_t for the first coefficients c of 1/sqrt(1 - z), in exact integers, and recovers x from y,
which is post-processing. Noise on prefix sums, which is what training follows, grows far slower. A client whose
participations are at least `bands` rounds apart meets disjoint columns: k participations are k Gaussian releases of one
column's norm.

Source: Denisov et al. 2022 (2202.08312); Choquette-Choo et al. 2023 (2306.08153), section 4 (banded, k participations);
Fichtenberger, Henzinger, Upadhyay 2023 (2202.11205) for the square root's coefficients.
Not here: noise the server never sees (`dp.mechanisms`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp import checks
from dp.errors import ParameterError
from dp.events import BandedGaussian, Gaussian
from dp.tight import SMOOTHING_VARIANCE, smoothing_slack

if TYPE_CHECKING:
    from dp.discrete_gaussian import DiscreteGaussian
    from dp.keystream import Keystream

__all__ = ["CentralFloatGaussianNotFloatingPointSafe", "CentralGaussian", "CentralMatrix", "MatrixRelease"]

_ROUNDING = 1 + 2.0**-50
_FINEST_COEFFICIENTS = 2**16
_MOST_STDDEV = 2.0**31


@dataclass(frozen=True, kw_only=True)
class CentralGaussian:
    """Discrete Gaussian noise that the server adds to the integer sum.

    Guarantee: against readers, one release costs a client no more than `event`, under zero-out or add/remove adjacency.
    Against the server nothing is promised.

    Args:
        noise_multiplier: z, effective deviation of the noise over `sensitivity`, above 0.
        sensitivity: D, joint l2 norm of one client's integer vector, in integer units, above 0.
        dimension: d, number of integer coordinates.
        trusted_server: Must be True: the caller says that the server may see the sum.

    >>> CentralGaussian(noise_multiplier=1.0, sensitivity=1000.0, dimension=10, trusted_server=True).event.slack < 1e-30
    True
    """

    noise_multiplier: float
    sensitivity: float
    dimension: int
    trusted_server: bool

    def __post_init__(self) -> None:
        _check(self.noise_multiplier, self.sensitivity, self.dimension, self.trusted_server)

    @property
    def honest_survivors(self) -> int:
        """1: the noise is the server's alone."""
        return 1

    @cached_property
    def stddev(self) -> float:
        """Parameter sigma of the noise, in integer units, rounded up."""
        target = self.noise_multiplier * self.sensitivity
        return math.sqrt(target * target + SMOOTHING_VARIANCE) * _ROUNDING

    @cached_property
    def event(self) -> Gaussian:
        """What one release costs one client."""
        return Gaussian(self.noise_multiplier, self.dimension * smoothing_slack(SMOOTHING_VARIANCE))

    def noise(self, keystream: Keystream) -> NDArray[np.int64]:
        """Draw the noise of one release: int64, shape (dimension,).

        Args:
            keystream: Where its randomness comes from.

        Returns:
            int64, shape (dimension,).
        """
        return self._sampler.sample(self.dimension, entropy=keystream)

    def describe(self) -> Mapping[str, Any]:
        """Everything the event follows from, as JSON values."""
        return {
            "kind": "central discrete Gaussian",
            "noise_multiplier": self.noise_multiplier,
            "sensitivity": self.sensitivity,
            "dimension": self.dimension,
        }

    @cached_property
    def _sampler(self) -> DiscreteGaussian:
        from dp.discrete_gaussian import DiscreteGaussian

        return DiscreteGaussian(stddev=self.stddev)


@dataclass(frozen=True, kw_only=True)
class CentralFloatGaussianNotFloatingPointSafe:
    """Gaussian noise in floating point. Its low bits leak: use `CentralGaussian` wherever a promise matters.

    Guarantee: against readers, one release costs a client no more than `event`, *if reals were drawn and added without
    rounding*. They are not: an attacker who sees all 53 bits can rule inputs out (Mironov 2012; Jin et al. 2022).

    Args:
        noise_multiplier: z, deviation of the noise over `sensitivity`, above 0.
        sensitivity: Joint l2 norm of one client's real vector, above 0.
        dimension: d, number of coordinates.
        trusted_server: Must be True: the caller says that the server may see the sum.
    """

    noise_multiplier: float
    sensitivity: float
    dimension: int
    trusted_server: bool

    def __post_init__(self) -> None:
        _check(self.noise_multiplier, self.sensitivity, self.dimension, self.trusted_server)

    @property
    def honest_survivors(self) -> int:
        """1: the noise is the server's alone."""
        return 1

    @property
    def event(self) -> Gaussian:
        """What one release would cost one client in real arithmetic."""
        return Gaussian(self.noise_multiplier)

    def noise(self, keystream: Keystream) -> NDArray[np.float64]:
        """Draw the noise of one release: float64, shape (dimension,).

        Args:
            keystream: Where its randomness comes from.

        Returns:
            float64, shape (dimension,).
        """
        from scipy.special import ndtri

        words = keystream.words(self.dimension, np.uint64)
        uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        deviates: NDArray[np.float64] = ndtri(uniform)
        return deviates * (self.noise_multiplier * self.sensitivity)

    def describe(self) -> Mapping[str, Any]:
        """Everything the event follows from, as JSON values."""
        return {
            "kind": "central float Gaussian, not floating-point safe",
            "noise_multiplier": self.noise_multiplier,
            "sensitivity": self.sensitivity,
            "dimension": self.dimension,
        }


@dataclass(frozen=True, kw_only=True)
class CentralMatrix:
    """Discrete Gaussian noise correlated over rounds: the banded square root of the prefix sum, in exact integers.

    Guarantee: against readers, every participation of a client costs it no more than `event`, if its participations
    are at least `bands` rounds apart. Against the server nothing is promised.

    Args:
        noise_multiplier: z, effective deviation of the noise over the norm of one participation, above 0. For k
            participations in all, their joint multiplier is z / sqrt(k).
        sensitivity: D, joint l2 norm of one client's integer vector, in integer units, above 0.
        dimension: d, number of integer coordinates.
        bands: b, number of rounds a participation is spread over, and least separation of two; at least 1.
        trusted_server: Must be True: the caller says that the server may see the sum.

    >>> matrix = CentralMatrix(noise_multiplier=1.0, sensitivity=100.0, dimension=3, bands=3, trusted_server=True)
    >>> (matrix.coefficients / matrix.coefficient_scale).tolist()
    [1.0, 0.5, 0.375]
    """

    noise_multiplier: float
    sensitivity: float
    dimension: int
    bands: int
    trusted_server: bool

    def __post_init__(self) -> None:
        _check(self.noise_multiplier, self.sensitivity, self.dimension, self.trusted_server)
        checks.integer("bands", self.bands, 1)

    @property
    def honest_survivors(self) -> int:
        """1: the noise is the server's alone."""
        return 1

    @cached_property
    def coefficient_scale(self) -> int:
        """Units of 1 in the factor: 2^16, or as much coarser a power of two as keeps the noise within the sampler."""
        column = math.sqrt(float((self._column**2).sum()))
        # A thousandth is kept back for the rounding of the coefficients.
        most = 0.999 * _MOST_STDDEV / (self.noise_multiplier * self.sensitivity * column)
        return 1 << max(0, min(int(math.log2(_FINEST_COEFFICIENTS)), math.floor(math.log2(most))))

    @cached_property
    def coefficients(self) -> NDArray[np.int64]:
        """First column of the factor, C(2j, j)/4^j times `coefficient_scale`, rounded: int64, shape (bands,)."""
        rounded: NDArray[np.int64] = np.rint(self.coefficient_scale * self._column).astype(np.int64)
        return rounded

    @property
    def _column(self) -> NDArray[np.float64]:
        ratios = [1.0] + [(2 * j - 1) / (2 * j) for j in range(1, self.bands)]
        return np.array(list(accumulate(ratios, mul)))

    @cached_property
    def stddev(self) -> float:
        """Parameter sigma of the noise on every y_t, in integer units of y, rounded up."""
        column = math.sqrt(sum(int(c) ** 2 for c in self.coefficients))
        target = self.noise_multiplier * self.sensitivity * column * _ROUNDING
        return math.sqrt(target * target + SMOOTHING_VARIANCE) * _ROUNDING

    def stddev_of_release(self, number: int = 1) -> float:
        """Deviation of the noise in the estimate that a run's `number`-th release gives, in units of the sums.

        It is least for the first one, for what is taken off a later one to recover its own sum is noised, too.

        Args:
            number: Of the release, from 1.
        """
        first, *later = (int(c) for c in self.coefficients)
        rest = [c / first for c in later]
        recovered = [1.0]  # The factor's inverse, which the estimates apply to the noise.
        while len(recovered) < checks.integer("number", number, 1):
            recovered.append(-math.fsum(map(mul, rest, reversed(recovered))))
        return self.stddev / first * math.hypot(*recovered)

    @cached_property
    def event(self) -> BandedGaussian:
        """What one participation costs one client, over the rounds it touches."""
        slack = self.bands * self.dimension * smoothing_slack(SMOOTHING_VARIANCE)
        return BandedGaussian(Gaussian(self.noise_multiplier, slack), self.bands)

    def start(self, state: Mapping[str, NDArray[Any]] | None = None) -> MatrixRelease:
        """A run before its first round; or after some, from the `MatrixRelease.state` it had then."""
        return MatrixRelease(self, state or {})

    def describe(self) -> Mapping[str, Any]:
        """Everything the event follows from, as JSON values."""
        return {
            "kind": "central banded matrix",
            "noise_multiplier": self.noise_multiplier,
            "sensitivity": self.sensitivity,
            "dimension": self.dimension,
            "bands": self.bands,
        }

    @cached_property
    def sampler(self) -> DiscreteGaussian:
        """What draws w_t."""
        from dp.discrete_gaussian import DiscreteGaussian

        return DiscreteGaussian(stddev=self.stddev)


class MatrixRelease:
    """The server's state in a run of correlated noise: the last sums, and what was recovered from their releases.

    Args:
        mechanism: The factor and the noise.
        state: What `state` was after the rounds before; empty for none.
    """

    def __init__(self, mechanism: CentralMatrix, state: Mapping[str, NDArray[Any]]) -> None:
        self._mechanism = mechanism
        sums, recovered = state.get("sums", ()), state.get("recovered", ())
        self._sums: deque[NDArray[np.int64]] = deque(sums, maxlen=mechanism.bands - 1)
        self._recovered: deque[NDArray[np.float64]] = deque(recovered, maxlen=mechanism.bands - 1)

    @property
    def state(self) -> Mapping[str, NDArray[Any]]:
        """The last rounds, newest first, shapes (rounds, dimension): exact sums, which are secret, and estimates."""
        dimension = self._mechanism.dimension
        return {
            "sums": np.array(self._sums, np.int64).reshape(-1, dimension),
            "recovered": np.array(self._recovered, np.float64).reshape(-1, dimension),
        }

    def next(self, total: NDArray[np.int64], keystream: Keystream) -> NDArray[np.float64]:
        """Release one round's sum.

        Guarantee: what is returned is a function of the exact integers y_1..y_t alone.

        Args:
            total: x_t, the round's integer sum: int64, shape (dimension,).
            keystream: Randomness of this round.

        Returns:
            An estimate of x_t: float64, shape (dimension,).

        Raises:
            ParameterError: the sum has another shape, or would overflow.
        """
        mechanism = self._mechanism
        if total.shape != (mechanism.dimension,):
            raise ParameterError(f"The sum has shape {total.shape}; it must be ({mechanism.dimension},).")
        limit = 2**61 // int(mechanism.coefficients.sum())
        if np.abs(total).max() > limit:
            raise ParameterError(
                f"A coordinate of the sum is beyond {limit}, where {mechanism.bands} bands overflow 64 bits; lower the "
                "encoding's scale or the number of bands."
            )
        first, *rest = (int(c) for c in mechanism.coefficients)
        release = first * total + mechanism.sampler.sample(mechanism.dimension, entropy=keystream)
        for coefficient, earlier in zip(rest, self._sums, strict=False):
            release += coefficient * earlier
        estimate: NDArray[np.float64] = release.astype(np.float64)
        for coefficient, known in zip(rest, self._recovered, strict=False):
            estimate -= coefficient * known
        estimate /= first
        self._sums.appendleft(total.copy())
        self._recovered.appendleft(estimate.copy())
        return estimate


def _check(noise_multiplier: float, sensitivity: float, dimension: int, trusted_server: bool) -> None:
    checks.positive("noise_multiplier", noise_multiplier)
    checks.positive("sensitivity", sensitivity)
    checks.integer("dimension", dimension, 1)
    if trusted_server is not True:
        raise ParameterError(
            "This mechanism promises nothing against the server; say trusted_server=True, or use "
            "DistributedDiscreteGaussian."
        )
