"""How much a client's update counts: once, or by its number of examples, bounded by a public number.

An unbounded weight would let one client with a million examples outweigh, and so reveal itself to, everybody; so
w = min(n, M) / M with a public M. The update is clipped first and then scaled by w, so its norm stays within the clip;
w travels in the same noised vector; the denominator is the larger of its noised sum and a public floor, because a small
noised sum would make the quotient explode.

Source: McMahan et al. 2018 (1710.06963), section 3 (bounded weights, and the denominator's floor).
"""

from __future__ import annotations

from dataclasses import dataclass

from fedavg.errors import ParameterError

__all__ = ["BoundedExamples"]


@dataclass(frozen=True)
class BoundedExamples:
    """Weights by examples.

    Args:
        most: M, the number of examples from which on a client counts fully, at least 1; public, not read off data.
        floor: Public floor of the denominator, in (0, 1], as a share of what full weights of all expected come to.

    Raises:
        ParameterError: a value is out of its range.

    >>> weights = BoundedExamples(most=100)
    >>> weights.weight(25), weights.weight(4000)
    (0.25, 1.0)
    >>> weights.denominator(-3.0, expected=50.0)
    5.0
    """

    most: int
    floor: float = 0.1

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ParameterError(f"at most {self.most} examples would count; give at least 1")
        if not 0 < self.floor <= 1:
            raise ParameterError(f"the denominator's floor is {self.floor}; give a share above 0, at most 1")

    def weight(self, examples: float) -> float:
        """A client's weight, in [0, 1]."""
        return min(max(examples, 0.0), float(self.most)) / self.most

    def denominator(self, noised_sum: float, *, expected: float) -> float:
        """What a weighted sum is divided by: the noised sum of weights, never below the public floor."""
        return max(noised_sum, self.floor * expected)
