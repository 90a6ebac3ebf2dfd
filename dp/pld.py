"""Privacy loss distributions of the sampled Gaussian, composed to any number of rounds in milliseconds.

Let M = (1 - q) N(0, 1) + q N(1/z, 1) be a release with the client and N = N(0, 1) the one without. Both loss
distributions, of M against N and of N against M, are put on a grid of losses by *connecting the dots*: the mass of a
cell goes to its two ends so that its probabilities under M and under N are both kept. The curve of delta over epsilon
is then exact on the grid and above the truth between.

Composition is a power of a Fourier transform, taken after an exponential tilt that moves the mass to the epsilon in
question: rounding errors are then relative to delta, not to 1, and the transform covers only what matters. What it
leaves out is bounded by Chernoff and counted as infinite loss. Every step errs upwards.

Source: Doroshenko et al. 2022 (2207.04380), connect the dots; Koskela et al. 2020 (1906.03049), Fourier accountant.
Not here: what a history is (`dp.accounting`). dp-accounting's engine is the independent check of this one, in tests and
in `dp.recomputation`; a round takes it ten times as long, and its transform understates small deltas by up to a
percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from dp.gaussian import gaussian_epsilon

__all__ = ["LossDistribution", "fixed_size_epsilon", "poisson_epsilon"]

Floats = NDArray[np.float64]

_COARSEST_GRID = 2.0**-10
_GRIDS_PER_DEVIATION = 20
_MOST_LOSSES = 2**18
_CUT = 11.0
"""Deviations after which the Gaussian is cut: 2e-28 of mass, counted as infinite loss."""
_OUTSIDE = 1e-9
"""Share of delta, and of the tilted mass, that may lie outside the window; the first is counted, the second adds."""
_ARITHMETIC = 1e-9
"""Share of delta kept for rounding errors other than the transform's."""
_ROUNDING = 2.0**-53
"""Mass a transform may lose, a round: ten times the most that was ever measured."""
_RANGE = 300.0
"""Logarithm of the range of floats that one evaluation uses."""
_MOST_WINDOW = 2**22
_LEAST_NOISE = 0.05
"""Below it losses pass the range of floats."""


def poisson_epsilon(noise_multiplier: float, rate: float, count: int, delta: float) -> float:
    """Epsilon of `count` Poisson-sampled Gaussian releases, both directions, the larger, rounded up.

    Args:
        noise_multiplier: z, above 0; below 0.05 the answer is that of no sampling.
        rate: q, in (0, 1]; at 1 nothing is sampled.
        count: At least 1.
        delta: In (0, 1).

    >>> round(poisson_epsilon(1.5, 0.1, 50, 1e-5), 3)
    2.53
    """
    unsampled = gaussian_epsilon(shift=math.sqrt(count) / noise_multiplier, delta=delta)
    if rate == 1 or noise_multiplier < _LEAST_NOISE:
        return unsampled
    present, absent = _poisson_losses(noise_multiplier, rate)
    epsilon = present.epsilon(count, delta)
    if count * absent.losses[-1] > epsilon:
        epsilon = max(epsilon, absent.epsilon(count, delta))
    return min(unsampled, epsilon)


def fixed_size_epsilon(noise_multiplier: float, rate: float, count: int, delta: float) -> float:
    """Epsilon of `count` Gaussian releases over samples of fixed size, drawn without replacement, rounded up.

    A client that is not drawn makes room for another, whose data may lie opposite to its own: the two releases differ
    by up to twice the sensitivity, and both directions of the Poisson mixture at half the multiplier bound the loss.

    Args:
        noise_multiplier: z, above 0; below 0.1 the answer is that of no sampling.
        rate: Sample size over population, in (0, 1].
        count: At least 1.
        delta: In (0, 1).

    Source: Zhu, Dong, Wang 2022 (2106.08567), theorem 11; `docs/tight-epsilon.md` for zero-out adjacency.
    """
    unsampled = gaussian_epsilon(shift=math.sqrt(count) / noise_multiplier, delta=delta)
    if rate == 1 or noise_multiplier < 2 * _LEAST_NOISE:
        return unsampled
    return min(unsampled, _fixed_size_losses(noise_multiplier / 2, rate).epsilon(count, delta))


@lru_cache(maxsize=64)
def _poisson_losses(noise_multiplier: float, rate: float) -> tuple[LossDistribution, LossDistribution]:
    """Loss distributions of one release, of the data present against absent and of absent against present."""
    cells = _Cells.of(noise_multiplier, rate)
    return cells.present_against_absent(), cells.absent_against_present()


@lru_cache(maxsize=64)
def _fixed_size_losses(noise_multiplier: float, rate: float) -> LossDistribution:
    """Positive losses of M against N, negative ones of N against M, and the rest of the mass at zero."""
    cells = _Cells.of(noise_multiplier, rate).above_zero()
    gain, drop = cells.present_against_absent(), cells.absent_against_present()
    masses = np.concatenate([drop.masses, gain.masses[1:]])
    masses[-drop.lowest] += (
        max(0.0, 1 - gain.infinite - float(gain.masses.sum() + drop.masses.sum())) + gain.masses[0]
    )
    return LossDistribution(gain.grid, drop.lowest, masses, gain.infinite)


@dataclass(frozen=True)
class LossDistribution:
    """Probabilities of losses on a grid, in one direction.

    Args:
        grid: Distance h of neighbouring losses.
        lowest: The first loss is h times this.
        masses: Probability of each loss, ascending in loss.
        infinite: Probability of an infinite loss.
    """

    grid: float
    lowest: int
    masses: Floats
    infinite: float

    def epsilon(self, count: int, delta: float) -> float:
        """Smallest epsilon at which `count` compositions have at most `delta`, rounded up."""
        target = delta * (1 - _ARITHMETIC) + math.expm1(count * math.log1p(-self.infinite))
        if target <= 0:
            return math.inf
        last = self._quantile(count, math.log(_OUTSIDE * target))
        # Below its window a tilt can only say that epsilon is no larger: then a smaller tilt sees farther down.
        for tilt in self._useful_tilts(count, math.log(target), last):
            first = self._first(count, tilt)
            if last - first > _MOST_WINDOW * self.grid:
                return self._renyi(count, tilt, target)
            found, epsilon = _Composed.of(self, count, tilt, first, max(last, first)).epsilon(target)
            if found or epsilon <= 0:
                break
        return max(0.0, epsilon)

    @cached_property
    def losses(self) -> Floats:
        """The losses that the masses belong to."""
        return self.grid * (self.lowest + np.arange(len(self.masses), dtype=np.float64))

    @cached_property
    def log_masses(self) -> Floats:
        """Logarithms of the masses, minus infinity where there is none."""
        with np.errstate(divide="ignore"):
            return np.log(self.masses)

    def cumulant(self, tilt: float) -> float:
        """Logarithm of the moment generating function of one finite loss."""
        return _log_sum_exp(self.log_masses + tilt * self.losses)

    def _renyi(self, count: int, tilt: float, delta: float) -> float:
        """Epsilon by the Renyi divergence of order 1 + tilt (Canonne, Kamath, Steinke 2020, proposition 12)."""
        moments = count * self.cumulant(tilt) - math.log(delta) - math.log1p(tilt)
        return max(0.0, moments / tilt - math.log1p(1 / tilt))

    def _quantile(self, count: int, log_mass: float) -> float:
        """A loss that the composition passes with probability at most e^log_mass, by Chernoff."""
        tilts, cumulants = self._guide
        upward = tilts > 0
        best = tilts[upward][np.argmin((count * cumulants[upward] - log_mass) / tilts[upward])]
        return (count * self.cumulant(float(best)) - log_mass) / float(best)

    def _useful_tilts(self, count: int, log_delta: float, last: float) -> list[float]:
        """Tilts to try, steepest first: the more tilt the more precise, if little tilted mass lies beyond `last`."""
        tilts, cumulants = self._guide
        exponents = count * cumulants - tilts * last
        beyond = np.minimum.accumulate(exponents[::-1])[::-1] - exponents
        half = len(tilts) // 2
        tilts, cumulants, beyond = tilts[half:], cumulants[half:], beyond[half:]
        renyi = (count * cumulants - log_delta - np.log1p(tilts)) / tilts + np.log(tilts / (1 + tilts))
        fitting = np.flatnonzero(beyond <= math.log(_OUTSIDE))
        start = min(int(np.argmin(renyi)), int(fitting[-1])) if len(fitting) else 0
        return [float(tilt) for tilt in tilts[start::-16]]

    def _first(self, count: int, tilt: float) -> float:
        """A loss below which next to no tilted mass lies: a guide, because what lies there can only add to delta."""
        tilts, cumulants = self._guide
        own = float(np.interp(tilt, tilts, cumulants))
        lower = tilts < tilt
        return float(np.max((math.log(_OUTSIDE) - count * (cumulants[lower] - own)) / (tilt - tilts[lower])))

    @cached_property
    def _guide(self) -> tuple[Floats, Floats]:
        """Tilts, negative ones first, and the cumulant at each, from groups of losses."""
        # Groups of one loss near 0, and of a hundredth of their distance from it farther out.
        index = np.abs(self.lowest + np.arange(len(self.masses)))
        label = np.where(
            index < 256, index, (256 + 100 * np.log(np.maximum(index, 256) / 256)).astype(np.int64)
        )
        starts = np.flatnonzero(np.diff(label, prepend=-1))
        masses = np.add.reduceat(self.masses, starts)
        kept = masses > 0
        losses = np.add.reduceat(self.masses * self.losses, starts)[kept] / masses[kept]
        logs = np.log(masses[kept])
        upward = np.geomspace(2.0**-6, max(2.0**8, 4 / self.grid), 256)
        tilts = np.concatenate([-upward[::-1], upward])
        return tilts, np.array([_log_sum_exp(logs + tilt * losses) for tilt in tilts])


@dataclass(frozen=True)
class _Composed:
    """A window of a composition: the mass of loss l is `tilted` times exp(`log_scale` - `tilt` l)."""

    losses: Floats
    tilted: Floats
    tilt: float
    log_scale: float
    rounding: float

    @classmethod
    def of(
        cls, single: LossDistribution, count: int, tilt: float, first_loss: float, last_loss: float
    ) -> _Composed:
        """The losses from about `first_loss` to `last_loss`."""
        cumulant = single.cumulant(tilt)
        tilted = np.exp(single.log_masses + tilt * single.losses - cumulant)
        lowest, highest = count * single.lowest, count * (single.lowest + len(tilted) - 1)
        first = min(max(lowest, math.floor(first_loss / single.grid)), highest - 1)
        last = max(min(math.ceil(last_loss / single.grid), highest), first + 1)
        composed = _power(tilted, count, np.arange(first - lowest, last + 1 - lowest))
        losses = single.grid * np.arange(first, last + 1, dtype=np.float64)
        return cls(losses, composed, tilt, count * cumulant, _ROUNDING * (count + 64))

    def epsilon(self, target: float) -> tuple[bool, float]:
        """Smallest epsilon whose delta is at most `target`, and whether the window reached down to it."""
        # From the right, in stretches short enough for the range of floats.
        stretch = max(2, int(_RANGE / (1 + self.tilt) / (self.losses[1] - self.losses[0])))
        for start in range(len(self.losses) - stretch, -stretch, -stretch):
            epsilon = self._epsilon_from(max(start, 0), math.log(target))
            if epsilon is not None:
                return True, epsilon
        return False, float(self.losses[0])

    def _epsilon_from(self, start: int, log_target: float) -> float | None:
        """The answer, if it lies right of this loss and no more than a stretch from it."""
        middle = float(self.losses[start])
        log_budget = log_target + self.tilt * middle - self.log_scale
        budget = math.exp(min(max(log_budget, -700.0), 700.0)) * (1 - _OUTSIDE)
        distance = self.losses[start:] - middle
        weights, growth = np.exp(-self.tilt * distance), np.exp(np.minimum(distance, 700.0))
        upper = self.tilted[start:] * weights
        upper_above = np.cumsum(upper[::-1])[::-1][1:] + self.rounding * weights[:-1]
        lower_above = np.cumsum((upper / growth)[::-1])[::-1][1:]
        (over,) = np.nonzero(upper_above - growth[:-1] * lower_above > budget)
        if not len(over):
            return None
        # Between this loss and the next, delta is upper - e^epsilon lower over the losses from the next on.
        k = over[-1]
        excess = (upper_above[k] - budget) / lower_above[k] if lower_above[k] > 0 else math.inf
        return float(min(middle + math.log(excess), self.losses[start + k + 1]))


@dataclass(frozen=True)
class _Cells:
    """The real line cut where the loss of M against N passes multiples of the grid.

    Args:
        grid: Distance h of losses.
        lowest: Index of the loss below the first cell.
        present: Mass of each cell under M.
        absent: Mass of each cell under N.
        present_beyond: Mass under M above the last cell.
        absent_beyond: Mass under N above the last cell.
    """

    grid: float
    lowest: int
    present: Floats
    absent: Floats
    present_beyond: float
    absent_beyond: float

    @classmethod
    def of(cls, noise_multiplier: float, rate: float) -> _Cells:
        shift = 1 / noise_multiplier
        top = _loss(shift + _CUT, shift, rate)
        grid = _grid(shift, rate, top - math.log1p(-rate))
        lowest, highest = math.floor(math.log1p(-rate) / grid), math.ceil(top / grid)
        losses = grid * np.arange(lowest + 1, highest + 1, dtype=np.float64)
        edges = (losses + np.log(-np.expm1(math.log1p(-rate) - losses)) - math.log(rate)) / shift + shift / 2
        absent, absent_beyond = _normal_masses(edges)
        drawn, drawn_beyond = _normal_masses(edges - shift)
        return cls(
            grid,
            lowest,
            (1 - rate) * absent + rate * drawn,
            absent,
            (1 - rate) * absent_beyond + rate * drawn_beyond,
            absent_beyond,
        )

    def above_zero(self) -> _Cells:
        """The cells of positive loss alone."""
        cells = slice(-self.lowest, None)
        beyond = self.present_beyond, self.absent_beyond
        return _Cells(self.grid, 0, self.present[cells], self.absent[cells], *beyond)

    def present_against_absent(self) -> LossDistribution:
        index = self.lowest + np.arange(len(self.present), dtype=np.float64)
        low_end = np.exp(self.grid * index) * self.absent
        masses = _split(self.present, self.present - low_end, self.grid)
        return LossDistribution(self.grid, self.lowest, masses, self.present_beyond)

    def absent_against_present(self) -> LossDistribution:
        index = self.lowest + np.arange(1, len(self.present) + 1, dtype=np.float64)
        low_end = np.exp(-self.grid * index) * self.present
        masses = _split(self.absent[::-1], (self.absent - low_end)[::-1], self.grid)
        masses[0] += self.absent_beyond
        return LossDistribution(self.grid, -self.lowest - len(self.present), masses, 0.0)


def _split(masses: Floats, excess: Floats, grid: float) -> Floats:
    """Give each cell's mass to its two ends; `excess` is its mass less what it would be with all at the lower end."""
    # The excess is a difference of nearly equal numbers: what it may have lost is added back, upwards.
    upper = np.clip(excess / -math.expm1(-grid) + masses * (1e-12 / grid), 0, masses)
    ends = np.zeros(len(masses) + 1)
    ends[:-1] += masses - upper
    ends[1:] += upper
    return ends


def _normal_masses(edges: Floats) -> tuple[Floats, float]:
    """Standard normal mass below the first edge and between edges; and above the last."""
    from scipy.special import ndtr

    below, above = ndtr(edges), ndtr(-edges)
    masses = np.where(edges[1:] < 0, np.diff(below), -np.diff(above))
    return np.concatenate([below[:1], masses]), float(above[-1])


def _loss(x: float, shift: float, rate: float) -> float:
    """Loss of M against N at x."""
    return float(np.logaddexp(math.log1p(-rate), math.log(rate) + shift * x - shift * shift / 2))


def _grid(shift: float, rate: float, span: float) -> float:
    """A power of two, about a twentieth of one release's deviation of loss, for at most `_MOST_LOSSES` losses."""
    deviation = rate * math.sqrt(math.expm1(min(shift * shift, 100.0)))
    wanted = min(_COARSEST_GRID, deviation / _GRIDS_PER_DEVIATION)
    return 2.0 ** math.floor(math.log2(max(wanted, span / _MOST_LOSSES)))


def _power(masses: Floats, count: int, wanted: NDArray[np.int64]) -> Floats:
    """Entries of the `count`-fold convolution of `masses` with itself; what lies outside wraps round, and adds."""
    size = _fast_length(len(wanted))
    folded = np.zeros(-(-len(masses) // size) * size)
    folded[: len(masses)] = masses
    folded = folded.reshape(-1, size).sum(axis=0)
    spectrum = np.fft.rfft(folded)
    # What is below e^-60 after the power is far below the transform's own rounding.
    kept = np.abs(spectrum) > math.exp(-60 / count)
    spectrum[~kept] = 0
    spectrum[kept] **= count
    return np.take(np.fft.irfft(spectrum, size), wanted % size)


def _fast_length(least: int) -> int:
    """An even length with small factors, at most a quarter above `least`."""
    block = max(2, 1 << max(0, (least - 1).bit_length() - 3))
    return -(-least // block) * block


def _log_sum_exp(exponents: Floats) -> float:
    largest = float(exponents.max())
    return largest + math.log(float(np.exp(exponents - largest).sum()))
