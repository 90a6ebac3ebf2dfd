"""Rounds whose clients are played by workers, here in this process: what crosses, and what becomes of a lost worker."""

import json
import logging
import pickle
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import dp
import fedavg
import secagg
from fedavg import Federation, RunEntropy, SecureAggregation
from fedavg.backends.crew import Crew, WorkerLost
from fedavg.backends.rounds import Remote
from fedavg.backends.site import Site, serve
from fedavg.errors import BackendError, RoundAborted
from secagg.ring import pack, word_dtype
from tests.fedavg.backends.steps import (
    PRIVACY,
    SECURE,
    LocalWithout,
    assert_same,
    clients,
    failing,
    run,
    settings,
    step,
)

WORKERS = 3


class Inside:
    """A worker in this process; everything that would cross a wire is pickled. It dies when it is called `dies` at."""

    def __init__(self, name, wire, dies, log):
        self.name, self.wire, self.dies = name, wire, dies
        self.site = Site(log)
        self.stopped = False

    def send(self, method, *arguments):
        stage = stage_of(method, arguments)
        self.wire.calls.append((self.name, method, stage))
        if self.stopped or self.dies(self.name, stage):
            raise WorkerLost("it ended")
        sent = pickle.dumps(arguments)
        reply = serve(partial(getattr(self.site, method), *pickle.loads(sent)))
        self.reply = pickle.dumps(reply)

    def receive(self):
        self.wire.received.append(self.reply)
        return pickle.loads(self.reply)

    def stop(self):
        self.stopped = True


def stage_of(method, arguments):
    """The name of the call; for a client's answers that of the stage."""
    if method == "mask":
        return "masked_input"
    if method != "answer":
        return method
    kind = secagg.messages.kind_of(arguments[0][0][1]).name
    return {"OFFER": "advertise", "ROSTER": "share", "SURVIVORS": "unmask", "TAGS": "unmask"}.get(kind, kind)


class Wire:
    """Starts workers, remembers every call and all that came back."""

    def __init__(self, workers=WORKERS, dies=lambda name, stage: False, log=None):
        self.workers, self.dies, self.log = workers, dies, log
        self.calls, self.received, self.hired, self.workers_made = [], [], 0, []

    def shards(self, gpus, there):
        return self.workers

    def hire(self, count, gpus, there):
        made = []
        for _ in range(count):
            self.hired += 1
            log = None if self.log is None else self.log / f"{self.hired}.jsonl"
            made.append(Inside(f"w{self.hired}", self, self.dies, log))
        self.workers_made += made
        return made

    def share(self, value):
        return value


def remote(**options):
    wire = Wire(**options)
    return Remote(Crew(wire)), wire


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"simulated_dropout": 0.3, "rounds": 2},
        {"secure": replace(SECURE, adversary="malicious"), "simulated_dropout": 0.2},
        {"secure": replace(SECURE, excess_noise="remove"), "simulated_dropout": 0.2},
        {"secure": replace(SECURE, compression="rotation")},
        {"secure": replace(SECURE, masked=False), "simulated_dropout": 0.3},
        {"secure": replace(SECURE, masked=False, excess_noise="remove"), "simulated_dropout": 0.3},
        {"secure": SecureAggregation.ideal(one_draw=True, dropout=0.45), "simulated_dropout": 0.3},
        {"privacy": replace(PRIVACY, clip_quantile=0.5), "cohort_size": 30, "rounds": 2},
        {"privacy": replace(PRIVACY, mechanism="central_gaussian", trusted_server=True)},
        {"train_step": failing},
    ],
    ids=[
        "plain",
        "dropouts",
        "malicious",
        "excess removed",
        "compressed",
        "ideal",
        "ideal, excess removed",
        "one draw",
        "adaptive clip",
        "central",
        "failing clients",
    ],
)
def test_the_sums_are_those_of_one_process_bit_for_bit(changes):
    backend, wire = remote()
    assert_same(run(backend, **changes), run(None, **changes))
    assert wire.hired == WORKERS


def test_more_workers_than_clients_is_no_matter():
    backend, wire = remote(workers=100)
    assert_same(run(backend, rounds=1), run(None, rounds=1))
    assert wire.hired == 60


def dies_once(name, at):
    """A worker that dies at a stage of its first round."""
    return lambda worker, stage: worker == name and stage == at


@pytest.mark.parametrize("refuser", range(WORKERS))
def test_a_share_that_unmasks_keeps_its_round_charged_whichever_worker_refuses_then(refuser, monkeypatch):
    """What the others answered is there, whether or not it is of any use."""
    answer = Site.answer

    def refusing(site, messages):
        answered = answer(site, messages)
        if stage_of("answer", (messages,)) == "unmask" and messages[0][0] % WORKERS == refuser:
            raise secagg.UnexpectedMessage("out of turn")
        return answered

    monkeypatch.setattr(Site, "answer", refusing)
    shown = []
    federation = Federation(
        step,
        clients(),
        **settings(cohort_size=60, record=lambda stage, sender, _: shown.append((stage, sender))),
        backend=remote()[0],
    )
    with pytest.raises(RoundAborted, match="stays charged") as caught:
        federation.run_round()
    assert caught.value.charged
    assert federation.ledger.charged == 1
    assert {sender % WORKERS for stage, sender in shown if stage == "unmask"} == {0, 1, 2} - {refuser}


@pytest.mark.parametrize("stage", ["open", "advertise", "share", "masked_input", "unmask"])
def test_a_lost_worker_costs_its_clients_from_that_stage_on_and_nothing_else(stage, caplog):
    """Worker w2 holds the clients at positions 1, 4, 7, ...: the round is that in which these fall silent then."""
    backend, _ = remote(dies=dies_once("w2", stage))
    with caplog.at_level(logging.WARNING, "fedavg.operator"):
        ours = run(backend, rounds=1)
    silent = LocalWithout(lambda client: client % WORKERS == 1, "advertise" if stage == "open" else stage)
    theirs = run(silent, rounds=1)
    assert_same(ours, theirs)
    assert (ours.rounds[0].survivors < ours.rounds[0].cohort) == (stage != "unmask")
    assert "w2 was lost with 1 shards: it ended" in caplog.text


def test_a_worker_lost_while_its_sum_is_under_way_is_lost_at_masked_input():
    class Late(Inside):
        def receive(self):
            if self.name == "w2" and self.wire.calls[-1][2] == "masked_input":
                raise WorkerLost("it ended")
            return super().receive()

    backend, wire = remote()
    wire.hire = lambda count, gpus, there: [Late(f"w{i + 1}", wire, wire.dies, None) for i in range(count)]
    silent = LocalWithout(lambda client: client % WORKERS == 1, "masked_input")
    assert_same(run(backend, rounds=1), run(silent, rounds=1))


def test_the_next_round_has_a_new_worker_with_the_same_clients():
    backend, wire = remote(dies=dies_once("w2", "share"))
    ours = run(backend, rounds=3)
    whole = run(None, rounds=3)
    assert wire.hired == WORKERS + 1
    assert [report.survivors for report in ours.rounds[1:]] == [report.cohort for report in whole.rounds[1:]]
    assert [name for name, method, _ in wire.calls if method == "hold"] == ["w1", "w2", "w3", "w4"]


def test_where_nobody_can_be_hired_others_take_the_clients():
    backend, wire = remote(dies=dies_once("w2", "share"))
    hire = wire.hire
    wire.hire = lambda count, gpus, there: hire(count, step, there) if wire.hired < WORKERS else []
    ours = run(backend, rounds=2)
    assert ours.rounds[1].survivors == ours.rounds[1].cohort
    assert [name for name, method, _ in wire.calls if method == "hold"] == ["w1", "w2", "w3", "w1"]


@pytest.mark.parametrize(("stage", "charged"), [("share", False), ("masked_input", False), ("unmask", True)])
def test_too_many_lost_workers_end_the_round_and_the_ledger_follows_its_rule(stage, charged):
    """Two of three workers die. Once a share that unmasks was answered (by w1), the round stays charged."""
    backend, _ = remote(dies=lambda name, at: name in ("w2", "w3") and at == stage)
    secure = replace(SECURE, graph="complete")
    federation = Federation(step, clients(), **settings(secure=secure, rounds=2), backend=backend)
    with pytest.raises(RoundAborted) as aborted:
        federation.run_round()
    assert aborted.value.charged == charged
    assert federation.ledger.charged == charged
    assert federation.run_round().survivors == federation.sampler.cohort_size


def test_no_worker_at_all_is_said_before_anything_is_charged():
    backend, wire = remote()
    wire.hire = lambda count, gpus, there: []
    with pytest.raises(BackendError, match="no worker"):
        Federation(step, clients(), **settings(), backend=backend)


@pytest.mark.parametrize("call", ["employ", "hold"])
def test_workers_that_cannot_take_what_they_are_sent_are_said_before_anything_is_charged(call, tmp_path):
    backend, _ = remote(dies=lambda name, at: at == call)
    with pytest.raises(BackendError, match="no worker is left: it ended"):
        Federation(step, clients(), **settings(folder=tmp_path), backend=backend)
    assert Federation(step, clients(), **settings(folder=tmp_path, resume=True)).ledger.charged == 0


def test_data_travel_once_and_each_worker_holds_its_own_clients_only():
    backend, wire = remote()
    backend.prepare((step, "layout"), data := fedavg.ClientData.of(clients()))
    parts = {worker.name: worker.site._shards for worker in backend._crew._workers}
    for index, shards in enumerate(parts.values()):
        (part,) = shards.values()
        assert list(part.client_ids) == list(range(index, 60, WORKERS))
        held = pickle.dumps(part)
        assert np.full(4, float(index)).tobytes() in held
        assert np.full(4, float(index + 1)).tobytes() not in held
    backend.prepare((step, "layout"), data)
    assert [method for _, method, _ in wire.calls] == ["employ"] * WORKERS + ["hold"] * WORKERS


def values_of(federation):
    """What each client of the population had in the first round, before and after its noise, in every form."""
    process = federation._process
    state = process.initialize()
    work = fedavg.client_work.ClientWork(
        step, process.layout, federation.clients, state.weights, None, dict.fromkeys(range(60), True), print
    )
    for client in range(60):
        values = work(client)
        noised = process.plan.encode(values, RunEntropy.seeded(5).keystream("noise", 1, client))
        flat = np.concatenate([values["update"], values["scalars"]])
        yield (
            [flat.astype(kind).tobytes() for kind in ("<f4", "<f8", ">f4", ">f8")]
            + [noised.astype(kind).tobytes() for kind in ("<u4", "<u8", ">u4", ">u8")]
            + [bytes(pack(noised.astype(word_dtype(process.plan.modulus_bits)), process.plan.modulus_bits))]
        )


def found_in(federation, everything, window=12):
    """How many windows of what the clients had stand in it."""
    return sum(
        form[start : start + window] in everything
        for forms in values_of(federation)
        for form in forms
        for start in (0, len(form) // 2, len(form) - window)
    )


def test_nothing_a_client_had_crosses_and_the_same_search_finds_it_without_masks():
    """All bytes that came back from the workers, searched; the control are the sums of single clients without masks."""
    backend, wire = remote(workers=60)
    shown = []
    federation = Federation(
        step, clients(), **settings(record=lambda *row: shown.append(row)), backend=backend
    )
    federation.run_round()
    crossed = b"\xff".join(wire.received)
    assert found_in(federation, crossed) == 0
    assert {stage for stage, _, _ in shown} == {"advertise", "share", "masked_input", "unmask"}
    assert all(message in crossed for _, _, message in shown)
    assert len(crossed) < 1.1 * sum(len(message) for _, _, message in shown) + 1000 * len(wire.received)

    backend, wire = remote(workers=60)
    ideal = Federation(step, clients(), **settings(secure=replace(SECURE, masked=False)), backend=backend)
    ideal.run_round()
    assert found_in(ideal, b"\xff".join(wire.received)) > 20


def test_what_each_client_sends_is_what_it_would_send_in_one_process():
    """Keys, sealed shares and shares that unmask, byte by byte; all but the masked vectors, which come added."""
    backend, _ = remote()
    sent = {}
    for name, where in (("workers", backend), ("one process", None)):
        rows = sent[name] = []
        run(where, record=lambda *row, rows=rows: rows.append(row), simulated_dropout=0.2)
    by_client = [{row for row in rows if row[0] != "masked_input"} for rows in sent.values()]
    assert by_client[0] == by_client[1]
    assert {stage for stage, _, _ in by_client[0]} == {"advertise", "share", "unmask"}


def test_masked_vectors_come_as_one_sum_for_each_worker():
    backend, _ = remote()
    shown = []
    ours = run(backend, rounds=1, record=lambda *row: shown.append(row))
    masked = [(sender, message) for stage, sender, message in shown if stage == "masked_input"]
    assert [sender for sender, _ in masked] == [-1, -2, -3]
    one = ours.rounds[0].bytes_up_per_client
    assert all(len(message) < one for _, message in masked)


def test_why_a_client_failed_stays_with_its_worker(tmp_path):
    backend, wire = remote(log=tmp_path)
    run(backend, failing, rounds=2)
    crossed = b"\xff".join(wire.received)
    assert b"secret" not in crossed
    lines = [json.loads(line) for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert lines
    assert all(int(line["client"]) % 3 == 2 and "secret of" in line["cause"] for line in lines)
    assert {line["round"] for line in lines} == {1, 2}


def test_what_overflows_at_a_client_is_said_to_nobody():
    reply = serve(lambda: np.exp(np.float64(1e4)))
    assert (reply.failure, reply.value) == (None, np.inf)


def test_the_words_of_an_unforeseen_error_stay_with_its_worker(monkeypatch, caplog):
    """A fault of the worker itself: its clients drop out, the operator hears which kind of error it was."""

    def broken(site, *arguments):
        raise ZeroDivisionError("secret of somebody")

    monkeypatch.setattr(Site, "mask", broken)
    backend, wire = remote()
    federation = Federation(step, clients(), **settings(), backend=backend)
    with pytest.raises(RoundAborted):
        federation.run_round()
    assert b"secret" not in b"\xff".join(wire.received)
    assert "it met a ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text
    assert re.search(r"a worker met a ZeroDivisionError at .*test_rounds\.py:\d+", caplog.text)
    assert [worker.stopped for worker in wire.workers_made] == [True] * WORKERS


def test_an_error_of_the_protocol_ends_the_round_and_one_of_ours_the_run(monkeypatch):
    for error, kind in [
        (secagg.AuthenticationFailed("nothing opened"), RoundAborted),
        (dp.ParameterError("bad"), BackendError),
    ]:

        def refuse(site, *arguments, error=error):
            raise error

        monkeypatch.setattr(Site, "mask", refuse)
        backend, _ = remote()
        federation = Federation(step, clients(), **settings(), backend=backend)
        with pytest.raises(kind):
            federation.run_round()


def test_a_worker_speaks_for_its_own_clients_only():
    class Liar(Inside):
        def receive(self):
            reply = super().receive()
            if isinstance(reply.value, list):
                reply = reply._replace(value=[(client + 1, answer) for client, answer in reply.value])
            return reply

    backend, wire = remote()
    wire.hire = lambda count, gpus, there: [Liar(f"w{i}", wire, wire.dies, None) for i in range(count)]
    federation = Federation(step, clients(), **settings(), backend=backend)
    with pytest.raises(RoundAborted) as aborted:
        federation.run_round()
    assert "speaks for" in str(aborted.value.__cause__)


def test_a_worker_sums_up_its_own_clients_only():
    """It plays honestly, and hands up the sum that another made; or one of both."""

    class Thief(Inside):
        masked = []  # noqa: RUF012

        def receive(self):
            reply = super().receive()
            if self.wire.calls[-1][1] == "mask":
                self.masked.append(reply.value)
                reply = reply._replace(value=self.masked[0])
            return reply

    backend, wire = remote()
    wire.hire = lambda count, gpus, there: [Thief(f"w{i}", wire, wire.dies, None) for i in range(count)]
    federation = Federation(step, clients(), **settings(), backend=backend)
    with pytest.raises(RoundAborted) as aborted:
        federation.run_round()
    assert "which is bound to another place" in str(aborted.value.__cause__)
    assert not aborted.value.charged


def test_figures_of_each_worker_and_stage():
    told = []
    wire = Wire()
    run(Remote(Crew(wire, told.append)), rounds=1)
    stages = ["employ", "hold", "open", "advertise", "share", "masked_input", "unmask"]
    assert [figures.call for figures in told] == [stage for stage in stages for _ in range(WORKERS)]
    assert {figures.worker for figures in told} == {"w1", "w2", "w3"}
    masked = [figures for figures in told if figures.call == "masked_input"]
    assert all(f.clients > 0 and f.seconds > 0 and f.cpu_seconds > 0 and f.peak_rss_mb > 1 for f in masked)


def test_without_a_seed_each_worker_makes_its_own_keys():
    """Two rounds without a seed give other bits; nothing that would make the keys again is sent."""
    backend, _ = remote()
    assert not np.array_equal(
        run(backend, rounds=1, entropy=None).weights["w"], run(backend, rounds=1, entropy=None).weights["w"]
    )
    assert pickle.loads(pickle.dumps(RunEntropy())) == RunEntropy()
