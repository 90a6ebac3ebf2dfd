"""What a lying server, a lying node, a restart or a full disk can do to a round over Flower: nothing but end it."""

import copy
import json
import os
import time

import numpy as np
import pytest

pytest.importorskip("flwr")
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

import secagg
from fedavg.auditing import audit_transcript, read_transcript
from fedavg.errors import RoundAborted
from fedavg.flower import make_folders, read_roster
from fedavg.flower import node as flower_node
from fedavg.flower.keys import ROSTER
from fedavg.flower.rounds import Invitation, RoundLog, run_round
from fedavg.flower.wire import DATA, HEADER, arrays_of, content_hash, describe_form
from fedavg.pytree import TreeSpec
from tests.fedavg.flower.network import QUICK, LoopbackGrid, app_of, network, rounds, silent, start, train
from tests.fedavg.flower.test_rounds import lines, run

STAGES = ["advertise", "share", "masked_input", "consistency", "unmask"]


def content(message):
    return RecordDict(dict(message.content))


def captured(tmp_path, settings, *, node=1001):
    """One honest round; each stage's message to a node, and the node's state before it answered."""
    grid, messages, states = network(tmp_path, settings), {}, {}

    def keep(stage, to, message):
        if to == node:
            messages[stage] = content(message)
            states[stage] = copy.deepcopy(dict(grid.contexts[node].state))
        return message

    grid.down = keep
    run(tmp_path, settings, grid)
    return grid, messages, states


def ask(grid, node, records):
    return grid.ask(Message(records, dst_node_id=node, message_type="train"))


def reason(reply):
    assert reply.has_error()
    assert "\n" not in reply.error.reason
    return reply.error.reason


def flipped(reply, position):
    """The reply with one byte of its protocol data changed."""
    data = reply.content[DATA]["bytes"].numpy().copy()
    data[position] ^= 1
    reply.content[DATA] = ArrayRecord({"bytes": Array(data)})
    return reply


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_answered_once_even_if_the_memory_is_put_back(tmp_path, stage):
    grid, messages, states = captured(tmp_path, rounds(4, adversary="malicious"))
    grid.contexts[1001].state = RecordDict(states[stage])
    assert "record refused" in reason(ask(grid, 1001, messages[stage]))


def test_a_round_has_one_coin_even_where_its_masked_input_failed(tmp_path):
    """Asked again after a failure, a node would throw again, and a server could wait for the side that it likes."""
    settings, trained = rounds(4, coin=0.5), []

    def body(message, context):
        trained.append(context.node_config["partition-id"])
        return train(message, context)

    grid, messages = network(tmp_path, settings, body=body), {}

    def keep(stage, node, message):
        if (stage, node) == ("masked_input", 1001):
            state = copy.deepcopy(dict(grid.contexts[node].state))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(secagg.Client, "mask", lambda *_: 1 / 0)
                messages["first"] = grid.ask(
                    Message(content(message), dst_node_id=node, message_type="train")
                )
            grid.contexts[node].state = RecordDict(state)
        return message

    grid.down = keep
    run(tmp_path, settings, grid)
    assert "ZeroDivisionError" in reason(messages["first"])
    [second] = [reply for stage, node, reply in grid.seen if (stage, node) == ("masked_input", 1001)]
    assert "record refused" in reason(second)
    assert trained.count(0) == 1


@pytest.mark.parametrize("step", [1, 2**32])
def test_how_far_apart_rounds_are_numbered_tells_no_coin(tmp_path, step, monkeypatch):
    """A lying server numbers two rounds far apart: no node may refuse the second by how its two coins fell."""
    settings = rounds(4, adversary="malicious", coin=0.5)
    grid, fallen = network(tmp_path, settings), {}
    monkeypatch.setattr(flower_node.Node, "_coin", lambda self: fallen[self.node])
    identities = read_roster(tmp_path / "nodes" / ROSTER)
    _, arrays = arrays_of(records := RecordDict({"arrays": start()}))
    spec = TreeSpec.of(arrays)
    for number, coins in ((1, (True, True, False, False)), (1 + step, (True, False, True, False))):
        fallen.update(enumerate(coins))
        nodes = dict.fromkeys(grid.nodes, True)
        asked = Invitation(number, content_hash(records), describe_form(spec), records, nodes, "train")
        plan, log = settings.plan(spec, tmp_path), RoundLog()
        result = run_round(grid, plan, asked, identities=identities, deadlines=QUICK, log=log)
        assert result.survivors == 4
        assert result.sums["scalars"][0] == pytest.approx(2.0, abs=1.3)


def test_the_masked_input_is_recorded_by_the_protocol_itself(tmp_path):
    captured(tmp_path, rounds(4))
    for folder in sorted((tmp_path / "nodes").glob("node-*")):
        records = secagg.Records(folder, data_set="masked_input")
        with pytest.raises(secagg.RecordError, match="not above round 1"):
            records.claim(task="test", round=1)


def test_two_processes_with_the_same_memory_give_one_answer(tmp_path):
    """A server that sends two sets of survivors to one node at once would get both shares of a client."""
    settings, answers = rounds(4, adversary="malicious"), []
    grid = network(tmp_path, settings)

    def twice(stage, node, message):
        if stage == "consistency" and node == 1001:
            state = copy.deepcopy(dict(grid.contexts[node].state))
            answers.append(grid.ask(Message(content(message), dst_node_id=node, message_type="train")))
            grid.contexts[node].state = RecordDict(state)
        return message

    grid.down = twice
    run(tmp_path, settings, grid)
    assert answers[0].has_content()
    [second] = [reply for stage, node, reply in grid.seen if (stage, node) == ("consistency", 1001)]
    assert "record refused" in reason(second)


def test_a_restarted_node_answers_no_used_round_and_joins_the_next(tmp_path):
    settings = rounds(4)
    grid, messages, _ = captured(tmp_path, settings)
    grid.restart(1001)
    assert "record refused" in reason(ask(grid, 1001, messages["advertise"]))
    assert "joins the next round" in reason(ask(grid, 1001, messages["unmask"]))
    grid.down = None
    run(tmp_path, settings, grid)
    assert lines(tmp_path)[-1]["survivors"] == 4


def test_a_late_message_of_an_old_round_does_not_end_the_present_one(tmp_path):
    settings, old = rounds(4), {}
    grid = network(tmp_path, settings)

    def late(stage, node, message):
        number = message.content[HEADER]["round"]
        if number == 1 and node == 1001:
            old[stage] = content(message)
        if number == 2 and node == 1001 and stage == "masked_input":
            for records in old.values():
                reason(ask(grid, node, records))
        return message

    grid.down = late
    run(tmp_path, settings, grid, count=2)
    assert [line["survivors"] for line in lines(tmp_path)] == [4, 4]


def test_nothing_of_a_round_stays_in_a_nodes_memory(tmp_path):
    settings = rounds(4)
    grid = network(tmp_path, settings)
    grid.down = silent(1002, at="unmask")
    run(tmp_path, settings, grid)
    assert dict(grid.contexts[1001].state[HEADER]) == {}


def test_the_app_does_not_see_the_rounds_secrets(tmp_path):
    seen = []

    def body(message, context):
        seen.append((set(context.state), set(message.content)))
        return train(message, context)

    settings = rounds(4)
    run(tmp_path, settings, network(tmp_path, settings, body=body))
    assert seen == [(set(), {"arrays", "config"})] * 4


def test_an_input_never_stands_in_the_state_between_stages(tmp_path):
    _, _, states = captured(tmp_path, rounds(4, adversary="malicious"))
    moved = np.full(9, 1.0, np.float32).tobytes()[:16]
    kept = b"".join(value for value in states["unmask"][HEADER].values() if isinstance(value, bytes))
    assert len(kept) > 100
    assert moved not in kept


def test_a_node_with_an_identity_outside_the_roster_is_kept_out(tmp_path, caplog):
    """It runs bent code: it trusts the right roster, claims node 0's place first, and signs with its own key."""
    settings = rounds(4, adversary="malicious")
    folders = make_folders(tmp_path / "nodes", 4)
    stranger = make_folders(tmp_path / "strangers", 4)[0]
    grid = LoopbackGrid([app_of(settings) for _ in range(5)], [stranger, *folders])
    import fedavg.flower.mod as mod
    from fedavg.flower.keys import NodeIdentity, read_identity, read_roster

    def bent(folder):
        honest = read_identity(folder)
        if folder == stranger:
            return NodeIdentity(0, honest.identity, Lying(read_roster(folders[0] / "roster.json"), honest))
        return honest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mod, "read_identity", bent)
        run(tmp_path, settings, grid)
    assert "the signature of client 0 does not verify" in caplog.text
    assert lines(tmp_path)[0]["survivors"] == 4


class Lying(dict):
    """A roster that names the stranger to its own checks, and has the hash of the trusted one."""

    def __init__(self, roster, identity):
        super().__init__({**roster, 0: identity.identity.public})
        self.hash = roster.hash


def test_a_node_that_claims_to_be_another_puts_nothing_on_its_record(tmp_path):
    """Recorded under the name it gives, its message would make the other's own look like a second one."""
    settings, path = rounds(10, adversary="malicious"), tmp_path / "transcript.jsonl"

    def claim(stage, node, reply):
        if (stage, node) == ("advertise", 1001):
            reply.content[HEADER] = ConfigRecord({**reply.content[HEADER], "node": 1})
        return reply

    run(tmp_path, settings, network(tmp_path, settings, up=claim), transcript=path)
    assert lines(tmp_path)[0]["survivors"] == 9
    [problem] = audit_transcript(read_transcript(path)).problems
    assert "from -1 at 'advertise'" in problem


def test_a_node_that_lies_about_a_share_is_named_and_costs_nothing(tmp_path):
    settings = rounds(6, adversary="malicious")
    grid = network(tmp_path, settings)

    def lie(stage, node, reply):
        return flipped(reply, -3) if stage == "unmask" and node == 1003 else reply

    grid.up = lie
    run(tmp_path, settings, grid)
    [line] = lines(tmp_path)
    assert line["survivors"] == 6
    assert [(fault["dealer"], fault["holder"]) for fault in line["faults"]] == [(None, 2)]


def test_a_bad_tag_blames_nobody(tmp_path):
    settings = rounds(6, adversary="malicious")
    grid = network(tmp_path, settings)
    grid.up = lambda stage, node, reply: (
        flipped(reply, -3) if (stage, node) == ("consistency", 1003) else reply
    )
    run(tmp_path, settings, grid)
    [line] = lines(tmp_path)
    assert (line["survivors"], line["faults"]) == (6, [])


@pytest.mark.parametrize("stage", STAGES[:4])
def test_a_full_disk_keeps_the_node_silent_and_says_so_in_one_line(tmp_path, stage, caplog):
    settings = rounds(6, adversary="malicious")
    grid = network(tmp_path, settings)
    record = tmp_path / "nodes" / "node-000" / "single-use.sqlite3"

    def fill(at, node, message):
        if at == stage and node == 1001:
            record.unlink(missing_ok=True)
            record.symlink_to("/dev/full")
        return message

    grid.down = fill
    if stage == "advertise":
        # Without one of six at the first stage, the roster is too small to be believed.
        with pytest.raises(RoundAborted):
            run(tmp_path, settings, grid)
    else:
        run(tmp_path, settings, grid)
        assert lines(tmp_path)[0]["survivors"] == (6 if stage == "consistency" else 5)
    silenced = next(reply for at, node, reply in grid.seen if (at, node) == (stage, 1001))
    assert "single-use record" in reason(silenced)
    assert "cannot be written" in caplog.text


def test_another_version_is_named_on_both_sides(tmp_path, caplog):
    settings = rounds(4)
    grid = network(tmp_path, settings)

    def newer(stage, node, message):
        if node == 1001:
            message.content[HEADER] = ConfigRecord({**message.content[HEADER], "version": 2})
        return message

    grid.down = newer
    run(tmp_path, settings, grid)
    assert lines(tmp_path)[0]["survivors"] == 3
    assert "the other side speaks version 2, this one 1" in caplog.text
    grid.down, grid.up = None, newer
    run(tmp_path, settings, grid)
    assert lines(tmp_path)[1]["survivors"] == 3


@pytest.mark.parametrize("data", [b"", b"\0", bytes(10**6)])
@pytest.mark.parametrize("stage", ["advertise", "share", "masked_input", "unmask"])
def test_short_and_long_records_are_one_line_and_a_dropout(tmp_path, stage, data, caplog):
    settings = rounds(4)
    grid = network(tmp_path, settings)

    def bend(at, node, reply):
        if (at, node) == (stage, 1001):
            reply.content[DATA] = ArrayRecord({"bytes": Array(np.frombuffer(data, np.uint8))})
        return reply

    grid.up = bend
    run(tmp_path, settings, grid)
    assert lines(tmp_path)[0]["survivors"] == (4 if stage == "unmask" else 3)
    warnings = [r.message for r in caplog.records if r.name == "fedavg.flower.server"]
    assert len(warnings) == 1
    assert "node 1001 dropped out" in warnings[0]
    assert "\n" not in warnings[0]


def test_an_array_of_more_values_than_there_is_memory_costs_its_node_only(tmp_path, caplog):
    settings = rounds(4)
    grid = network(tmp_path, settings)
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**60},)}}\n".encode()
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header

    def bend(stage, node, reply):
        if (stage, node) == ("share", 1001):
            reply.content[DATA] = ArrayRecord({"bytes": Array("uint8", (1,), "numpy.ndarray", data)})
        return reply

    grid.up = bend
    run(tmp_path, settings, grid)
    assert lines(tmp_path)[0]["survivors"] == 3
    assert "node 1001 dropped out: an array in the message is damaged" in caplog.text


def test_a_truncated_array_is_refused_by_the_node(tmp_path):
    settings = rounds(4)
    grid = network(tmp_path, settings)

    def cut(stage, node, message):
        if (stage, node) == ("masked_input", 1001):
            array = message.content["arrays"]["w"]
            cut = Array(array.dtype, array.shape, array.stype, array.data[:-5])
            message.content["arrays"] = ArrayRecord({**message.content["arrays"], "w": cut})
        return message

    grid.down = cut
    run(tmp_path, settings, grid)
    assert lines(tmp_path)[0]["survivors"] == 3
    [refused] = [reply for at, node, reply in grid.seen if (at, node) == ("masked_input", 1001)]
    assert "damaged or truncated" in reason(refused)


def test_a_reply_that_brings_anything_along_is_refused(tmp_path, caplog):
    settings = rounds(4)
    grid = network(tmp_path, settings)

    def generous(stage, node, reply):
        if node == 1001 and stage == "masked_input":
            reply.content["metrics"] = ConfigRecord({"loss": 0.5})
        return reply

    grid.up = generous
    run(tmp_path, settings, grid)
    assert "nothing else may leave a node" in caplog.text
    assert lines(tmp_path)[0]["survivors"] == 3


def test_a_failure_inside_a_node_says_nothing_of_its_words(tmp_path):
    settings = rounds(4)
    grid = network(tmp_path, settings)
    with pytest.MonkeyPatch.context() as patch:

        def broken(*_, **__):
            raise MemoryError("patient 4711 is ill")

        patch.setattr(secagg.Client, "mask", broken)
        with pytest.raises(RoundAborted):
            run(tmp_path, settings, grid)
    failed = [reason(reply) for stage, _, reply in grid.seen if stage == "masked_input"][:4]
    assert failed == ["it failed (MemoryError); the node's own log says why"] * 4


def test_a_clock_that_is_hours_ahead_is_named_in_the_nodes_log(tmp_path, caplog):
    settings = rounds(4)
    grid = network(tmp_path, settings)
    ask, clock = grid.ask, time.time

    def by_its_clock(message):
        with pytest.MonkeyPatch.context() as patch:
            if message.metadata.dst_node_id == 1001:
                patch.setattr(time, "time", lambda: clock() + 86_400)
            return ask(message)

    grid.ask = by_its_clock
    run(tmp_path, settings, grid)
    assert "clocks of node and server differ" in caplog.text
    assert lines(tmp_path)[0]["survivors"] == 3


def test_a_node_without_a_folder_says_how_to_give_it_one(tmp_path):
    settings = rounds(4)
    grid = network(tmp_path, settings)
    grid.contexts[1001].node_config = {}
    run(tmp_path, settings, grid)
    [first] = [reply for stage, node, reply in grid.seen if node == 1001]
    assert "--node-config" in reason(first)


def test_a_nodes_own_settings_count_before_the_apps(tmp_path, caplog):
    settings = rounds(4)
    grid = network(tmp_path, settings)
    rounds(4, rounds=50).write(tmp_path / "nodes" / "node-000" / "rounds.json")
    run(tmp_path, settings, grid)
    assert lines(tmp_path)[0]["survivors"] == 3
    assert "node 1001 dropped out: the offer differs" in caplog.text


def test_an_identity_that_others_can_read_is_not_made(tmp_path):
    [folder, *_] = make_folders(tmp_path, 2)
    assert os.stat(folder / "identity.key").st_mode & 0o077 == 0
    assert json.loads((folder / "roster.json").read_text()).keys() == {"0", "1"}
