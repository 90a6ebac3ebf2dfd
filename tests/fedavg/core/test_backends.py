"""Programs whose clients are played elsewhere: the same numbers, what travels and how often, what is refused first."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from fedavg import SecureAggregation
from fedavg.backends.crew import Crew
from fedavg.backends.processes import Processes
from fedavg.backends.rounds import Remote
from fedavg.core import (
    Context,
    ExecutionError,
    at_clients,
    federated_clip,
    federated_computation,
    federated_map,
    federated_sum,
)
from fedavg.core.program import Arguments
from fedavg.errors import BackendError
from tests.fedavg.backends.programs import POPULATION, READINGS, assert_same, bounded, run, two_stages
from tests.fedavg.backends.test_rounds import Wire

ROOT = str(Path(__file__).parents[3])


@pytest.mark.parametrize(
    "secure",
    [SecureAggregation(dropout=0.2, corruption=0.0), SecureAggregation.ideal()],
    ids=["masked", "ideal"],
)
def test_workers_give_the_numbers_of_one_process_to_the_last_bit(secure):
    wire = Wire()
    assert_same(run(Remote(Crew(wire)), secure), run(None, secure))
    assert b"secret" not in b"".join(wire.received)
    held = [method for _, method, _ in wire.calls if method in ("employ", "hold")]
    assert held == ["employ"] * 3 + ["hold"] * 3, "functions and data travel once, for all stages and runs"


def test_processes_give_the_numbers_of_one_process_and_are_found_by_name():
    with Processes(2) as backend:
        assert_same(run(backend), run(None))
    named = Context(population=9, delta=0.1, noise_multiplier=1.0, backend="processes")
    assert isinstance(named._backend, Processes)


def test_other_arguments_are_sent_anew():
    wire = Wire()
    backend = Remote(Crew(wire))
    ours, theirs = (
        run(where, arguments=(READINGS, [(1.0, 2.0, 3.0)] * POPULATION, 1.0)) for where in (backend, None)
    )
    assert_same(ours, theirs)
    assert [method for _, method, _ in wire.calls].count("hold") == 6


def test_the_same_population_under_another_name_is_another_argument():
    assert Arguments(40, {"x": READINGS}).same(Arguments(40, {"x": READINGS}))
    assert not Arguments(40, {"x": READINGS}).same(Arguments(40, {"y": READINGS}))


def test_a_function_that_cannot_travel_is_refused_before_anything_is_charged():
    @federated_computation(at_clients(float))
    def program(x):
        return federated_sum(federated_clip(federated_map(lambda v: v + 1, x), l2=1.0))

    with Processes(1) as backend:
        context = Context(population=9, delta=1e-3, noise_multiplier=1.0, backend=backend)
        with pytest.raises(BackendError, match="cannot be sent to another process"):
            context.run(program, [0.5] * 9)
    assert context.ledger(program).charged == 0


@pytest.mark.parametrize(
    ("bounded", "ends"),
    [
        ("federated_clip(federated_map(half, x), l2=1.0)", "done"),
        ("federated_map(decorated, x)", "in the script that runs"),
    ],
)
def test_functions_of_a_script_travel_to_processes_unless_they_are_decorated_there(bounded, ends, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"""
from fedavg import SecureAggregation
from fedavg.core import *

def half(x):
    return x / 2

@local_computation(returns=within(float, l2=1.0))
def decorated(x):
    return x / 2

@federated_computation(at_clients(float))
def program(x):
    return federated_sum({bounded})

if __name__ == "__main__":
    context = Context(
        population=9, delta=1e-2, noise_multiplier=1.0, secure=SecureAggregation.ideal(), backend="processes"
    )
    with context:
        program([0.5] * 9)
    print("done")
"""
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ROOT}
    )
    assert ends in (done.stdout + done.stderr).splitlines()[-1]


def test_an_insecure_context_plays_its_clients_itself():
    with pytest.raises(ExecutionError, match="plays its clients here"):
        Context(insecure=True, backend="processes")


def test_a_decorated_function_travels_under_its_name():
    assert pickle.loads(pickle.dumps(bounded)) is bounded
    assert len(pickle.dumps(two_stages.results[0])) < 10_000
