"""Settings of both sides, node folders, and records on the wire."""

import dataclasses
import io
import json

import numpy as np
import pytest

pytest.importorskip("flwr")
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

import dp
from fedavg.errors import ParameterError
from fedavg.flower import NodeSetupError, PrivateRounds, WireError, make_folders, make_identity, read_roster
from fedavg.flower.keys import read_identity
from fedavg.flower.wire import (
    DATA,
    HEADER,
    Reply,
    Request,
    content_hash,
    describe_form,
    read_form,
    read_reply,
    read_request,
    write_reply,
    write_request,
)
from fedavg.pytree import TreeSpec
from fedavg.secure_aggregation import SecureAggregation
from tests.fedavg.flower.network import PRIVACY, rounds, start


def npy(header):
    """A numpy file of that header and no values."""
    return b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n"


def archive():
    file = io.BytesIO()
    np.savez(file, bytes=np.zeros(1, np.uint8))
    return file.getvalue()


REQUEST = Request("share", 3, bytes(32), '[["w", "<f4", [2]]]', 7, True, b"data")


def test_settings_survive_their_file(tmp_path):
    privacy = dp.Privacy(
        noise_multiplier=1.0, server_epsilon=8.0, delta=1e-5, l2_clip_norm={"b": 1.0, "w": 2.0}
    )
    settings = rounds(9, privacy=privacy, coin=0.5, adversary="malicious")
    settings.write(tmp_path / "rounds.json")
    assert PrivateRounds.read(tmp_path / "rounds.json") == settings


@pytest.mark.parametrize("damage", ['{"task": "x"}', "[]", "no json", '{"privacy": {"delta": 1}}'])
def test_a_damaged_settings_file_is_one_sentence(tmp_path, damage):
    (tmp_path / "rounds.json").write_text(damage)
    with pytest.raises(ParameterError, match="cannot be used"):
        PrivateRounds.read(tmp_path / "rounds.json")


def test_a_setting_that_is_not_known_is_refused(tmp_path):
    rounds(4).write(tmp_path / "rounds.json")
    fields = json.loads((tmp_path / "rounds.json").read_text())
    (tmp_path / "rounds.json").write_text(json.dumps({**fields, "nose": 1}))
    with pytest.raises(ParameterError, match="nose"):
        PrivateRounds.read(tmp_path / "rounds.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secure": SecureAggregation.ideal()}, "hides nothing"),
        ({"coin": 0.0}, "coin is 0"),
        ({"coin": "1"}, "coin is '1'"),
        ({"task": ""}, "name the training run"),
        ({"task": 5}, "task is 5; name the training run"),
        ({"rounds": "2"}, "4 nodes and '2' rounds; give whole numbers"),
        ({"rounds": 2.5}, "4 nodes and 2.5 rounds; give whole numbers"),
        ({"privacy": {"delta": 1e-3}}, "privacy is .*; give a dp.Privacy"),
        ({"secure": True}, "secure is True; give a fedavg.SecureAggregation"),
        ({"metrics": ["loss"]}, "metrics is .*; give a mapping"),
        ({"nodes_per_round": 2.0, "adversary": "malicious"}, "must not choose the cohort"),
        (
            {"privacy": dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0, clip_quantile=0.5)},
            "clip_quantile",
        ),
        (
            {
                "privacy": dp.Privacy(
                    noise_multiplier=1.0,
                    delta=1e-3,
                    l2_clip_norm=1.0,
                    mechanism="central_gaussian",
                    trusted_server=True,
                )
            },
            "trusts the server",
        ),
    ],
)
def test_settings_that_cannot_keep_a_promise_are_refused(change, words):
    with pytest.raises(ParameterError, match=words):
        rounds(4, **change)


def test_the_calibrated_noise_is_kept_in_the_folder_and_rounded_up(tmp_path):
    privacy = dp.Privacy(server_epsilon=8.0, delta=1e-3, l2_clip_norm=1.0)
    settings = rounds(4, privacy=privacy)
    first = settings.noise_multiplier(tmp_path)
    assert first >= dp.calibrate(privacy, settings.sampler, rounds=3)
    [kept] = tmp_path.glob("noise-multiplier-*")
    kept.write_text("12.5")
    assert settings.noise_multiplier(tmp_path) == 12.5
    kept.write_text("")  # What a power cut leaves of a file.
    assert settings.noise_multiplier(tmp_path) == first
    kept.write_text("12.5")
    other = dataclasses.replace(settings, rounds=30)
    assert first < other.noise_multiplier(tmp_path) != 12.5


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
def test_the_planned_rounds_keep_the_budget_whichever_the_mechanism(mechanism):
    """A node pins the noise, and nothing else of a budget: there is to be enough of it."""
    privacy = dp.Privacy(server_epsilon=4.0, delta=1e-5, l2_clip_norm=1.0, mechanism=mechanism)
    settings = rounds(50, privacy=privacy, rounds=20)
    mechanism = settings.plan(TreeSpec.of({"w": np.zeros(1000, np.float32)})).aggregation.mechanism
    spent = dp.RunAccountant(mechanism, settings.sampler, privacy, 20).epsilons(20).server
    assert 3.98 < spent <= 4.0


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 4},
        {"metrics": {"loss": 9.0}},
        {"coin": 0.5},
        {"privacy": dataclasses.replace(PRIVACY, delta=2e-3)},
        {"privacy": dataclasses.replace(PRIVACY, max_participations=2)},
        {"privacy": dataclasses.replace(PRIVACY, server_epsilon=100.0)},
        {"privacy": dataclasses.replace(PRIVACY, l2_clip_norm=11.0)},
    ],
)
def test_everything_that_a_statement_rests_on_is_bound(change):
    spec = TreeSpec.of({"w": np.zeros(3, np.float32)})
    one, two = (
        settings.plan(spec).parameters(1, bytes(32), None) for settings in (rounds(4), rounds(4, **change))
    )
    assert "application" in one.differences(two.canonical)


def test_an_identity_is_never_overwritten_and_never_shown(tmp_path):
    [folder, other] = make_folders(tmp_path, 2)
    with pytest.raises(NodeSetupError, match="remove it by hand"):
        make_identity(folder, 0)
    key = (folder / "identity.key").read_text()
    assert key not in repr(read_identity(folder))
    (folder / "identity.key").write_text(key[:-2] + "zz")
    with pytest.raises(NodeSetupError) as caught:
        read_identity(folder)
    assert key[:8] not in str(caught.value)
    (folder / "identity.key").write_text((other / "identity.key").read_text())
    with pytest.raises(NodeSetupError, match="does not hold node 0"):
        read_identity(folder)


def test_a_roster_that_is_missing_is_one_sentence(tmp_path):
    with pytest.raises(NodeSetupError, match="missing or damaged"):
        read_roster(tmp_path / "roster.json")


def test_requests_and_replies_survive_the_wire():
    assert read_request(write_request(REQUEST)) == REQUEST
    reply = Reply("share", 3, 7, b"")
    assert read_reply(write_reply(reply)) == reply


@pytest.mark.parametrize(
    ("name", "value"),
    [("version", 0), ("stage", "shares"), ("round", -1), ("model", b"x"), ("contributes", 1), ("node", "7")],
)
def test_a_header_with_a_wrong_field_is_refused(name, value):
    content = write_request(REQUEST)
    content[HEADER] = ConfigRecord({**content[HEADER], name: value})
    with pytest.raises(WireError):
        read_request(content)


@pytest.mark.parametrize("data", [np.zeros(3), np.zeros((2, 2), np.uint8)])
def test_protocol_data_that_is_no_bytes_is_refused(data):
    content = write_request(REQUEST)
    content[DATA] = ArrayRecord({"bytes": Array(data)})
    with pytest.raises(WireError, match="it takes bytes"):
        read_request(content)


@pytest.mark.parametrize(
    "data",
    [
        npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**60},)}}"),
        npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**30},)}}"),
        npy("-" * 9000 + "1"),
        npy("+".join(["1"] * 4000)),
        npy("(" * 9000),
        npy("{'descr': '''"),
        b"PK\x03\x04" + bytes(30),
        archive(),
    ],
)
def test_an_array_whose_header_lies_is_refused_whatever_numpy_makes_of_it(data):
    """Anything but a WireError would leave the server's round, and end the run, for one node's message."""
    content = write_reply(Reply("share", 3, 7, b""))
    content[DATA] = ArrayRecord({"bytes": Array("uint8", (1,), "numpy.ndarray", data)})
    with pytest.raises(WireError, match="an array in the message is"):
        read_reply(content)


@given(st.text(max_size=60))
def test_any_form_parses_or_is_refused(form):
    try:
        read_form(form)
    except WireError:
        return
    raise AssertionError(form)


@pytest.mark.parametrize(
    "form",
    [
        '[["w", "<f4", [100000, 100000]]]',
        '[["w", "<i4", [2]]]',
        '[["w", "O", [2]]]',
        '[["w", "<f4", [-1]]]',
        '[["w", "<f4", [2]], ["w", "<f4", [2]]]',
        "[]",
    ],
)
def test_a_form_that_is_no_model_is_refused_without_making_it(form):
    with pytest.raises(WireError):
        read_form(form)


def test_a_form_survives():
    spec = TreeSpec.of({"w": np.zeros((2, 3), np.float32), "b": np.zeros((), np.float64)})
    assert describe_form(read_form(describe_form(spec))) == describe_form(spec)


def test_every_value_name_and_type_sent_along_changes_the_hash():
    def hashed(**records):
        return content_hash(RecordDict(records))

    arrays = start()
    contents = [
        hashed(arrays=arrays),
        hashed(model=arrays),
        hashed(arrays=ArrayRecord({"w": arrays["w"], "c": arrays["b"]})),
        hashed(arrays=ArrayRecord({"w": Array(np.ones((2, 3), np.float32)), "b": arrays["b"]})),
        hashed(arrays=ArrayRecord({"w": Array(np.zeros((3, 2), np.float32)), "b": arrays["b"]})),
        hashed(arrays=arrays, config=ConfigRecord({"lr": 1})),
        hashed(arrays=arrays, config=ConfigRecord({"lr": 1.0})),
        hashed(arrays=arrays, config=ConfigRecord({"lr": "1"})),
        hashed(arrays=arrays, config=MetricRecord({"lr": 1})),
    ]
    assert len(set(contents)) == len(contents)
