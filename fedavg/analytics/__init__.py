"""Private analytics over clients: moments, histograms, quantiles, heavy hitters. Each is one call with its statement.

Every function takes a population and a `fedavg.core.Context`, which holds the promise, and runs one program of
`fedavg.core` in it; so what is released is what type-checks there. The unit is one client, with all that it holds.
"""

from __future__ import annotations

from fedavg.analytics.heavy_hitters import HeavyHitters, heavy_hitters
from fedavg.analytics.histogram import Histogram, histogram
from fedavg.analytics.moments import Moments, mean_and_variance
from fedavg.analytics.quantiles import Quantiles, quantiles

__all__ = [
    "HeavyHitters",
    "Histogram",
    "Moments",
    "Quantiles",
    "heavy_hitters",
    "histogram",
    "mean_and_variance",
    "quantiles",
]
