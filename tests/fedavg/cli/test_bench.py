"""`veilsum bench secagg`: the figures scripts rely on, and the sentence for settings no round can have."""

from __future__ import annotations

import json

KEYS = {
    "client_cpu_s", "server_cpu_s", "client_bytes_up", "client_bytes_down", "expansion", "keystream_cpu_s",
    "client_ratio", "server_ratio", "peak_rss_mb", "max_abs_error",
}  # fmt: skip


def test_one_round_is_measured_and_exact(veilsum):
    ran = veilsum(
        "bench", "secagg", "--clients", 20, "--length", 500, "--graph", "complete", "--dropout", 0.1, "--json"
    )
    assert ran.code == 0, ran.err
    figures = json.loads(ran.out)
    assert set(figures) >= KEYS
    assert figures["max_abs_error"] == 0
    assert figures["graph"] == "complete"
    assert max(map(len, ran.err.splitlines())) <= 80


def test_settings_no_round_can_have_are_one_sentence(veilsum):
    ran = veilsum("bench", "secagg", "--clients", 20, "--length", 500, "--modulus-bits", 5)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("veilsum: 5 modulus bits")


def test_a_round_against_a_malicious_server_costs_more(veilsum):
    sent = {}
    for adversary in ("semi_honest", "malicious"):
        ran = veilsum("bench", "secagg", "--clients", 12, "--length", 100, "--adversary", adversary, "--json")
        figures = json.loads(ran.out)
        assert (figures["adversary"], figures["max_abs_error"]) == (adversary, 0)
        sent[adversary] = figures["client_bytes_up"]
    assert sent["malicious"] > sent["semi_honest"]
