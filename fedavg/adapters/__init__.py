"""Steps and models around training loops of other ecosystems, one file each; each ecosystem is imported on use."""

from __future__ import annotations

from fedavg.adapters.jax import model_from_jax
from fedavg.adapters.keras import from_keras, model_from_keras
from fedavg.adapters.sklearn import from_sklearn, model_from_sklearn
from fedavg.adapters.torch import from_torch, model_from_torch

__all__ = [
    "from_keras",
    "from_sklearn",
    "from_torch",
    "model_from_jax",
    "model_from_keras",
    "model_from_sklearn",
    "model_from_torch",
]
