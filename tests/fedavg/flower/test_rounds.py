"""Private rounds over Flower's messages, with the network in memory."""

import asyncio
import dataclasses
import itertools
import json
import os
import signal
import sqlite3
import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("flwr")
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx, Krum

import dp
import secagg
from fedavg.auditing import audit_transcript, read_transcript
from fedavg.errors import ParameterError, RoundAborted
from fedavg.flower import Deadlines, NodeSetupError, PrivateStrategy, private_mod
from fedavg.flower import node as flower_node
from fedavg.flower.wire import HEADER
from tests.fedavg.flower.network import PRIVACY, QUICK, LoopbackGrid, network, rounds, silent, start, train

LOUD = dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0)


def run(tmp_path, settings, grid, *, strategy=None, count=1, **options):
    if settings.secure.adversary == "malicious":
        options["roster"] = tmp_path / "nodes" / "roster.json"
    strategy = strategy or FedAvg(fraction_evaluate=0.0, min_available_nodes=2)
    private = PrivateStrategy(strategy, settings, folder=tmp_path / "server", deadlines=QUICK, **options)
    return private, private.start(grid, start(), count)


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "server" / "rounds.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("adversary", ["semi_honest", "malicious"])
def test_the_average_is_the_nodes_average(tmp_path, adversary):
    settings = rounds(4, adversary=adversary)
    private, result = run(tmp_path, settings, network(tmp_path, settings), count=2)
    for array in result.arrays.values():
        # Two rounds of a mean of 1, 2, 3, 4.
        assert array.numpy() == pytest.approx(5.0, abs=1.8)
    assert result.train_metrics_clientapp[2]["loss"] == pytest.approx(2.5, abs=2.4)
    assert [line["survivors"] for line in lines(tmp_path)] == [4, 4]
    assert private.statement().server.epsilon > 0


@pytest.mark.parametrize("adversary", ["semi_honest", "malicious"])
def test_what_the_server_received_can_be_recorded_and_audited(tmp_path, adversary):
    settings = rounds(4, adversary=adversary)
    path = tmp_path / "transcript.jsonl"
    run(tmp_path, settings, network(tmp_path, settings), count=2, transcript=path)
    audit = audit_transcript(read_transcript(path))
    assert not any(finding.flagged for finding in audit.findings), audit.findings


@pytest.mark.parametrize("strategy", [FedAdam, FedProx])
def test_the_family_of_fedavg_runs_unchanged(tmp_path, strategy):
    settings = rounds(4)
    options = {"proximal_mu": 0.1} if strategy is FedProx else {}
    _, result = run(tmp_path, settings, network(tmp_path, settings), strategy=strategy(**options))
    assert all(np.isfinite(array.numpy()).all() for array in result.arrays.values())
    assert all((array.numpy() > 0).all() for array in result.arrays.values())


def test_a_strategy_that_needs_single_updates_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="single updates"):
        PrivateStrategy(Krum(), rounds(4), folder=tmp_path)


@pytest.mark.parametrize("strategy", [None, FedAvg])
def test_what_is_no_strategy_is_refused(strategy, tmp_path):
    with pytest.raises(
        ParameterError, match=r"strategy is .*; give one of Flower's that is made, such as FedAvg\(\)"
    ):
        PrivateStrategy(strategy, rounds(4), folder=tmp_path)


def test_the_path_of_settings_is_no_settings_for_the_mod(tmp_path):
    with pytest.raises(
        ParameterError, match=r"rounds is 'rounds.json'; give a PrivateRounds, such as PrivateRounds.read"
    ):
        private_mod("rounds.json")


def test_a_roster_is_needed_against_a_malicious_server_and_refused_otherwise(tmp_path):
    with pytest.raises(NodeSetupError, match="missing or damaged"):
        PrivateStrategy(FedAvg(), rounds(4, adversary="malicious"), folder=tmp_path)
    with pytest.raises(ParameterError, match="checks no identities"):
        PrivateStrategy(FedAvg(), rounds(4), folder=tmp_path, roster=tmp_path / "roster.json")


def test_a_roster_of_more_nodes_than_planned_is_refused_by_both_sides(tmp_path):
    """From it the server could choose a cohort: one node among those that collude with it."""
    settings = rounds(6, adversary="malicious")
    grid = network(tmp_path, settings)
    fewer = rounds(4, adversary="malicious")
    with pytest.raises(ParameterError, match="the roster holds 6 nodes and 4 are planned"):
        run(tmp_path, fewer, grid)
    fewer.write(tmp_path / "nodes" / "node-000" / "rounds.json")
    with pytest.raises(RoundAborted, match="5 advertised clients remain"):
        run(tmp_path, settings, grid)
    assert "the roster holds 6 nodes" in grid.seen[0][2].error.reason


def test_nothing_but_protocol_bytes_leaves_a_node(tmp_path):
    settings = rounds(4)
    grid = network(tmp_path, settings)
    run(tmp_path, settings, grid)
    assert grid.seen
    for _, _, reply in grid.seen:
        assert set(reply.content) == {"veilsum", "veilsum.data"}
        assert set(reply.content["veilsum"]) == {"version", "stage", "round", "node"}


@pytest.mark.parametrize("stage", ["advertise", "share", "masked_input", "consistency", "unmask"])
def test_two_silent_nodes_cost_themselves_at_every_stage(tmp_path, stage):
    settings = rounds(8, adversary="malicious")
    grid = network(tmp_path, settings)
    grid.down = silent(1001, 1002, at=stage)
    if stage == "advertise":
        # Fewer than nine in ten of the roster: a server that shows a small roster is not believed.
        with pytest.raises(RoundAborted, match="6 advertised clients remain and 8 are needed"):
            run(tmp_path, settings, grid)
        assert lines(tmp_path)[0]["charged"] is False
    else:
        run(tmp_path, settings, grid)
        assert lines(tmp_path)[0]["survivors"] == (8 if stage in ("consistency", "unmask") else 6)
    grid.down = None
    for node in (1001, 1002):
        grid.restart(node)
    run(tmp_path, settings, grid)
    assert lines(tmp_path)[-1]["survivors"] == 8


def test_too_many_silent_nodes_end_the_round_and_the_ledger_takes_it_back(tmp_path):
    settings = rounds(4)
    grid = network(tmp_path, settings, down=silent(1001, 1002, at="masked_input"))
    with pytest.raises(RoundAborted, match="was refunded"):
        run(tmp_path, settings, grid)
    assert [line["charged"] for line in lines(tmp_path)] == [False] * 3
    assert lines(tmp_path)[-1]["epsilon"]["server"] == 0


def test_an_aborted_round_is_tried_again_under_a_new_number(tmp_path):
    settings = rounds(4)
    grid = network(tmp_path, settings)

    def away_in_round_1(stage, node, message):
        away = node in (1001, 1002) and stage == "share" and message.content["veilsum"]["round"] == 1
        return None if away else message

    grid.down = away_in_round_1
    run(tmp_path, settings, grid, count=1)
    assert [(line["round"], line.get("survivors")) for line in lines(tmp_path)] == [(1, None), (2, 4)]


def test_a_reply_that_never_comes_whole_costs_its_node_only(tmp_path):
    """Flower's Grid blocks on a reply whose sender died while it sent it; the others are not to wait for it."""
    settings, over = rounds(4), threading.Event()
    grid = network(tmp_path, settings)
    pull, stuck = grid.pull_messages, set()

    def push(messages):
        identifiers = LoopbackGrid.push_messages(grid, messages)
        stuck.update(i for i, m in zip(identifiers, messages, strict=True) if m.metadata.dst_node_id == 1002)
        return identifiers

    def blocking(identifiers):
        if stuck.intersection(identifiers):
            over.wait(60)
        return pull(identifiers)

    grid.push_messages, grid.pull_messages = push, blocking
    try:
        run(tmp_path, settings, grid)
    finally:
        over.set()
    assert lines(tmp_path)[0]["survivors"] == 3


def test_a_transport_that_fails_now_and_then_costs_nothing(tmp_path):
    settings, failures = rounds(4), itertools.count()
    grid = network(tmp_path, settings)
    pull = grid.pull_messages

    def flaky(identifiers):
        if next(failures) % 2:
            raise OSError("503 Service Unavailable")
        return pull(identifiers)

    grid.pull_messages = flaky
    private = PrivateStrategy(
        FedAvg(fraction_evaluate=0.0),
        settings,
        folder=tmp_path / "server",
        deadlines=Deadlines(stage=20.0, masked_input=20.0, pause=0.0),
    )
    private.start(grid, start(), 1)
    assert lines(tmp_path)[0]["survivors"] == 4


def test_a_round_lost_while_unmasking_stays_charged(tmp_path):
    settings = rounds(4)
    grid = network(tmp_path, settings, down=silent(1001, 1002, at="unmask"))
    with pytest.raises(RoundAborted, match="stays charged"):
        run(tmp_path, settings, grid)
    assert lines(tmp_path)[0]["charged"] is True
    assert lines(tmp_path)[0]["epsilon"]["server"] > 0


def test_a_round_whose_unmasking_answers_come_late_stays_charged(tmp_path):
    """The nodes answered: the server holds what unmasks, if only after its own deadline."""
    settings = rounds(4)
    grid = network(tmp_path, settings)
    grid.up = lambda stage, _, reply: None if stage == "unmask" else reply
    with pytest.raises(RoundAborted, match="stays charged"):
        run(tmp_path, settings, grid)
    assert all(line["charged"] for line in lines(tmp_path))


def test_against_a_server_that_is_not_trusted_a_masked_input_is_not_refunded(tmp_path):
    """Each node counts it, so that the ledger must, too."""
    settings = rounds(4, adversary="malicious")
    grid = network(tmp_path, settings, down=silent(1001, 1002, at="masked_input"))
    with pytest.raises(RoundAborted, match="stays charged"):
        run(tmp_path, settings, grid)


@pytest.mark.parametrize("coin", [1.0, 0.999])
def test_a_node_includes_its_data_in_no_more_rounds_than_were_planned(tmp_path, coin):
    """A lying server asks for as many as it likes; the promise, without a cap, is for those planned."""
    settings = rounds(4, adversary="malicious", rounds=2, coin=coin)
    run(tmp_path, settings, network(tmp_path, settings), count=3)
    *planned, beyond = (line["released"]["contributed"] for line in lines(tmp_path))
    assert planned == pytest.approx([4, 4], abs=1.3)
    assert beyond == pytest.approx(0, abs=1.3)
    assert [line["survivors"] for line in lines(tmp_path)] == [4, 4, 4]


@pytest.mark.parametrize("luck", [b"\0" * 8, b"\xff" * 8])
def test_a_nodes_records_are_as_many_whichever_way_its_coin_fell(tmp_path, luck, monkeypatch):
    """What it takes to write them is time that the server sees."""
    settings = rounds(4, coin=0.5, privacy=dataclasses.replace(PRIVACY, max_participations=2))
    monkeypatch.setattr(
        flower_node, "os", SimpleNamespace(urandom=lambda size: luck if size == 8 else os.urandom(size))
    )
    calls, connect = [], sqlite3.connect
    grid = network(tmp_path, settings)
    grid.down = lambda stage, to, message: calls.append(f"{stage} {to}") or message
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *a, **k: calls.append("record") or connect(*a, **k))
        run(tmp_path, settings, grid)
    begun, answered = calls.index("masked_input 1001"), calls.index("masked_input 1002")
    assert calls[begun:answered].count("record") == 5


def test_three_aborts_in_a_row_end_the_run(tmp_path):
    settings = rounds(4)
    grid = network(tmp_path, settings, down=silent(1001, 1002, at="share"))
    with pytest.raises(RoundAborted, match="remain"):
        run(tmp_path, settings, grid, count=5)
    assert len(lines(tmp_path)) == 3


def test_the_budget_ends_the_run(tmp_path):
    privacy = dp.Privacy(noise_multiplier=1.0, server_epsilon=4.0, delta=1e-3, l2_clip_norm=1.0)
    settings = rounds(4, privacy=privacy, rounds=1)
    private, _ = run(tmp_path, settings, network(tmp_path, settings), count=4)
    spent = private.statement().server.epsilon
    assert 0 < spent <= 4.0
    assert len(lines(tmp_path)) < 4


def test_a_ledger_is_not_continued_on_another_graph(tmp_path):
    """Its statement would leave out what the rounds before rest on."""
    settings = rounds(4)
    run(tmp_path, settings, network(tmp_path, settings))
    other = dataclasses.replace(settings, secure=dataclasses.replace(settings.secure, graph="complete"))
    with pytest.raises(dp.LedgerError, match="another run"):
        run(tmp_path, other, network(tmp_path / "others", other))


def test_on_a_shared_ledger_the_statement_claims_the_budget_of_all_runs(tmp_path):
    (tmp_path / "server").mkdir()
    budget = dp.SharedBudget(delta=1e-3, readers_epsilon=20.0, server_epsilon=30.0)
    dp.Ledger.share(tmp_path / "server" / "ledger.sqlite", budget=budget)
    settings = rounds(4, privacy=dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=10.0))
    private, _ = run(tmp_path, settings, network(tmp_path, settings))
    said = private.statement()
    assert (said.readers.epsilon, said.server.epsilon) == (20.0, 30.0)
    assert "shared by 1 run" in said.server.text
    assert "not chosen by looking" not in said.server.text
    written = json.loads((tmp_path / "server" / "statement.json").read_text())
    assert written["server"]["epsilon"] == 30.0


def test_a_node_past_its_cap_pads(tmp_path):
    privacy = dataclasses.replace(PRIVACY, max_participations=1)
    settings = rounds(4, privacy=privacy)
    run(tmp_path, settings, network(tmp_path, settings), count=2)
    first, second = (line["released"]["contributed"] for line in lines(tmp_path))
    assert first == pytest.approx(4, abs=1.2)
    assert second == pytest.approx(0, abs=1.2)
    assert [line["survivors"] for line in lines(tmp_path)] == [4, 4]


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_a_node_whose_app_fails_sends_zeros_and_says_nothing(tmp_path, caplog, kind):
    def body(message, context):
        if context.node_config["partition-id"] == 0:
            raise kind("patient 4711 is ill")
        return Message(message.content, reply_to=message)

    settings = rounds(4, metrics={})
    grid = network(tmp_path, settings, body=body)
    run(tmp_path, settings, grid)
    assert lines(tmp_path)[0]["survivors"] == 4
    assert lines(tmp_path)[0]["released"]["failed"] == pytest.approx(1, abs=0.9)
    assert not any("4711" in str(reply) for _, _, reply in grid.seen)
    assert "4711" not in "".join(line.message for line in caplog.records if line.name.endswith("server"))


def test_ctrl_c_while_an_app_trains_ends_the_nodes_process(tmp_path):
    def body(message, context):
        signal.raise_signal(signal.SIGINT)
        return Message(message.content, reply_to=message)

    settings = rounds(4, metrics={})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, settings, network(tmp_path, settings, body=body))


@pytest.mark.parametrize("failing", [1, 4])
def test_the_server_is_told_where_most_apps_fail(failing, tmp_path, caplog):
    def body(message, context):
        failed = context.node_config["partition-id"] < failing
        return Message(RecordDict() if failed else message.content, reply_to=message)

    settings = rounds(4, metrics={})
    run(tmp_path, settings, network(tmp_path, settings, body=body))
    told = "of 4 nodes failed and sent zeros; their own logs say why"
    assert (told in caplog.text) == (failing == 4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_ends_the_process_is_no_failure_of_the_app(number, tmp_path, caplog):
    """Flower's handlers close the way out and raise SystemExit wherever the app is: no zeros can be sent any more."""

    def body(message, context):
        signal.raise_signal(number)
        return Message(message.content, reply_to=message)

    def leave(*_):
        signal.signal(number, before)
        raise SystemExit(0)

    settings = rounds(4, metrics={}, privacy=dataclasses.replace(PRIVACY, max_participations=1))
    grid = network(tmp_path, settings, body=body)
    before = signal.signal(number, leave)
    try:
        with pytest.raises(SystemExit):
            run(tmp_path, settings, grid)
        assert signal.getsignal(number) is before  # What Flower's handler set stays.
    finally:
        signal.signal(number, before)
    assert "sends zeros" not in caplog.text
    node = grid.nodes[0]
    assert dict(grid.contexts[node].state[HEADER]) == {}
    record = secagg.Records(tmp_path / "nodes" / "node-000", data_set="contribution to test")
    assert record.participations == 0


def test_evaluation_is_refused_by_nodes_and_left_out_by_the_server(tmp_path):
    settings = rounds(4)
    grid = network(tmp_path, settings)
    _, result = run(tmp_path, settings, grid, strategy=FedAvg(fraction_evaluate=1.0))
    assert not result.evaluate_metrics_clientapp
    reply = grid.ask(Message(RecordDict({"arrays": start()}), dst_node_id=1001, message_type="evaluate"))
    assert reply.has_error()
    assert "private training rounds only" in reply.error.reason


def test_nodes_with_other_settings_are_named_the_difference(tmp_path, caplog):
    settings = rounds(4)
    grid = network(tmp_path, settings)
    other = rounds(4, privacy=dp.Privacy(noise_multiplier=0.06, delta=1e-3, l2_clip_norm=10.0))
    with pytest.raises(RoundAborted):
        run(tmp_path, other, grid)
    assert "differs from this client's own parameters in: application" in caplog.text
    assert lines(tmp_path)[0]["charged"] is False


def test_a_self_sampled_round_is_amplified_against_the_server(tmp_path):
    everybody, by_coin = rounds(4, privacy=LOUD), rounds(4, privacy=LOUD, coin=0.25, task="coin")
    one, _ = run(tmp_path, everybody, network(tmp_path, everybody))
    two, _ = run(tmp_path / "coin", by_coin, network(tmp_path / "coin", by_coin))
    assert two.statement().server.epsilon < one.statement().server.epsilon


def test_a_nodes_own_coin_decides(tmp_path):
    """All six coins of probability 1/10 fall yes in one of a million runs; the count's noise has deviation 0.15."""
    settings = rounds(6, coin=0.1)
    run(tmp_path, settings, network(tmp_path, settings))
    [line] = lines(tmp_path)
    assert line["survivors"] == 6
    assert line["released"]["contributed"] < 5.0


def test_a_node_that_was_not_drawn_pads(tmp_path):
    """Of eight invited nodes, seven or more are drawn at rate 1/8 in one of 30,000 runs."""
    settings = rounds(8, nodes_per_round=1.0)
    run(tmp_path, settings, network(tmp_path, settings))
    [line] = lines(tmp_path)
    assert line["survivors"] == 8
    assert line["released"]["contributed"] < 6.2


def test_a_drawn_cohort_is_padded_and_its_draw_stays_with_the_server(tmp_path):
    settings = rounds(8, nodes_per_round=2.0)
    grid = network(tmp_path, settings)
    asked = set()
    grid.down = lambda stage, node, message: asked.add(node) or message
    run(tmp_path, settings, grid)
    assert len(asked) == settings.sampler.cohort_size
    text = json.dumps(lines(tmp_path)[0])
    assert "contributes" not in text
    assert not any(str(node) in text for node in asked)


def test_the_released_model_keeps_names_dtypes_and_slashes(tmp_path):
    settings = rounds(4, metrics={})
    grid = network(tmp_path, settings, body=lambda message, _: Message(message.content, reply_to=message))
    arrays = ArrayRecord(
        {"layer/w": Array(np.ones((2, 2), np.float32)), "a.b": Array(np.ones(3, np.float64))}
    )
    private = PrivateStrategy(FedAvg(), settings, folder=tmp_path / "server", deadlines=QUICK)
    result = private.start(grid, arrays, 1)
    assert list(result.arrays) == ["layer/w", "a.b"]
    assert [array.numpy().dtype for array in result.arrays.values()] == [np.float32, np.float64]
    assert result.arrays["layer/w"].numpy() == pytest.approx(1, abs=1.2)


def test_integer_arrays_are_refused_before_anything_is_charged(tmp_path):
    from fedavg.errors import TreeError

    settings = rounds(4)
    grid = network(tmp_path, settings)
    arrays = ArrayRecord({"num_batches_tracked": Array(np.array(3))})
    with pytest.raises(TreeError, match="floating-point"):
        PrivateStrategy(FedAvg(), settings, folder=tmp_path / "server").start(grid, arrays, 1)


def test_nodes_sent_different_models_end_the_round(tmp_path):
    settings = rounds(4)
    grid = network(tmp_path, settings)

    def bend(stage, node, message):
        if stage == "masked_input" and node == 1001:
            message.content["config"] = ConfigRecord({"server-round": 99})
        return message

    grid.down = bend
    run(tmp_path, settings, grid)
    assert lines(tmp_path)[0]["survivors"] == 3


def test_nodes_in_one_process_share_no_generator(tmp_path):
    """With a known seed, one node that draws more often than before would change what all others draw."""
    settings, drawn = rounds(4), []

    def drawing(message, context):
        drawn.append(float(np.random.random()))
        return train(message, context)

    for name in ("one", "two"):
        np.random.seed(0)
        run(tmp_path / name, settings, network(tmp_path / name, settings, body=drawing))
        assert np.random.random() == np.random.RandomState(0).random_sample()
    assert len(drawn) == len(set(drawn)) == 8
