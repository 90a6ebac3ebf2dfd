"""Ctrl-C and other signals end a run at once; what a client's work raises itself is that client's failure."""

import signal
import subprocess
import sys
import threading

import pytest

from fedavg.interrupts import Pressed, ignored, is_own, told_apart

RUN = """
import signal
import numpy as np
import dp, fedavg
{before}
def step(weights, data):
    print("worked", flush=True)
    if data == 7:
        {at_seven}
    return weights

print(len(fedavg.train(
    step, [float(i) for i in range(40)], weights={{"w": np.zeros(3)}}, rounds=1, sampler=dp.FixedSizeSample(40, 40),
    privacy=dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0),
    secure=fedavg.SecureAggregation.ideal(),
).rounds), "round")
"""


def run(at_seven, *, before=""):
    program = RUN.format(at_seven=at_seven, before=before)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_an_interrupt_out_of_a_clients_work_is_that_clients_own():
    """Whether a run goes on must not depend on anybody's data."""
    done = run("raise KeyboardInterrupt")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("worked") == 40
    assert done.stdout.endswith("1 round\n")


def test_a_real_interrupt_ends_the_run_at_once():
    done = run("signal.raise_signal(signal.SIGINT)")
    assert done.returncode != 0
    assert "Pressed" in done.stderr
    assert 0 < done.stdout.count("worked") < 40


def test_what_the_handler_of_another_signal_raises_ends_the_run_at_once():
    """As of a service manager's SIGTERM, where the program made it `sys.exit`."""
    done = run("signal.signal(signal.SIGTERM, lambda *_: exit(5)) or signal.raise_signal(signal.SIGTERM)")
    assert done.stdout.count("worked") == 40  # Set within a client's work, it is that client's own.
    done = run(
        "signal.raise_signal(signal.SIGTERM)", before="signal.signal(signal.SIGTERM, lambda *_: exit(5))"
    )
    assert done.returncode == 5, done.stderr
    assert 0 < done.stdout.count("worked") < 40


def test_a_clients_own_exit_is_its_failure_where_a_handler_exits_too():
    done = run("raise SystemExit(5)", before="signal.signal(signal.SIGTERM, lambda *_: exit(5))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("1 round\n")


def test_ctrl_c_is_as_before_once_the_clients_are_done():
    with told_apart(), pytest.raises(Pressed):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt) as caught:
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(caught.value, Pressed)


def test_a_handler_of_the_users_own_is_left_alone():
    pressed = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        with told_apart():
            signal.raise_signal(signal.SIGINT)
            assert not is_own(KeyboardInterrupt())  # It cannot be told, and counts as Ctrl-C.
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [signal.SIGINT]


def test_where_the_signal_is_ignored_nobody_else_can_have_interrupted():
    """As in a worker, or in a run that a shell put into the background."""
    before = signal.getsignal(signal.SIGINT)
    ignored()
    try:
        with told_apart():
            signal.raise_signal(signal.SIGINT)
            assert is_own(KeyboardInterrupt())
    finally:
        signal.signal(signal.SIGINT, before)


def test_no_signal_reaches_a_second_thread():
    told = []
    thread = threading.Thread(target=lambda: told.append(is_own(KeyboardInterrupt())))
    thread.start()
    thread.join()
    assert told == [True]
