"""Data sets by name."""

from __future__ import annotations

import pytest

from fedavg.datasets import CATALOGUE, UnknownDataset, load
from fedavg.errors import FedAvgError


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(
        UnknownDataset, match="there is no data set 'minst'; known are digits and mnist"
    ) as caught:
        load("minst")
    assert isinstance(caught.value, FedAvgError)


def test_every_fetched_set_is_pinned_in_full_and_a_wheel():
    for entry in CATALOGUE.values():
        if entry.package is not None:
            assert len(entry.package.sha256) == 64
            assert entry.package.file.endswith(".whl")
            assert entry.licence
