"""`veilsum data`."""

from __future__ import annotations

import json

import numpy as np

from fedavg import datasets
from fedavg.cli.settings import PRESETS
from fedavg.datasets import CATALOGUE, Dataset, Population


def test_lists_every_data_set_with_its_licence(veilsum, monkeypatch, tmp_path):
    monkeypatch.setenv("VEILSUM_DATA", str(tmp_path))
    ran = veilsum("data")
    assert ran.code == 0
    assert "digits" in ran.out
    assert "embedded" in ran.out
    assert "to fetch, 20 MB" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    listed = json.loads(veilsum("data", "--json").out)
    assert [entry["dataset"] for entry in listed["datasets"]] == list(CATALOGUE)
    assert listed["datasets"][0] == {
        "dataset": "digits",
        "contents": "1,797 digits",
        "users": "none",
        "licence": "BSD-3-Clause",
        "where": "embedded",
    }
    assert listed["cache"] == str(tmp_path)


def test_says_what_a_data_set_is(veilsum):
    ran = veilsum("data", "digits", "--json")
    assert ran.code == 0
    said = json.loads(ran.out)
    assert (said["train"], said["test"], said["features"], said["classes"]) == (1438, 359, 64, 10)
    assert said["licence"] == "BSD-3-Clause"


def test_an_unknown_data_set_is_one_sentence(veilsum):
    ran = veilsum("data", "minst")
    assert (ran.code, ran.out) == (2, "")
    known = f"{', '.join(sorted(CATALOGUE)[:-1])} and {max(CATALOGUE)}"
    assert ran.err == f"veilsum: there is no data set 'minst'; known are {known}\n"


def test_says_who_the_users_of_a_population_are(veilsum, monkeypatch):
    users = {"ada": ("one", "two"), "bob": ("three",)}
    plays = Population("shakespeare", users, "role", "speech", "public domain", "somewhere")
    monkeypatch.setattr(datasets, "load_users", lambda name, **_: plays)
    ran = veilsum("data", "shakespeare", "--json")
    assert json.loads(ran.out)["users"] == {"role": 2}
    assert json.loads(ran.out)["pieces"] == {"speech": 3}
    people = veilsum("data", "shakespeare").out
    assert "2 by role" in people
    assert "3 by speech, 1 to 2 a user" in people
    assert "public domain" in people


def test_says_by_what_examples_are_grouped(veilsum, monkeypatch):
    x, y = np.zeros((3, 2), np.float32), np.array([0, 1, 1])
    rows = Dataset("adult", x, y, x, y, "CC BY 4.0", "somewhere", {"country": np.array(["a", "b", "a"])})
    monkeypatch.setattr(datasets, "load", lambda name, **_: rows)
    assert json.loads(veilsum("data", "adult", "--json").out)["users"] == {"country": 2}
    assert "2 by country" in veilsum("data", "adult").out


def test_every_labelled_set_can_be_simulated():
    assert PRESETS.keys() == {name for name, entry in CATALOGUE.items() if entry.examples}
