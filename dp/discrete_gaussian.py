"""The discrete Gaussian: Pr[k] proportional to exp(-k^2 / (2 sigma^2)) on the integers.

Exact on a keyed stream. Probabilities are computed in integers only, with error bounds carried along, so no
step depends on a floating-point library:

1. Up to sigma 2^13, by its inverse distribution function (`inverse_cdf`).
2. Above, x = 2^j y + u: y is drawn by inverse distribution function with the largest weight of its block of
   2^j integers, u is uniform, and x is accepted with probability exp(-(x^2 - m^2) / (2 sigma^2)), m being the
   block's member next to 0. Nearly always a constant below that probability decides.

Source: Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), Definition 1 and Fact 19.
Not here: how many shares make up the noise of a sum, and what that costs (`mechanisms`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from dp import checks
from dp.errors import ParameterError
from dp.inverse_cdf import InverseCDF
from dp.keystream import Keystream

__all__ = ["DiscreteGaussian"]

_MIN_STDDEV = 2.0**-6
_MAX_STDDEV = 2.0**31
_LARGEST_DIRECT = 8192
_LARGEST_COARSE = 2048
_GUARD_BITS = 32
_TAIL_BITS = 40
_SQUEEZE_DEVIATIONS = 10
_FLOAT_BAND = 1e-9
_PIECE = 1 << 17


@dataclass(frozen=True, kw_only=True)
class DiscreteGaussian:
    """The discrete Gaussian of parameter sigma, centred at 0.

    `stddev` is the *parameter* sigma. The true standard deviation is never larger: it is smaller by the factor
    sqrt(1 - 8 pi^2 sigma^2 exp(-2 pi^2 sigma^2)) or so, which is 7% at sigma 0.5, 1e-7 at 1, nothing a float
    can show from 1.5 on; `variance` is the true one.

    Guarantee:
        Given uniform words, every integer k is drawn with probability exactly exp(-k^2/(2 sigma^2)) / Z,
        sigma being the exact binary value of the float.

    Args:
        stddev: The parameter sigma, from 2^-6 to 2^31.

    Raises:
        ParameterError: `stddev` is outside that range.

    >>> noise = DiscreteGaussian(stddev=700.0)
    >>> noise.sample(3).dtype.name
    'int64'
    >>> round(math.exp(noise.log_pmf(0)) * 700.0 * math.sqrt(2 * math.pi), 12)
    1.0

    Source: Canonne, Kamath, Steinke 2020, Definition 1.
    """

    stddev: float

    def __post_init__(self) -> None:
        stddev = checks.positive("stddev", self.stddev)
        if not _MIN_STDDEV <= stddev <= _MAX_STDDEV:
            raise ParameterError(
                f"stddev is {stddev:g}; the discrete Gaussian is offered from {_MIN_STDDEV:g} to {_MAX_STDDEV:g}: "
                "choose another scale of the encoding."
            )
        object.__setattr__(self, "stddev", stddev)

    def sample(self, shape: int | tuple[int, ...], entropy: Keystream | None = None) -> NDArray[np.int64]:
        """Draw independent values.

        Args:
            shape: Of the array.
            entropy: The stream to draw from; `None` is a fresh one, keyed by the operating system.

        Returns:
            An int64 array of that shape.
        """
        keystream = Keystream() if entropy is None else entropy
        count = shape if isinstance(shape, int) else math.prod(shape)
        return _sampler(self.stddev).sample(count, keystream).reshape(shape)

    def add_to(self, vector: NDArray[np.int64], entropy: Keystream | None = None) -> None:
        """Add to each element of a one-dimensional array what `sample` would draw: no second array of that size.

        Args:
            vector: int64, shape (n,), changed in place.
            entropy: A keystream; a fresh one from the operating system when None.
        """
        _sampler(self.stddev).add_to(vector, Keystream() if entropy is None else entropy)

    def log_pmf(self, k: float | NDArray[np.int64]) -> NDArray[np.float64]:
        """Natural logarithm of the probability of each integer in `k`."""
        return -((np.asarray(k, dtype=np.float64) / self.stddev) ** 2) / 2 - math.log(self._moments[0])

    @property
    def variance(self) -> float:
        """The true variance, slightly below `stddev ** 2`."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[float, float]:
        """The normaliser and the variance; above sigma 4 both are the continuous ones to 100 digits."""
        if self.stddev > 4:
            return self.stddev * math.sqrt(2 * math.pi), self.stddev**2
        weights = [math.exp(-((k / self.stddev) ** 2) / 2) for k in range(-200, 201)]
        total = math.fsum(weights)
        return total, math.fsum(w * k * k for w, k in zip(weights, range(-200, 201), strict=True)) / total


@lru_cache(maxsize=32)
def _sampler(stddev: float) -> InverseCDF | _Blocks:
    return _direct(stddev, mirror=0) if stddev <= _LARGEST_DIRECT else _Blocks(stddev)


def _direct(stddev: float, *, mirror: int) -> InverseCDF:
    rate = 1 / (2 * Fraction(stddev) ** 2)
    return InverseCDF(
        lambda bits: _gaussian_cuts(rate, bits, mirror), mirror=mirror, bucket_bits=16 if stddev < 256 else 18
    )


class _Blocks:
    """Sampler for large sigma: blocks of 2^shift integers, exact rejection inside them.

    The farther the blocks' own sigma is above 1, the fewer candidates are rejected (0.4 in sigma of them).
    """

    def __init__(self, stddev: float, *, largest_coarse: int = _LARGEST_COARSE) -> None:
        self._rate = 1 / (2 * Fraction(stddev) ** 2)
        self._shift = max(0, math.ceil(math.log2(stddev / largest_coarse)))
        coarse = stddev / (1 << self._shift)
        self._blocks = _direct(coarse, mirror=1)
        self._farthest = int(_SQUEEZE_DEVIATIONS * coarse)
        least = math.exp(-(2 * self._farthest + 1) / (2 * coarse**2)) - _FLOAT_BAND
        self._squeeze = int(least * (1 << (32 - self._shift))) << self._shift

    def sample(self, count: int, keystream: Keystream) -> NDArray[np.int64]:
        """Draw `count` independent values."""
        values = np.zeros(count, dtype=np.int64)
        self.add_to(values, keystream)
        return values

    def add_to(self, values: NDArray[np.int64], keystream: Keystream) -> None:
        """Add the values that `sample` would give to a one-dimensional array."""
        for start in range(0, len(values), _PIECE):
            piece = values[start : start + _PIECE]
            piece += self._sample_piece(len(piece), keystream)

    def _sample_piece(self, count: int, keystream: Keystream) -> NDArray[np.int64]:
        values = self._blocks.sample(count, keystream)
        words = keystream.words(count, "<u4")
        squeeze = self._squeeze
        if count and (values.max() > self._farthest or values.min() < ~self._farthest):
            squeeze = 0
        unsure = np.flatnonzero(words >= squeeze)
        unsure_words = words[unsure]
        words &= np.uint32((1 << self._shift) - 1)
        values <<= self._shift
        values += words
        rejected = unsure[~self._accept(values[unsure], unsure_words, keystream)]
        if len(rejected):
            values[rejected] = self._sample_piece(len(rejected), keystream)
        return values

    def _accept(
        self, values: NDArray[np.int64], words: NDArray[np.uint32], keystream: Keystream
    ) -> NDArray[np.bool_]:
        """Compare a uniform number that starts with the high bits of each word with exp(-excess * rate)."""
        magnitude = np.where(values < 0, -values, values)
        nearest = (np.where(values < 0, ~values, values) >> self._shift) << self._shift
        excess = (magnitude - nearest) * (magnitude + nearest)
        bits = 64 - self._shift
        uniform = (words.astype(np.uint64) >> np.uint64(self._shift)) << np.uint64(32)
        uniform |= keystream.words(len(words), "<u4")
        margin = np.exp(-float(self._rate) * excess) - uniform * 2.0**-bits
        accepted: NDArray[np.bool_] = margin > 0
        for place in np.flatnonzero(np.abs(margin) < _FLOAT_BAND):
            accepted[place] = _bernoulli_exp(
                int(uniform[place]), bits, int(excess[place]) * self._rate, keystream
            )
        return accepted


def _bernoulli_exp(uniform: int, bits: int, exponent: Fraction, keystream: Keystream) -> bool:
    """Whether a uniform number, whose first bits are given, is below exp(-exponent): bits until it is clear."""
    while True:
        limit = _exp_negative(exponent, bits)
        if uniform + 1 <= limit - 2:
            return True
        if uniform >= limit + 2:
            return False
        bits += 64
        uniform = uniform << 64 | keystream.integer(64)


def _exp_negative(exponent: Fraction, bits: int) -> int:
    """An integer less than 2 away from 2^bits exp(-exponent), for an exponent >= 0.

    The alternating series at exponent / 2^halvings < 2^-6, then as many squarings. Each of the fewer than 2^8
    operations of the series errs by at most one unit of 2^-precision, each squaring at most doubles the error
    and adds one: less than 2^(halvings + 10) units in all, which the 32 extra bits swallow.
    """
    halvings = max(0, exponent.numerator.bit_length() - exponent.denominator.bit_length() + 7)
    precision = bits + halvings + 32
    x = (exponent.numerator << precision) // (exponent.denominator << halvings)
    term = total = 1 << precision
    order = 0
    while term:
        order += 1
        term = (term * x >> precision) // order
        total += -term if order % 2 else term
    for _ in range(halvings):
        total = total * total >> precision
    return total >> (precision - bits)


def _gaussian_cuts(rate: Fraction, bits: int, mirror: int, extra: int = 0) -> list[int]:
    """Floors of 2^bits c_k for weights w_k = exp(-rate k^2), w_0 counted half if the mirror image of 0 is 0.

    w_(k+1) = w_k f_k and f_(k+1) = f_k g, in units of 2^-precision. The starting values err by less than 2
    units and each truncation by 1, hence f_k by 3k + 2, w_k by 2 (k + 1)^2 and a sum of K weights by less
    than K^3 units; precision is chosen so that K^3 units, and likewise the tail left out, are less than
    2^-(bits + 40). With 32 guard bits a cut then errs by less than 4 in its last place, and where that leaves
    its floor in doubt everything is done again with `extra` bits more.
    """
    reach = math.isqrt(int((bits + extra + 2 * _TAIL_BITS) / rate)) + 3
    precision = bits + extra + _TAIL_BITS + 3 * reach.bit_length() + 2
    weights = _gaussian_weights(rate, precision, 1 << (precision - bits - extra - _TAIL_BITS))
    if mirror == 0:
        weights[0] >>= 1
    sums = list(accumulate(weights))
    guard = _GUARD_BITS + extra
    scale = (1 << (precision + bits + guard)) // (2 * sums[-1])
    last = (1 << (bits - 1)) - 1
    cuts: list[int] = []
    for partial in sums:
        cut = partial * scale >> precision
        floor = (cut - 4) >> guard
        if floor >= last:
            break
        if (cut + 4) >> guard != floor:
            return _gaussian_cuts(rate, bits, mirror, extra + 64)
        cuts.append(floor)
    return [*cuts, last]


def _gaussian_weights(rate: Fraction, precision: int, negligible: int) -> list[int]:
    """Weights in units of 2^-precision up to where all that follow add up to less than `negligible`."""
    one = 1 << precision
    factor, ratio = _exp_negative(rate, precision), _exp_negative(2 * rate, precision)
    weight = one
    weights = [weight]
    while weight * factor > negligible * (one - factor):
        weight = weight * factor >> precision
        factor = factor * ratio >> precision
        weights.append(weight)
    return weights
