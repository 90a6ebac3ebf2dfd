"""What a detector found: a p-value under "nothing is wrong", and words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One detector's answer.

    Guarantee: if nothing is wrong, `flagged` is true with probability at most `level`.

    Args:
        detector: Its name.
        p_value: Probability of so odd an outcome if nothing is wrong.
        level: Below or at which it is flagged.
        says: What was measured, in a sentence.
    """

    detector: str
    p_value: float
    level: float
    says: str

    @property
    def flagged(self) -> bool:
        """Whether something is wrong, at the level."""
        return self.p_value <= self.level

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "detector": self.detector,
            "p_value": self.p_value,
            "level": self.level,
            "flagged": self.flagged,
            "says": self.says,
        }
