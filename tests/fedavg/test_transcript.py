"""What the server receives: nothing unmasked, nothing un-noised, and a sum with the stated noise in it.

The transcript is every byte that reached the server in a real round. Three things are shown about it: every byte is
accounted for by a message type whose length follows from public parameters; no client's values stand in it in any form
they had on the way (floats, integers, packed); what the masked inputs do hold is uniform.
"""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

import dp
from fedavg import Federation, RunEntropy, SecureAggregation
from fedavg.aggregation import AggregationPlan
from fedavg.layout import Layout
from fedavg.pytree import TreeSpec
from fedavg.step import Trained
from secagg import Vector
from secagg.ring import pack, packed_size, unpack, word_dtype

SIZE, COHORT = 600, 30
PRIVACY = dp.Privacy(noise_multiplier=1.0, delta=1e-4, l2_clip_norm=1.0)
SECURE = SecureAggregation(dropout=0.1, corruption=0.0)


LAYOUT = Layout(TreeSpec.of(np.zeros(SIZE)), {"loss": 4.0, "accuracy": 1.0}, PRIVACY, COHORT)


@pytest.fixture(scope="module")
def plan():
    return AggregationPlan.choose(
        LAYOUT.blocks(1.0), cohort=COHORT, privacy=PRIVACY, noise_multiplier=1.0, secure=SECURE
    )


def trained():
    rng = np.random.default_rng(11)
    return [
        Trained(
            rng.normal(size=SIZE) * 0.01, {"loss": float(rng.uniform(0, 4)), "accuracy": float(rng.uniform())}
        )
        for _ in range(COHORT)
    ]


def contributions():
    return [LAYOUT.values(done) for done in trained()]


@pytest.fixture(scope="module")
def transcript(plan):
    """All that the server received in one round, and what each client had before its masks."""
    received = []
    values = contributions()
    entropy = RunEntropy.seeded(3)
    plan.sum_round(
        lambda client: values[client],
        clients=range(COHORT),
        number=1,
        model_hash=bytes(32),
        dropouts={"unmask": [4], "masked_input": [7]},
        entropy=entropy,
        record=lambda *entry: received.append(entry),
    )
    encoded = [plan.encode(value, entropy.keystream("noise", 1, i)) for i, value in enumerate(values)]
    return received, values, encoded


def test_each_kind_of_message_has_one_length_whatever_the_data(transcript):
    """Two clients cannot be told apart by how much they send: lengths follow from public parameters."""
    received, _, _ = transcript
    for stage in ("advertise", "share", "masked_input"):
        lengths = Counter(len(message) for at, _, message in received if at == stage)
        assert len(lengths) == 1, (stage, lengths)
    assert {stage for stage, _, _ in received} == {"advertise", "share", "masked_input", "unmask"}
    senders = Counter((stage, sender) for stage, sender, _ in received)
    assert set(senders.values()) == {1}
    assert not any(sender == 7 for stage, sender, _ in received if stage in ("masked_input", "unmask"))


def test_a_masked_input_is_its_packed_ring_elements_and_little_else(transcript, plan):
    received, _, _ = transcript
    length = Vector("values", plan.encoding.dimension, plan.modulus_bits).padded_length
    packed = packed_size(length, plan.modulus_bits)
    for stage, _, message in received:
        if stage == "masked_input":
            assert packed <= len(message) <= packed + 64 + COHORT
        else:
            assert len(message) < 200 * COHORT


def test_nothing_a_client_had_stands_in_the_transcript(transcript, plan):
    """Searched for windows of every form its values had: floats, un-noised integers, noised integers, packed."""
    received, values, encoded = transcript
    everything = b"\xff".join(message for _, _, message in received)
    window = 12
    for blocks, noised in zip(values, encoded, strict=True):
        flat = np.concatenate([blocks["update"], blocks["scalars"]])
        forms = [flat.astype(kind).tobytes() for kind in ("<f4", "<f8", ">f4", ">f8")]
        integers = noised.astype(np.int64)
        forms += [integers.astype(kind).tobytes() for kind in ("<u4", "<u8", ">u4", ">u8")]
        forms.append(pack(noised.astype(word_dtype(plan.modulus_bits)), plan.modulus_bits))
        for form in forms:
            for start in (0, len(form) // 2, len(form) - window):
                assert form[start : start + window] not in everything
    for name in ("loss", "accuracy"):
        for value in trained():
            assert np.float64(value.metrics[name]).tobytes() not in everything


def test_the_search_would_find_what_is_there(transcript):
    """The control: a window of a masked input is found by the same search."""
    received, _, _ = transcript
    everything = b"\xff".join(message for _, _, message in received)
    message = next(message for stage, _, message in received if stage == "masked_input")
    assert message[100:112] in everything


def test_masked_inputs_are_uniform_and_the_same_without_masks_are_not(transcript, plan):
    """Chi-square over 256 buckets of 29 masked vectors (17,000 values), alpha 1e-4; the unmasked fail at once."""
    received, _, encoded = transcript
    length = Vector("values", plan.encoding.dimension, plan.modulus_bits).padded_length
    packed = packed_size(length, plan.modulus_bits)
    top = plan.modulus_bits - 8
    masked = [
        unpack(message[-packed:], length=length, bits=plan.modulus_bits)
        for stage, _, message in received
        if stage == "masked_input"
    ]
    p_values = []
    for vectors in (masked, encoded):
        buckets = np.concatenate(vectors).astype(np.uint64) >> np.uint64(top)
        counts = np.bincount(buckets.astype(np.int64), minlength=256)
        p_values.append(stats.chisquare(counts).pvalue)
    assert p_values[0] > 1e-4
    assert p_values[1] < 1e-100


def test_the_noise_in_the_decoded_sum_has_the_stated_deviation(plan):
    """40 rounds of 603 values: a chi-square interval at alpha 1e-4 that rejects 2/3 and 3/2 of the deviation."""
    values = contributions()
    exact = np.zeros(plan.encoding.dimension)
    for blocks in values:
        norm = np.linalg.norm(blocks["update"])
        exact += np.concatenate([blocks["update"] * min(1.0, PRIVACY.l2_clip_norm / norm), blocks["scalars"]])
    errors = []
    scales = np.concatenate(
        [np.full(plan.encoding.length(name), plan.encoding.scale(name)) for name in ("update", "scalars")]
    )
    for number in range(40):
        result = (
            plan.sum_round(
                values.__getitem__,
                clients=range(COHORT),
                number=number,
                model_hash=bytes(32),
                dropouts={},
                entropy=RunEntropy.seeded(number),
            )
            if number < 3
            else _ideal(plan, values, number)
        )
        decoded = np.concatenate([result.sums["update"], result.sums["scalars"]])
        errors.append((decoded - exact) * scales)
    errors = np.concatenate(errors)
    # Stochastic rounding of COHORT values adds at most a quarter each.
    stated = plan.mechanism.stddev_of_sum(COHORT)
    low, high = stats.chi2.ppf([5e-5, 1 - 5e-5], errors.size) / errors.size
    ratio = np.mean(errors**2) / stated**2
    assert low < ratio < high + COHORT / 4 / stated**2
    assert not low < ratio * (3 / 2) ** 2 < high
    assert not low < ratio * (2 / 3) ** 2 < high
    honest = plan.honest_survivors
    least = plan.mechanism.stddev_of_sum(honest) / plan.encoding.sensitivity
    assert least >= plan.mechanism.noise_multiplier


def _ideal(plan, values, number):
    from dataclasses import replace

    ideal = replace(plan, secure=replace(plan.secure, masked=False))
    return ideal.sum_round(
        values.__getitem__,
        clients=range(COHORT),
        number=number,
        model_hash=bytes(32),
        dropouts={},
        entropy=RunEntropy.seeded(number),
    )


def test_metrics_and_counts_have_no_other_way_out():
    """A federation's record holds the four stages' messages and nothing else, with metrics declared or not."""
    for metrics in ({}, {"loss": 2.0}):
        seen = []
        federation = Federation(
            lambda weights, data: (weights, {"loss": 1.234567}),
            list(range(40)),
            weights={"w": np.zeros(8)},
            rounds=1,
            cohort_size=20,
            privacy=PRIVACY,
            metrics=metrics,
            secure=SECURE,
            record=lambda stage, _, message, seen=seen: seen.append((stage, message)),
        )
        federation.run_round()
        assert {stage for stage, _ in seen} == {"advertise", "share", "masked_input", "unmask"}
        assert all(np.float64(1.234567).tobytes() not in message for _, message in seen)
