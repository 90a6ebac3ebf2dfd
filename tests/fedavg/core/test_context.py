"""Contexts: what is charged, when, to which ledger; what is refused before that; what an insecure one says."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

import dp
import secagg
from fedavg import ClientData, RoundAborted, RunEntropy, SecureAggregation
from fedavg.backends import Local
from fedavg.core import (
    Context,
    ExecutionError,
    InsecureWarning,
    Noise,
    PrivacyTypeError,
    TypeMismatch,
    at_clients,
    at_server,
    federated_broadcast,
    federated_clip,
    federated_computation,
    federated_map,
    federated_sum,
)

IDEAL = SecureAggregation.ideal()


@federated_computation(at_clients(np.float64))
def total(x):
    return federated_sum(federated_clip(x, l2=1.0))


@federated_computation(at_clients(np.float64))
def squares(x):
    return federated_sum(federated_clip(federated_map(np.square, x), l2=1.0))


@federated_computation(at_clients(np.float64))
def adaptive(x):
    first = federated_sum(federated_clip(x, l2=1.0))
    moved = federated_map(lambda v, s: v - s, (x, federated_broadcast(first)))
    return first, federated_sum(federated_clip(moved, l2=1.0))


def context(**settings):
    settings = {"population": 40, "delta": 1e-4, "noise_multiplier": 2.0, "secure": IDEAL, **settings}
    return Context(**settings)


def test_each_insecure_result_warns_at_the_callers_line():
    """By Python's own filter, which shows a line's warning once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        with Context(insecure=True) as insecure:
            for _ in range(3):
                total([0.5, 0.25])
                insecure.run(total, [0.5, 0.25])
    assert [warning.filename for warning in caught] == [__file__] * 6
    assert len({warning.lineno for warning in caught}) == 2


def test_every_result_of_an_insecure_context_warns():
    insecure = Context(insecure=True)
    with pytest.warns(InsecureWarning, match="total: INSECURE.*without noise"):
        result = insecure.run(total, [0.5, 0.25])
    assert result.value == 0.75
    assert "INSECURE" in str(result)
    assert result.statements is None
    with pytest.raises(ExecutionError, match="promises nothing"):
        total.privacy(insecure)
    with pytest.raises(ExecutionError, match="keeps no promise"):
        Context(insecure=True, delta=1e-5)


def test_the_cost_is_known_without_running_and_is_what_the_ledger_says_after():
    planned = context(rounds=3)
    report = total.privacy(planned)
    assert report.runs == 3
    with planned:
        for _ in range(3):
            total([0.1] * 40)
    spent = planned.ledger(total).spent()
    assert spent == dp.Epsilons(report.statements.readers.epsilon, report.statements.server.epsilon)
    (event,) = report.events
    assert event.bounds == (1.0,)
    assert event.noise_multiplier == pytest.approx(2.0)
    assert event.threshold_delta == 0
    assert "test_context.py" in event.expression
    assert "federated_sum" in event.expression


def test_a_calibrated_run_of_several_stages_keeps_its_budget():
    for rounds in (1, 7):
        report = adaptive.privacy(context(noise_multiplier=None, readers_epsilon=1.5, rounds=rounds))
        assert 1.49 < report.statements.readers.epsilon <= 1.5
        assert "2 sums of a round are under one draw" in report.statements.server.text


def test_no_run_beyond_those_planned():
    planned = context()
    planned.run(total, [0.1] * 40)
    with pytest.raises(ExecutionError, match="planned for 1 rounds, and they are used up"):
        planned.run(total, [0.1] * 40)
    assert planned.ledger(total).charged == 1


def test_no_second_program_on_a_plan_for_one():
    planned = context(rounds=2)
    planned.run(total, [0.1] * 40)
    with pytest.raises(ExecutionError, match="charged for total, and squares on top of it was not planned"):
        planned.run(squares, [0.1] * 40)


def test_the_ledger_outlives_the_context(tmp_path):
    path = tmp_path / "ledger.sqlite"
    context(rounds=2, ledger=path).run(total, [0.1] * 40)
    again = context(rounds=2, ledger=path)
    assert again.run(total, [0.1] * 40).statements.server.epsilon > 2
    with pytest.raises(ExecutionError, match="used up"):
        context(rounds=2, ledger=path).run(total, [0.1] * 40)
    with pytest.raises(dp.LedgerError, match="another run"):
        context(rounds=2, ledger=path).run(squares, [0.1] * 40)


def test_a_filter_covers_any_number_of_runs_of_several_programs(tmp_path):
    path = tmp_path / "shared.sqlite"
    filtered = context(noise_multiplier=4.0, readers_epsilon=2.0, rounds=None, ledger=path)
    runs = 0
    while runs < 1000:
        try:
            filtered.run((total, squares, adaptive)[runs % 3], [0.1] * 40)
        except dp.BudgetExceeded:
            break
        runs += 1
    assert 3 < runs < 40
    report = squares.privacy(filtered)
    assert report.runs is None
    assert report.statements.readers.epsilon == 2.0
    assert "a filter keeps all rounds" in report.statements.readers.text
    assert "however they were chosen" in report.statements.readers.text
    assert "not chosen by looking" not in report.statements.readers.text
    assert sum(filtered.ledger(program).charged for program in (total, squares, adaptive)) == runs


def test_a_filter_wants_a_ledger_and_a_budget():
    for missing in ({}, {"ledger": "x.sqlite"}, {"readers_epsilon": 1.0}):
        with pytest.raises(ExecutionError, match="rounds=None asks for a filter"):
            context(rounds=None, **missing)


def test_the_cap_is_counted_over_runs():
    capped = context(rounds=3, max_participations=1, noise_multiplier=3.0)
    sums = [capped.run(total, [1.0] * 40).value for _ in range(3)]
    assert sums[0] > 20
    assert max(sums[1:]) < 20
    assert total.privacy(capped).statements.server.epsilon == pytest.approx(
        total.privacy(context(noise_multiplier=3.0)).statements.server.epsilon
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1] * 39,), "39 clients, and the context was planned for 40"),
        ((), "takes x"),
        (({f"c{i}": 0.1 for i in range(41)},), "41 clients"),
    ],
)
def test_arguments_are_checked_before_anything_is_charged(arguments, message):
    planned = context()
    with planned, pytest.raises((ExecutionError, TypeError), match=message):
        total(*arguments)
    assert planned.ledger(total).charged == 0


def test_all_arguments_have_the_same_clients():
    @federated_computation(at_clients(float), at_clients(float), at_server(float))
    def product(x, y, scale):
        both = federated_map(lambda a, b, s: a * b * s, (x, y, federated_broadcast(scale)))
        return federated_sum(federated_clip(both, l2=1.0))

    with pytest.raises(ExecutionError, match="y has other clients"):
        context(population=2).run(product, {"a": 1.0, "b": 1.0}, {"a": 1.0, "c": 1.0}, 1.0)
    with pytest.raises(ExecutionError, match=r"scale is not of type float64@SERVER.*shape \(2,\)"):
        context(population=2).run(product, {"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, [1.0, 2.0])


def test_a_program_that_asks_nobody_needs_no_context_and_costs_nothing():
    @federated_computation(at_server(float))
    def double(s):
        return federated_map(lambda v: 2 * v, s)

    assert double(2.5) == 5.0
    with pytest.raises(ExecutionError, match="costs nothing"):
        double.privacy(context())
    with pytest.raises(ExecutionError, match="no context is active"):
        total([1.0])


def test_own_noise_below_the_budget_is_refused_and_shares_add_up():
    def program(x):
        one = federated_sum(federated_clip(x, l2=1.0), noise=Noise(multiplier=3.0))
        return one, federated_sum(federated_clip(x, l2=1.0))

    computation = federated_computation(at_clients(float))(program)
    events = computation.privacy(context()).events
    assert sum(event.noise_multiplier**-2 for event in events) == pytest.approx(2.0**-2, rel=1e-6)
    assert events[0].noise_multiplier == pytest.approx(3.0)
    with pytest.raises(ExecutionError, match=r"come to 3 together, and the context wants 3\.5"):
        computation.privacy(context(noise_multiplier=3.5))


def test_masked_and_ideal_sums_are_the_same_for_the_same_entropy():
    values = {
        context(secure=secure, entropy=RunEntropy.seeded(9), population=12).run(adaptive, [0.5] * 12).value
        for secure in (IDEAL, SecureAggregation())
    }
    assert len(values) == 1


@pytest.mark.parametrize(
    "setting", [{"multiplier": 0.0}, {"multiplier": np.nan}, {"weight": -1.0}, {"weight": np.inf}]
)
def test_noise_is_a_positive_number(setting):
    with pytest.raises(TypeMismatch, match="give a positive number"):
        Noise(**setting)


class Broken(Local):
    """A backend whose n-th sum ends with too few clients."""

    def __init__(self, fails_at):
        self.sums, self.fails_at = 0, fails_at

    def sum_round(self, plan, work, **settings):
        self.sums += 1
        if self.sums == self.fails_at:
            raise secagg.TooFewClients(have=1, need=2)
        return plan.sum_round(work, **settings)


@pytest.mark.parametrize(("fails_at", "charged"), [(1, 0), (2, 1)])
def test_a_run_is_refunded_only_while_nothing_was_released(fails_at, charged):
    broken = context(backend=Broken(fails_at))
    with pytest.raises(RoundAborted, match="stays charged" if charged else "was refunded") as caught:
        broken.run(adaptive, [0.1] * 40)
    assert caught.value.charged == bool(charged)
    assert broken.ledger(adaptive).charged == charged


def test_a_cohort_of_nobody_is_refused_and_is_not_everybody():
    with pytest.raises(dp.ParameterError, match="expected is 0"):
        context(population=400, cohort_size=0)


def test_only_clients_that_were_drawn_are_asked():
    asked = []
    data = ClientData(range(400), lambda i: asked.append(i) or 1.0)
    sampled = context(population=400, cohort_size=50, entropy=RunEntropy.seeded(2))
    sampled.run(total, data)
    assert 20 < len(asked) < 85
    assert len(asked) == len(set(asked))


def test_what_a_client_writes_into_what_was_broadcast_nobody_else_reads():
    def spoil(v, public):
        seen = public["a"][0] + ("leak" in public)
        public["a"][0], public["leak"] = v, v
        return float(seen)

    @federated_computation(at_clients(float), at_server({"a": (float, (2,))}))
    def program(x, shared):
        value = federated_map(spoil, (x, federated_broadcast(shared)))
        total = federated_sum(federated_clip(value, l2=100.0))
        return total, federated_map(lambda s, t: s["a"][0] + len(s), (shared, total))

    mine = {"a": np.zeros(2)}
    with Context(insecure=True), pytest.warns(InsecureWarning):
        assert program([5.0, 7.0, 9.0], mine) == (0.0, 1.0)
    assert not mine["a"].any()
    assert mine.keys() == {"a"}


def test_captures_are_looked_at_again_before_anything_is_charged():
    store = None

    def tell(v):
        return v if store is None else store.append(v)

    @federated_computation(at_clients(float))
    def program(x):
        return federated_sum(federated_clip(federated_map(tell, x), l2=1.0))

    store = []
    planned = context()
    with pytest.raises(PrivacyTypeError, match="tell captures store, of type list"):
        planned.run(program, [0.1] * 40)
    assert store == []
    assert planned.ledger(program).charged == 0


@pytest.mark.parametrize("size", [3, 5000])
def test_masks_are_bound_to_everything_that_is_broadcast(size):
    @federated_computation(at_clients(float), at_server((float, (size,))))
    def program(x, shared):
        value = federated_map(lambda v, s: v + s[size // 2], (x, federated_broadcast(shared)))
        return federated_sum(federated_clip(value, l2=1.0))

    hashes = []

    class Spy(Local):
        def sum_round(self, plan, work, *, model_hash, **settings):
            hashes.append(model_hash)
            return plan.sum_round(work, model_hash=model_hash, **settings)

    for middle in (0.0, 1e-9, 0.0):
        shared = np.zeros(size)
        shared[size // 2] = middle
        context(backend=Spy()).run(program, [0.1] * 40, shared)
    assert hashes[0] == hashes[2] != hashes[1]


def test_one_number_in_a_large_cohort_is_rounded_finely_enough():
    """In usual units a share's deviation would be below 2 and its epsilon not proven."""
    report = total.privacy(context(population=50_000, noise_multiplier=1.0))
    assert report.noise_multiplier == pytest.approx(1.0)


def test_a_stage_of_work_can_be_taken_elsewhere():
    """What a backend gets is a value: a copy of it, unpickled, gives the same blocks."""
    sent = []

    class Elsewhere(Local):
        def sum_round(self, plan, work, **settings):
            copy = pickle.loads(pickle.dumps(work))
            sent.append(copy(3))
            np.testing.assert_array_equal(sent[-1]["sum 1"], work(3)["sum 1"])
            return plan.sum_round(copy, **settings)

    result = context(backend=Elsewhere(), noise_multiplier=1.0).run(total, [0.1] * 40)
    assert sent[0]["sum 1"].tolist() == [0.1]
    assert abs(result.value - 4) < 10


def test_no_warning_without_need():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        context().run(total, [0.1] * 40)


def test_an_interrupt_out_of_a_clients_work_is_that_clients_own():
    """Whether a run ends must not depend on anybody's data."""

    def interrupting(value):
        if value > 20:
            raise KeyboardInterrupt
        return value

    @federated_computation(at_clients(np.float64))
    def total(x):
        return federated_sum(federated_clip(federated_map(interrupting, x), l2=1.0))

    with Context(population=40, delta=1e-3, rounds=2, noise_multiplier=1.0, secure=SecureAggregation.ideal()):
        assert np.isfinite(total([float(i) for i in range(40)]))


def test_a_real_interrupt_waits_until_the_sum_is_taken():
    """In a process of its own, whose main thread gets the signal: it ends after the sum, not within a client's work."""
    script = """
import signal
import numpy as np
from fedavg import SecureAggregation
from fedavg.core import Context, at_clients, federated_clip, federated_computation, federated_map, federated_sum

def pressing(value):
    if value == 7:
        signal.raise_signal(signal.SIGINT)
    print("worked", flush=True)
    return value

@federated_computation(at_clients(np.float64))
def pressed(x):
    return federated_sum(federated_clip(federated_map(pressing, x), l2=1.0))

with Context(population=40, delta=1e-3, rounds=2, noise_multiplier=1.0, secure=SecureAggregation.ideal()):
    pressed([float(i) for i in range(40)])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr
    assert done.stdout.count("worked") == 1 + 40  # Once more, for the type of what it returns.
