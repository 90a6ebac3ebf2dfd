"""The journey that three experiments share: who trains, who evaluates, and what each of it costs."""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import fedavg
from examples.journey import Task, evaluated, fitted, in_the_open, privately


def people(label, asked=None):
    """Sixty clients whose examples all carry one label; notes who is fetched."""

    def fetch(client):
        if asked is not None:
            asked.append(client)
        return np.ones((5, 2), np.float32), np.full(5, label)

    return fedavg.ClientData(range(60), fetch)


def task(clients, held_out):
    module = torch.nn.Linear(2, 2)
    test = np.ones((4, 2), np.float32), np.array([0, 0, 0, 1])
    return Task(
        step=fedavg.from_torch(module, fitted(0.5, epochs=3, batch=5), evaluate=evaluated), clients=clients,
        held_out=held_out, test=test, most_examples=5, rounds=3, cohort=20, clip=1.0,
    )  # fmt: skip


def test_clients_evaluate_on_what_they_held_out():
    figures = in_the_open(task(people(0), people(1)), 1)[1]
    assert figures["accuracy"] == 0.75
    assert figures["federated_accuracy"] == 0.0
    assert in_the_open(task(people(0), people(0)), 1)[1]["federated_accuracy"] == 1.0


def test_private_clients_evaluate_on_what_they_held_out_and_pay_for_it():
    trained, looked = [], []
    figures = privately(task(people(0, trained), people(0, looked)), 1, readers_epsilon=4.0)[1]
    assert 0 < len(looked) < 60 < len(trained) + len(looked)
    assert figures["readers"] == pytest.approx(4.0, abs=0.01)
    assert figures["total_readers"] == pytest.approx(4.5, abs=0.02)
    assert figures["server"] > figures["readers"]
    assert figures["total_delta"] == pytest.approx(2 * figures["delta"])


def test_a_loop_takes_no_more_examples_than_it_may():
    module = torch.nn.Linear(2, 2)
    seen = []
    module.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    fitted(0.1, epochs=2, batch=4, most=10)(module, (np.ones((30, 2), np.float32), np.zeros(30, np.int64)))
    assert seen == [4, 4, 2, 4, 4, 2]
