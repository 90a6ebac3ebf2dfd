"""Transcripts: every byte has a name, what is no transcript is refused, and what does not belong is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import fedavg
from fedavg.auditing import Recorder, audit_transcript, read_transcript
from fedavg.backends.processes import Processes
from fedavg.errors import CheckpointError
from secagg.messages import HEADER_BYTES
from secagg.ring import pack, packed_size
from tests.fedavg.auditing import pipelines
from tests.fedavg.backends import steps

NEVER = 1e-9  # A level at which nothing that is random by the system's own entropy is ever flagged.


@pytest.fixture
def recorded(tmp_path):
    plan = pipelines.honest(cohort=16, length=120, secure=fedavg.SecureAggregation(dropout=0.2))
    pipelines.record_round(tmp_path / "t", plan, seed=1)
    return tmp_path / "t"


def size(path):
    return sum(len(message.data) for message in read_transcript(path).messages())


def test_every_byte_has_a_name(recorded):
    found = audit_transcript(read_transcript(recorded))
    assert found.clean
    assert sum(found.contents.values()) == size(recorded)
    assert found.contents["unexplained"] == 0
    assert found.messages == {"advertise": 16, "share": 16, "masked_input": 14, "unmask": 13}


@pytest.mark.parametrize(
    "settings",
    [
        {"graph": "sparse", "dropout": 0.05, "corruption": 0.05},
        {"excess_noise": "remove", "dropout": 0.2},
        {"compression": "rotation", "dropout": 0.2},
    ],
)
def test_other_rounds_are_understood_too(tmp_path, settings):
    cohort = 100 if "graph" in settings else 16
    plan = pipelines.honest(cohort=cohort, length=60, secure=fedavg.SecureAggregation(**settings))
    pipelines.record_round(tmp_path / "t", plan, seed=2)
    found = audit_transcript(read_transcript(tmp_path / "t"))
    assert found.clean, found.problems or found.findings
    assert sum(found.contents.values()) == size(tmp_path / "t")


@pytest.fixture
def against_malicious(tmp_path):
    secure = fedavg.SecureAggregation(dropout=0.2, adversary="malicious")
    pipelines.record_round(tmp_path / "t", pipelines.honest(cohort=16, length=120, secure=secure), seed=1)
    return tmp_path / "t"


def test_rounds_against_a_malicious_server_have_five_stages_signatures_and_tags(against_malicious):
    found = audit_transcript(read_transcript(against_malicious), level=NEVER)
    assert found.clean, found.problems
    assert found.messages == {
        "advertise": 16, "share": 16, "masked_input": 14, "consistency": 14, "unmask": 13
    }  # fmt: skip
    assert sum(found.contents.values()) == size(against_malicious)
    contents = found.contents
    assert (contents["signatures"], contents["consistency tags"]) == (16 * 64, 14 * 13 * 32)
    assert contents["hashes of shares"] == 16 * 16 * 2 * 32
    assert contents["salts"] == contents["shares"] * 16 // 36


@pytest.mark.parametrize(
    ("where", "change", "says"),
    [
        (("advertise", 5), lambda data: data[:-64] + b"age=41, " * 8, "nobody's signature"),
        (("consistency", 5), lambda data: data + b"age=41, ", "bytes where exactly"),
        (("consistency", 5), lambda data: data[:HEADER_BYTES] + b"age=41, " * 4 * 14, "bytes where exactly"),
        (("consistency", 5), lambda data: data[:HEADER_BYTES] + b"age=41, " * 4 * 13, "shares sealed"),
        (("unmask", 4), lambda data: data[:-2] + b"\xff\xff", "outside its field"),
    ],
)  # fmt: skip
def test_what_does_not_belong_is_named_in_those_rounds_too(against_malicious, where, change, says):
    pipelines.rewrite(
        against_malicious,
        lambda stage, sender, data: [(stage, sender, change(data) if (stage, sender) == where else data)],
    )
    found = audit_transcript(read_transcript(against_malicious), level=NEVER)
    flagged = [finding.detector for finding in found.findings if finding.flagged]
    assert [word for word in (*found.problems, *flagged) if says in word]


def from_workers(path, **secure):
    """A transcript of two processes that play a run's clients."""
    settings = steps.settings(
        rounds=1, secure=replace(steps.SECURE, **secure), entropy=fedavg.RunEntropy.seeded(5)
    )
    plan = fedavg.Federation(steps.step, steps.clients(), **settings).plan
    with Processes(2) as backend, Recorder(path, plan) as recorder:
        fedavg.train(steps.step, steps.clients(), **settings, record=recorder, backend=backend)
    return path


@pytest.fixture(scope="module", params=["semi_honest", "malicious"])
def workers(request, tmp_path_factory):
    return from_workers(tmp_path_factory.mktemp("t") / "t", adversary=request.param)


@pytest.fixture
def sums(workers, tmp_path):
    return shutil.copy(workers, tmp_path / "t")


def test_sums_that_workers_hand_up_are_read_too(sums):
    found = audit_transcript(read_transcript(sums), level=NEVER)
    assert found.clean, found.problems
    assert found.messages["masked_input"] == 2
    assert sum(found.contents.values()) == size(sums)
    assert found.contents["sums of masked vectors"] > 0
    # The identity keys are on record, so that every signature was verified.
    malicious = "consistency" in found.messages
    assert found.contents.get("identity keys", 0) == 32 * found.messages["advertise"] * malicious


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: [data + b"loss=1"], "bytes where exactly"),
        (lambda data: [data[1:] + data[:1]], "of no round that was begun"),
        (lambda data: [data, data], "a second time"),
        (lambda data: [data[:32] + b"\xff" + data[33:]], "a partial sum"),
    ],
)
def test_what_does_not_belong_in_such_a_sum_is_named(sums, change, says):
    pipelines.rewrite(
        sums,
        lambda stage, sender, data: [
            (stage, sender, changed) for changed in (change(data) if sender == -1 else [data])
        ],
    )
    problem, *_ = audit_transcript(read_transcript(sums), level=NEVER).problems
    assert says in problem
    assert "from -1" in problem


def test_a_sum_whose_masks_are_off_is_flagged(sums):
    """The vectors of one worker's clients, rounded and noised but not masked."""
    parameters = read_transcript(sums).parameters
    (vector,) = parameters.vectors
    due = packed_size(vector.padded_length, vector.modulus_bits)
    plain = bytes(pack(np.arange(vector.padded_length, dtype=np.uint32) % 50, vector.modulus_bits))
    pipelines.rewrite(
        sums, lambda stage, sender, data: [(stage, sender, data[:-due] + plain if sender == -1 else data)]
    )
    assert audit_transcript(read_transcript(sums), level=1e-6).findings[0].flagged


def test_a_signature_of_another_than_the_key_on_record_is_named(tmp_path):
    path = from_workers(tmp_path / "t", adversary="malicious")
    someone = next(message.sender for message in read_transcript(path).messages())
    pipelines.rewrite(
        path,
        lambda stage, sender, data: [
            (stage, sender, data[:-64] + bytes(64) if (stage, sender) == ("advertise", someone) else data)
        ],
    )
    found = audit_transcript(read_transcript(path), level=NEVER)
    assert f"the signature of client {someone} does not verify" in found.problems[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda stage, data: [(stage, data + b"loss=1")], "bytes where exactly"),
        (lambda stage, data: [(stage, b"loss=1")], "shorter than its header"),
        (lambda stage, data: [(stage, b"X" + data[1:])], "a message of version"),
        (lambda stage, data: [("unmask", data)], "a message of kind masked_input"),
        (lambda stage, data: [(stage, data), (stage, data)], "a second message"),
        (lambda stage, data: [("metrics", data)], "a stage that the protocol does not have"),
    ],
)
def test_what_does_not_belong_is_named(recorded, change, says):
    def one(stage, sender, data):
        if (stage, sender) != ("masked_input", 5):
            return [(stage, sender, data)]
        return [(name, sender, changed) for name, changed in change(stage, data)]

    pipelines.rewrite(recorded, one)
    found = audit_transcript(read_transcript(recorded))
    (problem,) = found.problems
    assert says in problem
    assert "from 5" in problem
    assert found.contents["unexplained"] > 0


@pytest.mark.parametrize("who", [-5, 2**63, 2**70])
def test_a_sender_that_is_no_client_is_named(recorded, who):
    """A server records what arrives before it knows who it is from; one such line must not end the audit."""
    pipelines.rewrite(
        recorded,
        lambda stage, sender, data: [(stage, who if (stage, sender) == ("advertise", 5) else sender, data)],
    )
    found = audit_transcript(read_transcript(recorded), level=NEVER)
    assert f"the sender is {who}, which is no client's id" in found.problems[0]


def test_a_share_outside_its_field_is_named(recorded):
    pipelines.rewrite(
        recorded,
        lambda stage, sender, data: [
            (stage, sender, data[:-2] + b"\xff\xff" if (stage, sender) == ("unmask", 4) else data)
        ],
    )
    assert "outside its field" in audit_transcript(read_transcript(recorded)).problems[0]


def test_a_vector_without_masks_is_flagged(recorded):
    plan = pipelines.honest(cohort=16, length=120)
    (vector,) = plan.protocol(0, bytes(32)).vectors
    pipelines.rewrite(
        recorded, pipelines.vector_unmasked(vector.padded_length, vector.modulus_bits, sender=7)
    )
    every_vector = audit_transcript(read_transcript(recorded)).findings[0]
    assert every_vector.flagged


def test_a_transcript_is_never_written_over_and_can_go_on(recorded):
    plan = pipelines.honest(cohort=16, length=120, secure=fedavg.SecureAggregation(dropout=0.2))
    with pytest.raises(CheckpointError, match="never written over"):
        Recorder(recorded, plan)
    before = recorded.read_text()
    with Recorder(recorded, plan, resume=True) as recorder:
        recorder("share", 1, b"")
    assert recorded.read_text().startswith(before)
    assert len(recorded.read_text().splitlines()) == len(before.splitlines()) + 1


def test_a_run_that_sent_nothing_leaves_no_transcript(tmp_path):
    plan = pipelines.honest(cohort=16, length=120, secure=fedavg.SecureAggregation())
    with Recorder(tmp_path / "t", plan):
        assert (tmp_path / "t").exists()
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    "content", ["", "no json", "{}", '{"format": "other"}', '{"format": "veilsum transcript 1", "parameters": {}}',
                '{"format": "veilsum transcript 1", "parameters": null}']
)  # fmt: skip
def test_what_is_no_transcript_is_refused(tmp_path, content):
    path = tmp_path / "t"
    path.write_text(content)
    with pytest.raises(CheckpointError, match="no transcript"):
        read_transcript(path)


def test_a_missing_transcript_and_a_broken_line_are_named(recorded, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_transcript(tmp_path / "nowhere")
    with open(recorded, "a") as file:
        file.write(json.dumps({"stage": "share", "sender": 1}) + "\n")
    with pytest.raises(CheckpointError, match="is no message"):
        audit_transcript(read_transcript(recorded))


def test_no_place_to_write_is_named(tmp_path):
    plan = pipelines.honest(cohort=16, length=120, secure=fedavg.SecureAggregation())
    with pytest.raises(CheckpointError, match="cannot be written"):
        Recorder(tmp_path / "no" / "t", plan)
