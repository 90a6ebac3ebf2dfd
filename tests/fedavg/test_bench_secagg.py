"""The measurement runs a whole round, counts real bytes, and its sum is exact."""

import pytest

from fedavg.bench_secagg import measure
from fedavg.errors import ParameterError, RoundAborted
from secagg.graph import holder_table
from secagg.messages import HEADER_BYTES
from secagg.ring import packed_size

KEYS = {
    "client_cpu_s",
    "server_cpu_s",
    "client_bytes_up",
    "client_bytes_down",
    "expansion",
    "keystream_cpu_s",
    "client_ratio",
    "server_ratio",
    "peak_rss_mb",
    "max_abs_error",
}


@pytest.mark.parametrize(
    "settings",
    [
        {"graph": "sparse", "neighbours": 8, "threshold": 5, "dropout": 0.1},
        {"graph": "complete", "dropout": 0.2},
        {"graph": "sparse", "adversary": "malicious", "clients": 60, "dropout": 0.05},
    ],
)
def test_a_measured_round_is_exact_and_complete(settings):
    result = measure(**{"clients": 20, "length": 1000, **settings})
    assert result.keys() >= KEYS
    assert result["max_abs_error"] == 0
    assert result["survivors"] == result["clients"] - int(settings["dropout"] * result["clients"])
    assert result["client_bytes_up"] > packed_size(1000, result["modulus_bits"]) + 4 * HEADER_BYTES
    assert result["expansion"] == result["client_bytes_up"] / 2000
    assert min(result[key] for key in KEYS - {"max_abs_error"}) > 0


def test_keystream_counts_every_mask_the_server_takes_off():
    """k + 1 masks a client; the server: one a survivor, and one for each surviving neighbour of the dropped."""
    from fedavg.bench_secagg import _Run
    from fedavg.bench_server import round_of
    from secagg.binding import ring_seed

    choice = {"clients": 30, "dropout": 0.1, "corruption": 0.05, "graph": "sparse", "neighbours": 6}
    run = _Run(round_of({**choice, "threshold": 4, "adversary": "semi_honest"}, 100, 21), {}, 0.2)
    run._roster_hash = bytes(32)
    table = holder_table(30, neighbours=6, seed=ring_seed(bytes(32))).tolist()
    pairs = sum(other not in run.gone for gone in run.gone for other in table[gone])
    assert len(run.gone) == 6
    assert run.server_mask_bytes() == (24 + pairs) * 4 * (100 + 4)
    assert run.client_mask_bytes() == 7 * 4 * (100 + 4)


def test_a_modulus_too_small_for_the_sum_is_refused():
    with pytest.raises(ParameterError, match="at least 21 bits"):
        measure(clients=20, length=10, modulus_bits=20)


def test_a_round_that_ends_early_says_why():
    with pytest.raises(RoundAborted, match="needed"):
        measure(clients=20, length=10, graph="sparse", neighbours=4, threshold=5, dropout=0.5)
