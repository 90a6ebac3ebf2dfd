"""Both machines on a network that drops, delays, duplicates, reorders, replays and tampers.

Invariant: whatever arrives in whatever order, only typed errors come out; no client answers twice; and if there
is a sum, it is the plain sum of its survivors' inputs, unless the network forged a whole masked input (which is
what a byzantine client can always do by its own input).
"""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from secagg import SecAggError
from secagg.messages import kind_of
from secagg.phases import Kind, Phase
from tests.secagg.rounds import choose, new_client, new_server

CLIENTS = 5
ENDED = (Phase.DONE, Phase.FAILED)


class Network(RuleBasedStateMachine):
    """Every message ever sent stays deliverable, to anybody, any number of times."""

    @initialize(mode=st.sampled_from(["semi_honest", "malicious"]), honest=st.integers(0, 12))
    def start(self, mode, honest):
        self.parameters = choose(clients=CLIENTS, adversary=mode)
        self.server = new_server(self.parameters)
        self.clients = [new_client(self.parameters, c) for c in range(CLIENTS)]
        self.inputs = [{"v": np.full(5, 60_000 + c, np.uint32)} for c in range(CLIENTS)]
        self.to_clients, self.to_server, self.answers = [], [], []
        self.spoilt = False
        for _ in range(honest):
            self.one_honest_step()

    def one_honest_step(self):
        """Everybody's next message, delivered in order; then the stage is closed."""
        if self.server.phase in ENDED:
            return
        for client in range(CLIENTS):
            if self.server.expects(client):
                self.collect(client)
                self.hand_to_client(client, self.to_clients[-1][1])
                if self.to_server and self.to_server[-1][0] == client:
                    self.hand_to_server(client, self.to_server[-1][1])
        self.close()

    def collect(self, client):
        try:
            self.to_clients.append((client, self.server.message_for(client)))
        except SecAggError:
            self.to_clients.append((client, b""))

    def hand_to_client(self, client, data):
        machine = self.clients[client]
        try:
            answer = machine.receive(data)
            if machine.phase is Phase.READY:
                answer = machine.mask(self.inputs[client])
        except SecAggError:
            assert machine.phase is Phase.FAILED
            return
        if answer is not None:
            self.answers.append((client, kind_of(answer)))
            self.to_server.append((client, answer))

    def hand_to_server(self, client, data):
        """Give the server a message; whether it took it."""
        before, refusal = self.server.phase, None
        try:
            self.server.receive(client, data)
        except SecAggError as error:
            refusal = error
        assert refusal is None or refusal.sender == client
        assert self.server.phase is before
        return refusal is None

    def close(self):
        try:
            self.server.advance()
        except SecAggError:
            assert self.server.phase in ENDED

    @rule(client=st.integers(0, CLIENTS - 1))
    def server_speaks(self, client):
        self.collect(client)

    @rule()
    def stage_passes_honestly(self):
        self.one_honest_step()

    @precondition(lambda self: self.to_clients)
    @rule(data=st.data(), flip=st.booleans(), same=st.booleans())
    def something_reaches_a_client(self, data, flip, same):
        intended, message = data.draw(st.sampled_from(self.to_clients[-8:]))
        client = intended if same else data.draw(st.integers(0, CLIENTS - 1))
        self.hand_to_client(client, self.bend(data, message) if flip else message)

    @precondition(lambda self: self.to_server)
    @rule(data=st.data(), flip=st.booleans(), same=st.booleans())
    def something_reaches_the_server(self, data, flip, same):
        sender, message = data.draw(st.sampled_from(self.to_server[-8:]))
        client = sender if same else data.draw(st.integers(0, CLIENTS - 1))
        message = self.bend(data, message) if flip else message
        taken = self.hand_to_server(client, message)
        if taken and (flip or client != sender):
            self.spoilt |= kind_of(message) is Kind.MASKED_INPUT

    def bend(self, data, message):
        if not message:
            return data.draw(st.binary(max_size=80))
        bent = bytearray(message)
        bent[data.draw(st.integers(0, len(bent) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        return bytes(bent[: data.draw(st.sampled_from([len(bent), len(bent), len(bent) - 1]))])

    @rule()
    def stage_closes(self):
        self.close()

    @rule(client=st.integers(0, CLIENTS - 1))
    def a_client_is_gone(self, client):
        self.to_clients = [row for row in self.to_clients if row[0] != client]

    @invariant()
    def nobody_answers_twice(self):
        assert len(set(self.answers)) == len(self.answers)
        for client, machine in enumerate(self.clients):
            unmasked = (client, Kind.UNMASK) in self.answers
            assert not unmasked or machine.phase in ENDED
            assert (machine.phase in ENDED) is (machine._secrets is None)

    def teardown(self):
        if not hasattr(self, "server"):
            return
        for _ in range(6):
            self.one_honest_step()
        assert self.server.phase in ENDED
        if self.server.phase is Phase.DONE and not self.spoilt:
            total, survivors, _ = self.server.result
            expected = sum(60_000 + c for c in survivors) % 2**16
            assert total["v"].tolist() == [expected] * 5
            assert len(survivors) >= self.parameters.threshold


TestNetwork = Network.TestCase
TestNetwork.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@pytest.mark.drill
def test_network_for_long():
    run = type("Long", (Network.TestCase,), {})
    run.settings = settings(max_examples=3000, stateful_step_count=50, deadline=None)
    run("runTest").runTest()
