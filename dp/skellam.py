"""The Skellam distribution: the difference of two Poisson variables of equal mean, on the integers.

Pr[k] = exp(-mu) I_k(mu), mu being the variance and I_k the modified Bessel function. Sums of independent Skellam
variables are Skellam, *exactly*: n shares of variance mu/n make noise of variance mu with no remainder, which is
what it is for. Drawn exactly on a keyed stream:

1. Up to a variance of 2^23, by its inverse distribution function (`inverse_cdf`).
2. Above, as a sum of equal shares below: exact, and slower in proportion to the variance.

The ratios r_k = I_k / I_(k-1) obey r_k = 1 / (2k/mu + r_(k+1)), which shrinks errors from above to below; started
with the whole interval [0, 1], interval arithmetic in integers encloses every probability.

Source: Agarwal, Kairouz, Liu 2021 (arXiv 2110.04995), section 2; Gautschi 1967 for the recurrence.
Not here: what Skellam noise costs (`mechanisms`); the default noise is `discrete_gaussian`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dp import checks
from dp.errors import ParameterError
from dp.inverse_cdf import InverseCDF
from dp.keystream import Keystream

__all__ = ["Skellam"]

_MIN_VARIANCE = 2.0**-10
_MAX_VARIANCE = 2.0**34
_LARGEST_DIRECT = 1 << 23
_GUARD_BITS = 40


@dataclass(frozen=True, kw_only=True)
class Skellam:
    """The Skellam distribution of mean 0.

    Guarantee:
        Given uniform words, every integer k is drawn with probability exactly exp(-mu) I_k(mu), mu being the exact
        binary value of the float `variance`.

    Args:
        variance: mu, the true variance, from 2^-10 to 2^34. Above 2^23 a draw takes variance / 2^23 of them.

    Raises:
        ParameterError: `variance` is outside that range.

    >>> Skellam(variance=100.0).sample((2, 2)).shape
    (2, 2)
    >>> round(float(np.exp(Skellam(variance=1.0).log_pmf(0))), 6)
    0.46576

    Source: Skellam 1946; Agarwal, Kairouz, Liu 2021, definition 2.3.
    """

    variance: float

    def __post_init__(self) -> None:
        variance = checks.positive("variance", self.variance)
        if not _MIN_VARIANCE <= variance <= _MAX_VARIANCE:
            raise ParameterError(
                f"variance is {variance:g}; Skellam noise is offered from {_MIN_VARIANCE:g} to {_MAX_VARIANCE:g}: "
                "choose another scale of the encoding, or the discrete Gaussian."
            )
        object.__setattr__(self, "variance", variance)

    def sample(self, shape: int | tuple[int, ...], entropy: Keystream | None = None) -> NDArray[np.int64]:
        """Draw independent values.

        Args:
            shape: Of the array.
            entropy: The stream to draw from; `None` is a fresh one, keyed by the operating system.

        Returns:
            An int64 array of that shape.
        """
        values = np.zeros(math.prod(shape) if isinstance(shape, tuple) else shape, dtype=np.int64)
        self.add_to(values, entropy)
        return values.reshape(shape)

    def add_to(self, vector: NDArray[np.int64], entropy: Keystream | None = None) -> None:
        """Add to each element of a one-dimensional array what `sample` would draw: no second array of that size.

        Args:
            vector: int64, shape (n,), changed in place.
            entropy: A keystream; a fresh one from the operating system when None.
        """
        keystream = Keystream() if entropy is None else entropy
        shares = math.ceil(self.variance / _LARGEST_DIRECT)
        for _ in range(shares):
            _sampler(self.variance, shares).add_to(vector, keystream)

    def log_pmf(self, k: float | NDArray[np.int64]) -> NDArray[np.float64]:
        """Natural logarithm of the probability of each integer in `k`, to about nine digits."""
        from scipy.special import ive

        order = np.abs(np.asarray(k, dtype=np.float64))
        probability = ive(order, self.variance)
        tiny = probability < 1e-290
        logarithm: NDArray[np.float64] = np.where(
            tiny,
            _log_debye(np.where(tiny, order, 1.0), self.variance),
            np.log(np.where(tiny, 1.0, probability)),
        )
        return logarithm


def _log_debye(order: NDArray[np.float64], variance: float) -> NDArray[np.float64]:
    """Logarithm of exp(-mu) I_order(mu) far in the tail (Abramowitz and Stegun 9.7.7, two terms)."""
    root = np.hypot(order, variance)
    t = order / root
    eta = root + order * np.log(variance / (order + root))
    terms = 1 + (3 * t - 5 * t**3) / (24 * order) + (81 * t**2 - 462 * t**4 + 385 * t**6) / (1152 * order**2)
    logarithm: NDArray[np.float64] = eta - variance - 0.5 * np.log(2 * math.pi * root) + np.log(terms)
    return logarithm


@lru_cache(maxsize=8)
def _sampler(variance: float, shares: int) -> InverseCDF:
    share = Fraction(variance) / shares
    return InverseCDF(
        lambda bits: _skellam_cuts(share, bits), mirror=0, bucket_bits=16 if share < 1 << 16 else 18
    )


def _skellam_cuts(variance: Fraction, bits: int) -> list[int]:
    """Floors of 2^bits c_k, with as many guard bits as it takes to be sure of every one."""
    last = (1 << (bits - 1)) - 1
    guard = _GUARD_BITS
    while True:
        least, most = _enclosed_sums(variance, bits + guard)
        # c_k = (p_0 / 2 + p_1 + ... + p_k) / total, and the total is twice the last entry.
        low = [min(last, (partial << bits) // (2 * most[-1])) for partial in least]
        high = [min(last, (partial << bits) // (2 * least[-1])) for partial in most]
        end = low.index(last) + 1 if low[-1] == last else 0
        if end and low[:end] == high[:end]:
            return low[:end]
        guard += 64


def _enclosed_sums(variance: Fraction, bits: int) -> tuple[list[int], list[int]]:
    """Enclose p_0/2 + p_1 + ... + p_k over p_0 for all k that matter, the last entry counting the whole tail.

    Errors of the ratios shrink by the square of the probabilities' ratio between `top` and `reach`. Too short a
    reach or too low a top makes the enclosure wide, never wrong, and the caller asks again.

    Returns:
        Lower and upper bounds in one common unit, 2^-precision.
    """
    reach = math.isqrt(int(7 * bits * variance / 5)) + bits
    precision = bits + 2 * reach.bit_length() + 8
    one = 1 << precision
    top = math.isqrt(int(7 * (bits + precision) * variance / 5)) + precision
    below, above = _enclosed_ratios(variance, precision, reach, top)
    low = high = one
    least, most = [one >> 1], [(one >> 1) + 1]
    for ratio_low, ratio_high in zip(below, above, strict=True):
        # Ratios fall with k: what follows is less than this term times high / (one - ratio_high).
        if high * ratio_high < (one - ratio_high) << (precision - bits):
            break
        low = low * ratio_low >> precision
        high = (high * ratio_high >> precision) + 1
        least.append(least[-1] + low)
        most.append(most[-1] + high)
    most.append(most[-1] + high * ratio_high // (one - ratio_high) + 1)
    least.append(least[-1])
    return least, most


def _enclosed_ratios(variance: Fraction, precision: int, reach: int, top: int) -> tuple[list[int], list[int]]:
    """Lower and upper bounds of I_k / I_(k-1) for k = 1..reach in units of 2^-precision, starting from k = top."""
    one = 1 << precision
    square = one * one
    step = 2 * one * variance.denominator
    low, high = 0, one
    below: list[int] = []
    above: list[int] = []
    for k in range(top, 0, -1):
        quotient, rest = divmod(k * step, variance.numerator)
        low, high = square // (quotient + (rest > 0) + high), min(one, -(-square // (quotient + low)))
        if k <= reach:
            below.append(low)
            above.append(high)
    return below[::-1], above[::-1]
