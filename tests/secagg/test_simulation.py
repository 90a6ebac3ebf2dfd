"""Whole rounds in memory: the sum is exact under any script of dropouts, or a typed abort."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secagg
from secagg import RoundParameters, SecAggError, SeededEntropy, TooFewClients, Vector, run_round, simulate
from secagg.messages import HEADER_BYTES
from secagg.ring import unpack

STAGES = ["advertise", "share", "masked_input", "consistency", "unmask"]


def choose(clients: int, vectors: list[Vector], **settings) -> RoundParameters:
    defaults = {
        "dropout": 0.1,
        "corruption": 0.1,
        "task": "test",
        "round": 0,
        "model_hash": bytes(32),
        "application": b"",
    }
    return RoundParameters.choose(clients=clients, vectors=vectors, **(defaults | settings))


def plain_sum(inputs, survivors, bits):
    total = sum(np.asarray(inputs[c]).astype(object) for c in survivors)
    return total % 2**bits


@st.composite
def scripts(draw):
    clients = draw(st.integers(3, 40))
    stages = draw(st.lists(st.sampled_from([None, None, *STAGES]), min_size=clients, max_size=clients))
    dropouts = {stage: [c for c in range(clients) if stages[c] == stage] for stage in STAGES}
    graph = draw(st.sampled_from(["complete", "sparse"]))
    neighbours = None
    if graph == "sparse":
        neighbours = 2 * draw(st.integers(1, (clients - 1) // 2))
    bits = draw(st.sampled_from([1, 2, 16, 24, 31, 32, 33, 62]))
    adversary = draw(st.sampled_from(["semi_honest", "malicious"])) if graph == "complete" else "semi_honest"
    return clients, draw(st.integers(1, 70)), bits, graph, neighbours, dropouts, adversary


@settings(max_examples=60, deadline=None)
@given(scripts(), st.randoms(use_true_random=False))
def test_sum_is_the_survivors_plain_sum_or_a_typed_abort(script, random):
    clients, length, bits, graph, neighbours, dropouts, adversary = script
    inputs = {
        c: np.array(
            [random.choice((0, 2**bits - 1, random.getrandbits(bits))) for _ in range(length)]
        ).astype(np.uint64)
        for c in range(clients)
    }
    silent = Counter(stage for stage in STAGES for _ in dropouts[stage])
    result, abort = None, None
    try:
        result = simulate(
            inputs,
            modulus_bits=bits,
            graph=graph,
            neighbours=neighbours,
            threshold=None if neighbours is None else max(2, neighbours // 2 + 1),
            dropouts=dropouts,
            adversary=adversary,
        )
    except TooFewClients as error:
        abort = error
    if abort is not None:
        assert abort.have < abort.need
        may_abort = graph == "sparse" or clients - silent.total() < abort.need
        assert may_abort or (adversary == "malicious" and silent["advertise"] > clients / 10)
        return
    if adversary == "malicious":
        assert silent["advertise"] <= clients / 10
    early = silent["advertise"] + silent["share"] + silent["masked_input"]
    if graph == "complete":
        assert len(result.survivors) == clients - early
    assert not set(result.survivors) & {c for s in STAGES[:3] for c in dropouts[s]}
    assert result.total.tolist() == plain_sum(inputs, result.survivors, bits).tolist()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("graph", "adversary", "clients"),
    [
        ("complete", "semi_honest", 40),
        ("sparse", "semi_honest", 60),
        ("complete", "malicious", 40),
        ("sparse", "malicious", 60),
    ],
)
def test_survives_planned_dropouts_at_every_stage(stage, graph, adversary, clients):
    inputs = {c: np.full(5, c, np.uint32) for c in range(clients)}
    gone = [3, 20]
    result = simulate(
        inputs,
        modulus_bits=20,
        graph=graph,
        dropout=0.05,
        corruption=0.05,
        dropouts={stage: gone},
        adversary=adversary,
    )
    in_sum = set(range(clients)) - (set(gone) if stage in STAGES[:3] else set())
    assert set(result.survivors) == in_sum
    assert result.total.tolist() == [sum(in_sum) % 2**20] * 5


def test_complete_graph_works_down_to_the_threshold_and_not_below():
    inputs = {c: np.full(3, c, np.uint8) for c in range(9)}
    kept = simulate(inputs, modulus_bits=8, graph="complete", dropouts={"share": [0], "unmask": [1, 2, 3]})
    assert kept.parameters.threshold == 5
    assert kept.total.tolist() == [36] * 3
    with pytest.raises(TooFewClients) as caught:
        simulate(inputs, modulus_bits=8, graph="complete", dropouts={"share": [0], "unmask": [1, 2, 3, 4]})
    assert (caught.value.have, caught.value.need) == (4, 5)


def test_all_but_one_dropped_gives_no_output():
    inputs = {c: np.full(3, c, np.uint8) for c in range(9)}
    for stage in STAGES:
        with pytest.raises(TooFewClients):
            simulate(inputs, modulus_bits=8, graph="complete", dropouts={stage: range(1, 9)})


@pytest.mark.parametrize("bits", [1, 31, 32, 33, 62])
def test_all_max_and_all_min_inputs_are_exact(bits):
    highest = {c: np.full(40, 2**bits - 1, np.uint64) for c in range(7)}
    result = simulate(highest, modulus_bits=bits, graph="complete", dropouts={"masked_input": [2]})
    assert result.total.tolist() == [6 * (2**bits - 1) % 2**bits] * 40
    lowest = {c: np.zeros(40, np.uint64) for c in range(7)}
    assert not simulate(lowest, modulus_bits=bits, graph="complete").total.any()


def test_several_vectors_travel_in_one_round():
    vectors = [
        Vector("update", 100, 26),
        Vector("counts", 3, 26),
        Vector("flags", 65, 1),
        Vector("wide", 4, 62),
    ]
    parameters = choose(12, vectors, graph="complete")
    rng = np.random.default_rng(7)
    inputs = {
        c: {v.name: rng.integers(0, 2**v.modulus_bits, v.length, dtype=np.uint64) for v in vectors}
        for c in range(12)
    }
    result = run_round(
        parameters, range(12), inputs.__getitem__, dropouts={"share": [1], "masked_input": [2], "unmask": [3]}
    )
    for vector in vectors:
        values = {c: inputs[c][vector.name] for c in inputs}
        expected = plain_sum(values, result.survivors, vector.modulus_bits)
        assert result.totals[vector.name].tolist() == expected.tolist()


def test_big_endian_inputs_are_summed_by_value():
    inputs = {c: np.array([c, 256 + c], dtype=">u4") for c in range(4)}
    assert simulate(inputs, modulus_bits=16).total.tolist() == [6, 1030]


def test_input_of_a_silent_client_is_never_asked_for():
    asked = []

    def inputs(client):
        asked.append(client)
        return {"v": np.zeros(2, np.uint8)}

    dropouts = {"advertise": [0], "share": [1], "masked_input": [2], "unmask": [3]}
    run_round(choose(10, [Vector("v", 2, 8)], graph="complete"), range(10), inputs, dropouts=dropouts)
    assert asked == list(range(3, 10))


def test_seeded_round_is_reproducible_and_unseeded_rounds_differ():
    parameters = choose(5, [Vector("v", 3, 16)])

    def transcript(entropy):
        rows = []
        run_round(
            parameters,
            range(5),
            lambda c: {"v": np.full(3, c, np.uint16)},
            entropy=entropy,
            record=lambda *row: rows.append(row),
        )
        return rows

    assert transcript(SeededEntropy(bytes(32))) == transcript(SeededEntropy(bytes(32)))
    assert transcript(None) != transcript(None)


def test_masked_inputs_are_uniform_and_hold_no_input():
    """Every client sends the same constant; 64 bins of 96,000 masked values, alpha 1e-6 (fixed seed).

    Chi-square with 63 degrees of freedom exceeds 150 with probability below 1e-8; the unmasked inputs
    would give about 6 million, and values masked in all but one bit give more than 10,000.
    """
    length, bits = 4000, 24
    vector = Vector("v", length, bits)
    parameters = choose(24, [vector], graph="sparse", neighbours=8, threshold=5)
    messages = {}

    def record(stage, sender, data):
        if stage == "masked_input":
            messages[sender] = data

    run_round(
        parameters,
        range(24),
        lambda c: {"v": np.full(length, 12345, np.uint32)},
        entropy=SeededEntropy(b"u" * 32),
        record=record,
    )
    bodies = [data[HEADER_BYTES:-1] for data in messages.values()]
    values = np.concatenate([unpack(b, length=vector.padded_length, bits=bits)[:length] for b in bodies])

    def statistic(bins):
        counts = np.bincount(bins, minlength=64)
        return float(((counts - len(bins) / 64) ** 2 / (len(bins) / 64)).sum())

    assert statistic(values >> 18) < 150
    assert statistic(values & 63) < 150
    assert statistic(values & 62) > 10_000
    assert not (values == 12345).sum() > 3


def test_transcript_holds_no_plain_input():
    plain = np.arange(1000, 1400, dtype=np.uint32)
    result = simulate(dict.fromkeys(range(6), plain), modulus_bits=32)
    windows = {plain[i : i + 4].tobytes() for i in range(0, 396)}
    for _, _, data in result.transcript:
        assert not any(window in data for window in windows)
    assert {stage for stage, _, _ in result.transcript} == {"advertise", "share", "masked_input", "unmask"}


def test_malicious_mode_without_everyones_identity_is_refused_with_the_way_out():
    identities = {client: secagg.Identity.generate() for client in range(6)}
    parameters = choose(
        5, [Vector("v", 1, 8)], adversary="malicious", roster_hash=secagg.IdentityRoster.of(identities).hash
    )
    values = {"v": np.ones(1, np.uint8)}
    for known in (None, {client: identities[client] for client in range(4)}):
        with pytest.raises(secagg.ParameterError, match=r"IdentityRoster\.of"):
            run_round(parameters, range(5), lambda client: values, identities=known)
    assert run_round(parameters, range(1, 6), lambda client: values, identities=identities).totals["v"] == [5]


def test_unknown_stage_and_repeated_ids_are_refused():
    parameters = choose(4, [Vector("v", 1, 8)])
    with pytest.raises(secagg.ParameterError, match="no stage 'mask'"):
        run_round(parameters, range(4), lambda c: {}, dropouts={"mask": [1]})
    with pytest.raises(secagg.ParameterError, match="each once"):
        run_round(parameters, [1, 1], lambda c: {})
    with pytest.raises(secagg.ParameterError, match="equally long"):
        simulate({0: np.zeros(1, np.uint8), 1: np.zeros(2, np.uint8)}, modulus_bits=8)


def test_input_outside_the_ring_stops_the_round_before_it_is_masked():
    inputs = {c: np.full(2, 300 if c == 1 else 0, np.uint16) for c in range(4)}
    with pytest.raises(SecAggError, match="outside"):
        simulate(inputs, modulus_bits=8)
