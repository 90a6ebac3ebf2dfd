"""Transcripts: every byte has a name, what is no transcript is refused, and what does not belong is named."""

from __future__ import annotations

import json

import pytest

import fedavg
from fedavg.auditing import Recorder, audit_transcript, read_transcript
from fedavg.errors import CheckpointError
from tests.fedavg.auditing import pipelines


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
