"""What all analytics share: numbers as clients hold them, and ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.client_data import ClientData
from fedavg.core import ExecutionError, TensorType

__all__ = ["NUMBERS", "Clients", "check_range", "numbers"]

Clients = ClientData | Mapping[Any, Any] | Sequence[Any]
NUMBERS = TensorType("float64", (None,))
_LARGEST = 1e150


def numbers(clients: Clients) -> ClientData:
    """The population with each client's data as a vector of float64; a client whose data is none sends zeros."""
    return ClientData.of(clients).map(_vector)


def check_range(lower: float, upper: float) -> None:
    """Refuse a range that is none."""
    if not -np.inf < lower < upper < np.inf:
        raise ExecutionError(
            f"the range is {lower} to {upper}; give two finite numbers, the smaller one first"
        )
    if not max(abs(lower), abs(upper)) < _LARGEST:
        raise ExecutionError(
            f"the range is {lower} to {upper}, whose squares are beyond every float; give the numbers in a larger unit"
        )


def _vector(data: Any) -> NDArray[np.float64]:
    vector = np.asarray(data, np.float64).reshape(-1)
    return vector[np.isfinite(vector)]
