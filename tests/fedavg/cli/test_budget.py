"""`veilsum budget show|verify|export|merge`: what a ledger says, what is wrong with it, and with which exit code."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import dp
import fedavg
from dp.accounting import epsilon
from dp.events import Composed, Gaussian
from fedavg import SecureAggregation
from fedavg.cli.ledgers import merged, outlook
from fedavg.core import (
    Context,
    at_clients,
    federated_broadcast,
    federated_clip,
    federated_computation,
    federated_map,
    federated_sum,
)

SCHEMA = Path(__file__).parents[3] / "docs" / "ledger-schema.json"
SAMPLER = dp.PaddedPoisson(3000, 300)


def accountant(*, noise_multiplier=1.5, rounds=50, **privacy):
    settings = {
        "delta": 1e-5,
        "l2_clip_norm": 0.3,
        "noise_multiplier": noise_multiplier,
        "max_participations": 10,
    }
    mechanism = dp.DistributedDiscreteGaussian(
        noise_multiplier=noise_multiplier, sensitivity=9000.0, dimension=1000, honest_survivors=300
    )
    return dp.RunAccountant(mechanism, SAMPLER, dp.Privacy(**(settings | privacy)), rounds)


def filled(path, *, rounds=4, run="a run", **settings):
    """A ledger with settled rounds ten seconds apart, one refunded and one lost."""
    ledger = dp.Ledger.attach(path, accountant=accountant(**settings), run={"task": run})
    for number in range(rounds):
        taken = ledger.reserve(timestamp=1000.0 + 10 * number)
        ledger.settle(taken, survivors=375, model_hash=bytes([number]) * 32, timestamp=1005.0 + 10 * number)
    return ledger


@pytest.fixture
def path(tmp_path):
    ledger = filled(tmp_path / "ledger.sqlite", readers_epsilon=2.6, server_epsilon=11.0)
    taken = ledger.reserve(timestamp=1040.0)
    ledger.refund(taken, reason="too few", timestamp=1041.0)
    ledger.reserve(timestamp=1050.0)
    return tmp_path / "ledger.sqlite"


def shown(veilsum, *arguments):
    ran = veilsum("budget", "show", *arguments, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_show_says_what_is_spent_and_left_for_both_and_when_it_ends(veilsum, path):
    content = shown(veilsum, path)
    exact = accountant().epsilons(5)
    assert content["epsilon"] == {"readers": exact.readers, "server": exact.server}
    assert content["left"]["readers"] == 2.6 - exact.readers
    (run,) = content["runs"]
    assert (run["charged"], run["settled"], run["refunded"], run["aborted"]) == (5, 4, 1, 1)
    ahead = run["outlook"]
    further = accountant().epsilons(6)
    assert ahead["next_round"]["readers"] == pytest.approx(further.readers - exact.readers)
    assert ahead["rounds_left"] == 46
    assert ahead["seconds_per_round"] == 10.0
    assert ahead["seconds_left"] == 460.0


def test_the_budget_ends_where_another_round_would_pass_it(tmp_path):
    filled(tmp_path / "l", readers_epsilon=1.0)
    ahead = outlook(dp.spending(tmp_path / "l"), 1)
    spent = 4 + ahead.rounds_left
    assert accountant().epsilons(spent).readers <= 1.0 < accountant().epsilons(spent + 1).readers


def test_a_spent_budget_has_no_next_round(veilsum, tmp_path):
    filled(tmp_path / "l", rounds=4, readers_epsilon=accountant().epsilons(4).readers)
    content = shown(veilsum, tmp_path / "l")
    assert content["runs"][0]["outlook"]["next_round"] is None
    assert "the budget holds no other" in " ".join(veilsum("budget", "show", tmp_path / "l").out.split())


def test_every_round_is_listed_on_request(veilsum, path):
    rounds = shown(veilsum, path, "--rounds")["rounds"]
    assert [one["state"] for one in rounds] == ["settled"] * 4 + ["refunded", "open"]
    assert rounds[4]["epsilon"] == rounds[3]["epsilon"]
    assert rounds[5]["epsilon"]["readers"] == accountant().epsilons(5).readers
    ran = veilsum("budget", "show", path, "--rounds")
    assert max(len(line) for line in ran.out.splitlines() if str(path) not in line) <= 80


def test_words_never_round_the_wrong_way(veilsum, path):
    """Spent is rounded up, left is rounded down."""
    text = " ".join(veilsum("budget", "show", path).out.split())
    exact = accountant().epsilons(5).readers
    spent, left = (float(text.split(mark)[0].split()[-1]) for mark in (" spent of 2.6", " left"))
    assert spent >= exact
    assert left <= 2.6 - exact


def test_a_shared_ledger_says_that_the_budget_is_the_promise(veilsum, tmp_path):
    path = tmp_path / "shared"
    dp.Ledger.share(path, budget=dp.SharedBudget(delta=1e-5, readers_epsilon=4.0, server_epsilon=20.0))
    for name in ("first", "second"):
        ledger = dp.Ledger.attach(path, accountant=accountant(), run={"task": name})
        taken = ledger.reserve(timestamp=1.0)
        ledger.settle(taken, survivors=375, model_hash=bytes(32), timestamp=2.0)
    content = shown(veilsum, path)
    assert [run["run"]["task"] for run in content["runs"]] == ["first", "second"]
    assert content["budget"] == {"readers": 4.0, "server": 20.0}
    assert all(run["outlook"]["rounds_left"] > 0 for run in content["runs"])
    assert "what is guaranteed is the budget" in " ".join(veilsum("budget", "show", path).out.split())


@federated_computation(at_clients(np.float32))
def shared_twice(x):
    """Two sums, one after the other, under one draw."""
    first = federated_sum(federated_clip(x, l2=1.0))
    scaled = federated_map(lambda own, total: own * np.tanh(total), (x, federated_broadcast(first)))
    return first, federated_sum(federated_clip(scaled, l2=1.0))


def test_what_programs_of_the_federated_core_spent_is_shown_verified_and_merged(veilsum, tmp_path):
    path = tmp_path / "core.sqlite"
    settings = {"population": 40, "delta": 1e-4, "noise_multiplier": 3.0, "cohort_size": 20}
    context = Context(**settings, rounds=3, ledger=path, secure=SecureAggregation.ideal())
    spent = context.run(shared_twice, [np.float32(1)] * 40).statements
    for command in ("show", "verify", "merge"):
        ran = veilsum("budget", command, path, "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["epsilon"]["readers"] == pytest.approx(spent.readers.epsilon)
    assert "Run 1: shared_twice" in veilsum("budget", "show", path).out


def test_a_filter_over_programs_is_verified(veilsum, tmp_path):
    path = tmp_path / "filter.sqlite"
    settings = {"population": 40, "delta": 1e-4, "noise_multiplier": 5.0, "readers_epsilon": 9.0}
    context = Context(**settings, rounds=None, ledger=path, secure=SecureAggregation.ideal())
    for _ in range(2):
        context.run(shared_twice, [np.float32(1)] * 40)
    ran = veilsum("budget", "verify", path)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("said_of_itself", "says"),
    [({"seeded": True}, "seeded: simulation, no"), ({"masked": False}, "computed without cryptography")],
)
def test_a_ledger_whose_epsilons_promise_nothing_says_so_wherever_they_are_shown(
    veilsum, tmp_path, said_of_itself, says
):
    """Whoever reads the ledger alone has no statement beside it."""
    path = tmp_path / "ledger.sqlite"
    run = {"task": "mine", "seeded": False, "masked": True, **said_of_itself}
    ledger = dp.Ledger.attach(path, accountant=accountant(), run=run)
    ledger.settle(ledger.reserve(timestamp=1.0), survivors=375, model_hash=bytes(32), timestamp=2.0)
    filled(tmp_path / "other")
    for arguments in (("show", path), ("verify", path), ("merge", tmp_path / "other", path)):
        ran = veilsum("budget", *arguments)
        assert ran.code == 0
        assert f"run 1 (mine) was {says}" in " ".join((ran.out + ran.err).split())


@pytest.fixture
def shared(veilsum, tmp_path):
    """A shared ledger as the command makes it; two runs have joined, a round of the second is refunded."""
    path = tmp_path / "ledger.sqlite"
    options = ("--delta", 1e-5, "--epsilon-readers", 4, "--epsilon-server", 20)
    assert veilsum("budget", "share", path, *options).code == 0
    for name in ("first", "second"):
        filled(path, rounds=2, run=name)
    ledger = dp.Ledger.attach(path, accountant=accountant(), run={"task": "second"})
    ledger.refund(ledger.reserve(timestamp=1020.0), reason="too few", timestamp=1021.0)
    return path


def test_a_shared_ledger_is_shown_verified_and_exported(veilsum, shared):
    content = shown(veilsum, shared, "--rounds")
    assert [run["charged"] for run in content["runs"]] == [2, 2]
    assert [(one["run"], one["state"]) for one in content["rounds"]] == [
        (1, "settled"), (1, "settled"), (2, "settled"), (2, "settled"), (2, "refunded"),
    ]  # fmt: skip
    ran = veilsum("budget", "verify", shared, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert (found["charged"], found["refunded"], found["runs"]) == (4, 1, 2)
    assert 0 < found["epsilon"]["readers"] < 4
    assert found["recomputed"]["server"] == pytest.approx(found["epsilon"]["server"], rel=1e-3)
    exported = json.loads(veilsum("budget", "export", shared).out)
    assert [row["kind"] for row in exported["rows"]].count("run") == 2
    assert exported["rows"][0]["body"]["budget"]["readers"]["epsilon"] == 4.0
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(exported, json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize(
    ("edit", "row"),
    [
        ("UPDATE row SET body = replace(body, 'epsilon\":4.0', 'epsilon\":9.0') WHERE sequence = 0", "0"),
        ("DELETE FROM row WHERE sequence = 3", "3"),
        ("UPDATE row SET run = 1 WHERE sequence = 7", "7"),
    ],
)
def test_a_shared_ledger_that_was_tampered_with_is_named_too(veilsum, shared, edit, row):
    tampered(shared, edit)
    ran = veilsum("budget", "verify", shared)
    assert ran.code == 1
    assert f"row {row} " in ran.err.lower()


def test_a_shared_budget_that_knows_its_rounds_keeps_more_of_them(veilsum, tmp_path):
    """The same promise, spent by the same rounds: fewer fit where the filter was not told of them."""
    rounds = ("--population", 3000, "--cohort", 300, "--rounds", 400, "--noise-multiplier", 1.5)
    fit = []
    for name, expected in (("told", rounds), ("not told", ())):
        ran = veilsum(
            "budget", "share", tmp_path / name, "--delta", 1e-5, "--epsilon-readers", 2, *expected, "--json"
        )
        assert json.loads(ran.out)["budget"]["readers"]["epsilon"] == 2.0
        filled(tmp_path / name, rounds=1, noise_multiplier=1.5)
        fit.append(outlook(dp.spending(tmp_path / name), 1).rounds_left)
    assert fit[0] > fit[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "no budget was given; give --epsilon-readers"),
        (("--epsilon-readers", 4, "--cohort", 300), "--population, --rounds, --noise-multiplier is not given"),
        (("--epsilon-server", 4, "--cohort", 3, "--population", 30, "--rounds", 2, "--noise-multiplier", 1),
         "without --epsilon-readers"),
        (("--epsilon-readers", 4, "--cohort", 30, "--population", 3, "--rounds", 2, "--noise-multiplier", 1),
         "no rounds"),
    ],
)  # fmt: skip
def test_a_budget_that_cannot_be_shared_is_one_sentence(veilsum, tmp_path, options, says):
    ran = veilsum("budget", "share", tmp_path / "l", "--delta", 1e-5, *options)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert says in ran.err
    assert not (tmp_path / "l").exists()


def test_a_promise_that_was_made_is_not_made_anew(veilsum, shared):
    before = shared.read_bytes()
    ran = veilsum("budget", "share", shared, "--delta", 1e-5, "--epsilon-readers", 9)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert shared.read_bytes() == before


def test_verify_recomputes_and_says_so(veilsum, path):
    ran = veilsum("budget", "verify", path, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["findings"] == []
    assert (found["charged"], found["aborted"], found["refunded"]) == (5, 1, 1)
    assert found["recomputed"]["readers"] == pytest.approx(found["epsilon"]["readers"], rel=2e-3)
    assert found["newest_hash"] == dp.spending(path).newest_hash


def tampered(path, edit):
    connection = sqlite3.connect(path)
    triggers = [
        name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
    ]
    connection.executescript("".join(f"DROP TRIGGER {name};" for name in triggers) + edit)
    connection.close()


@pytest.mark.parametrize(
    ("edit", "row"),
    [
        ("UPDATE row SET body = replace(body, 'multiplier\":1.5', 'multiplier\":3.5') WHERE sequence = 0", "0"),
        ("DELETE FROM row WHERE sequence = 2", "2"),
        ("UPDATE row SET body = replace(body, 'time', 'tine') WHERE sequence = 3", "3"),
        ("UPDATE row SET sequence = -1 WHERE sequence = 3; UPDATE row SET sequence = 3 WHERE sequence = 5;"
         "UPDATE row SET sequence = 5 WHERE sequence = -1", "3"),
        ("INSERT INTO row SELECT 13, kind, run, round, body, hash FROM row WHERE sequence = 2", "1[23]"),
    ],
)  # fmt: skip
def test_a_ledger_that_was_tampered_with_is_named_row_by_row_with_exit_code_1(veilsum, path, edit, row):
    import re

    tampered(path, edit)
    ran = veilsum("budget", "verify", path)
    assert ran.code == 1
    assert re.search(rf"row {row}\b", ran.err, re.IGNORECASE), ran.err


def test_a_clock_set_back_is_named_with_exit_code_1(veilsum, tmp_path):
    ledger = filled(tmp_path / "l")
    ledger.reserve(timestamp=5.0)
    ran = veilsum("budget", "verify", tmp_path / "l")
    assert ran.code == 1
    assert "row 9" in ran.err.lower()
    assert "clock" in ran.err


def test_models_are_held_against_their_rows(veilsum, tmp_path):
    def step(weights, data):
        return {"w": weights["w"] + 0.5 * (data - weights["w"])}

    fedavg.train(
        step, [np.full(3, i % 2, np.float32) for i in range(60)], weights={"w": np.zeros(3, np.float32)}, rounds=2,
        cohort_size=20, privacy=dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0),
        secure=fedavg.SecureAggregation.ideal(), folder=tmp_path / "run",
    )  # fmt: skip
    ledger, public = tmp_path / "run" / "operator" / "ledger.sqlite", tmp_path / "run" / "public"
    ran = veilsum("budget", "verify", ledger, "--models", public, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["models_checked"] == 1
    np.savez(public / "model-1.npz", w=np.ones(3, np.float32))
    ran = veilsum("budget", "verify", ledger, "--models", public)
    assert ran.code == 1
    assert "model" in ran.err
    assert "round 1" in ran.err
    ran = veilsum("budget", "verify", ledger, "--models", tmp_path)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)


def test_every_run_on_a_shared_ledger_has_a_newest_model(veilsum, tmp_path):
    ledger = tmp_path / "shared.sqlite"
    dp.Ledger.share(ledger, budget=dp.SharedBudget(delta=1e-3, readers_epsilon=30.0))
    for task in ("first", "second"):
        fedavg.train(
            lambda weights, data: {"w": weights["w"] + 0.5 * (data - weights["w"])},
            [np.full(3, i % 2, np.float32) for i in range(60)], weights={"w": np.zeros(3, np.float32)}, rounds=2,
            cohort_size=20, privacy=dp.Privacy(noise_multiplier=2.0, delta=1e-3, l2_clip_norm=1.0),
            secure=SecureAggregation.ideal(), folder=tmp_path / task, ledger=ledger, task=task,
        )  # fmt: skip
    for task in ("first", "second"):
        ran = veilsum("budget", "verify", ledger, "--models", tmp_path / task / "public")
        assert ran.code == 0, ran.err
    np.savez(tmp_path / "first" / "public" / "model.npz", w=np.ones(3, np.float32))
    assert veilsum("budget", "verify", ledger, "--models", tmp_path / "first" / "public").code == 1


@pytest.mark.parametrize("command", ["show", "verify", "export", "merge"])
@pytest.mark.parametrize(
    "kind", ["missing", "empty", "text", "other database", "cut short", "newer", "locked"]
)
def test_what_is_no_ledger_is_one_sentence_with_exit_code_2_and_left_alone(
    veilsum, path, command, kind, monkeypatch
):
    monkeypatch.setattr("dp.ledger_file.BUSY_SECONDS", 0.1)
    other = path.with_name("other.sqlite")
    holder = None
    if kind == "text":
        other.write_bytes(b"not a ledger" * 100)
    elif kind == "empty":
        other.write_bytes(b"")
    elif kind == "cut short":
        other.write_bytes(path.read_bytes()[:5000])
    elif kind == "other database":
        sqlite3.connect(other).execute("CREATE TABLE t (a)").connection.commit()
    elif kind in ("newer", "locked"):
        other.write_bytes(path.read_bytes())
        holder = sqlite3.connect(other, isolation_level=None)
        holder.execute("PRAGMA user_version = 99" if kind == "newer" else "BEGIN EXCLUSIVE")
    before = other.read_bytes() if other.exists() else None
    ran = veilsum("budget", command, other)
    if holder is not None:
        holder.close()
    assert (ran.code, ran.out) == (2, ""), ran
    (line,) = ran.err.splitlines()
    assert "other.sqlite" in line
    assert (other.read_bytes() if other.exists() else None) == before


def test_an_export_is_what_its_schema_says(veilsum, path, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    content = json.loads(veilsum("budget", "export", path).out)
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(content, schema)
    assert len(content["rows"]) == content["spending"]["rows"] == 12
    assert content["rows"][-1]["hash"] == content["spending"]["newest_hash"]
    content["rows"][3]["body"].pop("totals")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)
    assert veilsum("budget", "export", path, "--output", tmp_path / "out.json").code == 0
    assert json.loads((tmp_path / "out.json").read_text())["format"] == "veilsum ledger export 1"
    assert veilsum("budget", "export", path, "--output", tmp_path / "no" / "out.json").code == 2


def test_merged_servers_are_one_gaussian_and_readers_add_up(veilsum, tmp_path):
    """Two runs, z 1.5 and 2, ten participations of each: 1/z^2 add up exactly."""
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, noise in zip(paths, (1.5, 2.0), strict=True):
        filled(path, rounds=12, noise_multiplier=noise)
    ran = veilsum("budget", "merge", *paths, "--json")
    found = json.loads(ran.out)
    whole = Gaussian((10 / 1.5**2 + 10 / 2.0**2) ** -0.5)
    assert found["epsilon"]["server"] == pytest.approx(epsilon(Composed(whole, 1), delta=1e-5), abs=1e-6)
    assert found["how"]["server"].startswith("as one Gaussian")
    halves = [accountant(noise_multiplier=noise, delta=5e-6).epsilons(12).readers for noise in (1.5, 2.0)]
    assert found["epsilon"]["readers"] == pytest.approx(sum(halves))
    assert found["how"]["readers"].startswith("basic")


def test_one_ledger_merged_is_itself(tmp_path):
    filled(tmp_path / "a")
    spent = dp.spending(tmp_path / "a")
    assert merged([spent]).epsilon.readers == pytest.approx(spent.spent.readers)
    assert merged([spent]).epsilon.server == pytest.approx(spent.spent.server)


def test_what_cannot_be_merged_is_one_sentence(veilsum, tmp_path):
    filled(tmp_path / "a")
    dp.Ledger.share(tmp_path / "s", budget=dp.SharedBudget(delta=1e-5, readers_epsilon=4.0))
    dp.Ledger.attach(tmp_path / "s", accountant=accountant(), run={"task": "x"})
    for names in (("a", "a"), ("a", "s")):
        ran = veilsum("budget", "merge", *(tmp_path / name for name in names))
        assert (ran.code, len(ran.err.splitlines())) == (2, 1)
