"""`veilsum data`."""

from __future__ import annotations

import json


def test_lists_every_data_set_with_its_licence(veilsum, monkeypatch, tmp_path):
    monkeypatch.setenv("VEILSUM_DATA", str(tmp_path))
    ran = veilsum("data")
    assert ran.code == 0
    assert "digits" in ran.out
    assert "embedded" in ran.out
    assert "to fetch, 20.3 MB" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    listed = json.loads(veilsum("data", "--json").out)
    assert [entry["dataset"] for entry in listed["datasets"]] == ["digits", "mnist"]
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
    assert ran.err == "veilsum: there is no data set 'minst'; known are digits and mnist\n"
