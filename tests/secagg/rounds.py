"""A round whose messages a test can bend on their way, party by party and stage by stage."""

import threading

import numpy as np

from secagg import (
    Client,
    Identity,
    IdentityRoster,
    RoundParameters,
    SecAggError,
    SeededEntropy,
    Server,
    Vector,
)
from secagg.phases import STAGES, Phase

STAGE_NAMES = ["advertise", "share", "masked_input", "consistency", "unmask"]
ONE_VECTOR = (Vector("v", 5, 16),)


def identity_of(client, seed=b"i" * 32):
    return Identity.generate(SeededEntropy(seed).derive("identity", client))


def choose(clients=8, vectors=ONE_VECTOR, adversary="semi_honest", **settings):
    """Parameters with defaults for everything a test does not care about."""
    defaults = {
        "graph": "complete",
        "dropout": 0.1,
        "corruption": 0.1,
        "task": "test",
        "round": 3,
        "model_hash": bytes(32),
        "application": b"noise",
    }
    if adversary == "malicious":
        defaults["roster_hash"] = IdentityRoster.of({c: identity_of(c) for c in range(clients)}).hash
    settings = defaults | settings
    return RoundParameters.choose(clients=clients, vectors=vectors, adversary=adversary, **settings)


def new_client(parameters, client_id, *, entropy=None, **options):
    """A client with the identity and roster that `choose` stands for."""
    if parameters.is_malicious:
        everyone = {c: identity_of(c) for c in range(parameters.clients)}
        options = {"identity": everyone[client_id], "identities": IdentityRoster.of(everyone)} | options
    entropy = entropy or SeededEntropy(b"c" * 32).derive(client_id)
    return Client(parameters, client_id, entropy=entropy, **options)


def new_server(parameters, *, entropy=None, **options):
    if parameters.is_malicious:
        everyone = {c: identity_of(c) for c in range(parameters.clients)}
        options = {"identities": IdentityRoster.of(everyone)} | options
    return Server(parameters, entropy=entropy or SeededEntropy(b"s" * 32), **options)


def unbent(client, message):
    return message


class Round:
    """One server and its clients; `play` runs a stage, `result` the rest.

    Attributes:
        down: stage to client to what the client received.
        up: stage to client to what it answered.
        errors: client to the error with which it left.
        refused: client to the error with which the server refused its message.
    """

    def __init__(self, parameters, *, rule=None, client_options=None):
        self.parameters = parameters
        self.server = new_server(parameters, rule=rule)
        self.clients = {
            c: new_client(parameters, c, rule=rule, **(client_options or {}))
            for c in range(parameters.clients)
        }
        rng = np.random.default_rng(11)
        self.inputs = {
            c: {
                v.name: rng.integers(0, 2**v.modulus_bits, v.length, dtype=np.uint64)
                for v in parameters.vectors
            }
            for c in self.clients
        }
        self.down, self.up, self.errors, self.refused = {}, {}, {}, {}

    @property
    def stage(self):
        return self.server.phase.value

    def answer(self, client_id, message):
        """What a client answers to a message, masking its input where that is what is due."""
        client = self.clients[client_id]
        answer = client.receive(message)
        return client.mask(self.inputs[client_id]) if answer is None else answer

    def play(self, *, silent=(), down=unbent, up=unbent, close=True):
        """Run the present stage: bend what goes `down` and what comes `up`, then close it."""
        stage = self.stage
        received, sent = self.down.setdefault(stage, {}), self.up.setdefault(stage, {})
        for client_id in self.clients:
            if client_id in self.errors or client_id in silent or not self.server.expects(client_id):
                continue
            received[client_id] = down(client_id, self.server.message_for(client_id))
            try:
                sent[client_id] = up(client_id, self.answer(client_id, received[client_id]))
            except SecAggError as error:
                self.errors[client_id] = error
                continue
            try:
                self.server.receive(client_id, sent[client_id])
            except SecAggError as error:
                self.refused[client_id] = error
        if close:
            self.server.advance()
        return self

    def play_until(self, stage, *, silent=()):
        """Run honest stages until `stage` is the present one."""
        while self.stage != stage:
            self.play(silent=silent)
        return self

    def finish(self):
        """Run the remaining stages honestly and return the sum."""
        while self.server.phase is not Phase.DONE:
            self.play()
        return self.server.result

    def plain(self, survivors, name="v"):
        bits = {v.name: v.modulus_bits for v in self.parameters.vectors}[name]
        return (sum(self.inputs[c][name].astype(object) for c in survivors) % 2**bits).tolist()

    def shares_out(self):
        """How many clients answered the unmask stage."""
        return len(self.up.get("unmask", {}))


def meanwhile(owner, method, act):
    """Let another thread `act` in the middle of the owner's next call of a method; a list of what came of it."""
    outcomes, inner = [], getattr(owner, method)

    def run():
        try:
            outcomes.append(act())
        except SecAggError as error:
            outcomes.append(error)

    def slow(*args, **kwargs):
        setattr(owner, method, inner)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return inner(*args, **kwargs)

    setattr(owner, method, slow)
    return outcomes


def stages_of(parameters):
    return [phase.value for phase in STAGES[parameters.adversary]]
