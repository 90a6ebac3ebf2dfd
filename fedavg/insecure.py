"""`insecure_sum`: the plain sum of plain floats, which hides nothing from anybody; for oracles and for comparison.

Every result that comes of it says so, and carries an infinite epsilon against both observers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import fsum, inf
from typing import Any

import numpy as np

import dp
from fedavg.client_data import ClientData
from fedavg.errors import ParameterError, StepError
from fedavg.model import EXAMPLES
from fedavg.processes.collecting import Collected, Content, Released, Work

__all__ = ["InsecureSum", "insecure_sum"]

_SENTENCE = (
    "insecure_sum: the server saw every client's update and metrics in the clear, without masks, clipping or noise;"
    " epsilon is infinite against everybody"
)


@dataclass(frozen=True)
class InsecureSum:
    """Exact sums in float64 of whatever the clients send, divided by what they really come to: textbook FedAvg.

    No bound is enforced and nobody is protected. Weights are the clients' true numbers of examples.
    """

    def create(self, content: Content) -> _PlainSum:
        """An aggregator for vectors of this content."""
        return _PlainSum(content)


insecure_sum = InsecureSum()
"""The plain sum, as `model_aggregator=`: epsilon is infinite against everybody."""


@dataclass(frozen=True)
class _PlainSum:
    content: Content

    def statement(self) -> None:
        """Nothing is promised to anybody."""

    def collect(self, work: Work, data: Any, *, model_hash: bytes, released: Released) -> Collected:
        """Sum over the clients of a list, or over every client of a `ClientData`."""
        update = np.zeros(self.content.update)
        counted = (EXAMPLES, *self.content.bounds) if self.content.counted else ()
        terms: dict[str, list[float]] = {name: [] for name in counted}
        weights: list[float] = []
        failed, cause = 0, ""
        for fetch in _each(data):
            try:
                delta, sums = work(fetch)
            except StepError as error:
                failed, cause = failed + 1, str(error)
                continue
            weights.append(sums[EXAMPLES] if self.content.weighted else 1.0)
            if self.content.update:
                update += weights[-1] * np.asarray(delta, np.float64)
            for name, values in terms.items():
                values.append(sums[name])
        total = fsum(weights)
        if failed > len(weights):
            warnings.warn(
                f"{failed} of {failed + len(weights)} clients failed, one with: {cause}", stacklevel=2
            )
        return Collected(
            average=update / total if total > 0 else update,
            sums={name: fsum(values) for name, values in terms.items()},
            least_examples=1.0,
            contributed=float(len(weights)),
            failed=float(failed),
            cohort=len(weights) + failed,
            survivors=len(weights) + failed,
            bytes_up_per_client=0,
            epsilon=dp.Epsilons(readers=inf, server=inf),
            aggregation=_SENTENCE,
        )


def _each(data: Any) -> list[Callable[[], Any]]:
    if isinstance(data, ClientData):
        return [partial(data.for_client, client) for client in data.client_ids]
    if not isinstance(data, list | tuple) or not data:
        raise ParameterError(
            f"the federated data is {type(data).__name__} of no clients; give a list with each client's data, or a"
            " fedavg.ClientData"
        )
    return [partial(_same, client) for client in data]


def _same(client: Any) -> Any:
    return client
