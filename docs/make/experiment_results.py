"""Kept results of the experiments, by setting: means and spreads over seeds.

Not here: what the page says of them (`docs.make.experiments`), the plots (`docs.make.experiment_plots`).
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from docs.make.generated import DOCS

__all__ = ["FOLDER", "Results", "names"]

FOLDER = DOCS / "results" / "experiments"


def names() -> list[str]:
    """Experiments that have results."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Results:
    """One experiment's trials."""

    name: str

    @property
    def path(self) -> Path:
        """Where they are kept."""
        return FOLDER / f"{self.name}.json"

    @cached_property
    def trials(self) -> list[dict[str, Any]]:
        """As the experiment wrote them."""
        found: list[dict[str, Any]] = json.loads(self.path.read_text())
        return found

    @property
    def digest(self) -> str:
        """Names exactly these results: kept inside each plot that was made of them."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def settings(self) -> list[str]:
        """In the order in which they were run."""
        return list(dict.fromkeys(trial["setting"] for trial in self.trials))

    @property
    def minutes(self) -> float:
        """CPU minutes of all trials."""
        return float(sum(trial["cpu_s"] for trial in self.trials)) / 60

    def of(self, setting: str) -> list[dict[str, Any]]:
        """A setting's trials, one a seed."""
        found = [trial for trial in self.trials if trial["setting"] == setting]
        if not found:
            raise KeyError(f"{self.path.name} has no setting {setting!r}")
        return found

    def values(self, setting: str, key: str) -> list[float]:
        """A figure by seed; empty where the setting has none, or where it is null."""
        return [trial[key] for trial in self.of(setting) if trial.get(key) is not None]

    def mean(self, setting: str, key: str) -> float:
        """The figure's mean over seeds."""
        return statistics.fmean(self.values(setting, key))

    def spread(self, setting: str, key: str) -> float:
        """Its standard deviation over seeds; 0 for one seed."""
        values = self.values(setting, key)
        return statistics.stdev(values) if len(values) > 1 else 0.0

    def seeds(self, settings: Iterable[str] | None = None) -> int:
        """Most seeds of any setting."""
        return max(len(self.of(setting)) for setting in settings or self.settings)
