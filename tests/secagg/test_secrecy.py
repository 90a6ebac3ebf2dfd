"""No secret in any representation, log, exception or pickle: of every object that a live round is made of."""

import copy
import logging
import pickle
import traceback

import numpy as np
import pytest

from secagg import Identity, LocalProtocolError, SecAggError, SeededEntropy
from secagg.hybrid import EDGE_BYTES
from secagg.messages import HEADER_BYTES
from secagg.secrecy import hidden
from tests.secagg.rounds import Round, choose

MODES = ["semi_honest", "malicious"]
HOLDERS = {
    "Client",
    "Edge",
    "HybridMaskKeys",
    "HybridPair",
    "Identity",
    "KeyPair",
    "KeySet",
    "MaskKeys",
    "Pairs",
    "Secrets",
    "SeededEntropy",
    "Server",
}


def reachable(root):
    """Every object that can be come by from `root` through attributes and containers, itself included."""
    found, open_ends = {}, [root]
    while open_ends:
        thing = open_ends.pop()
        if id(thing) in found or isinstance(thing, int | str | type | np.ndarray):
            continue
        found[id(thing)] = thing
        if isinstance(thing, dict):
            open_ends += [*thing.keys(), *thing.values()]
        elif isinstance(thing, tuple | list | set):
            open_ends += list(thing)
        for kind in type(thing).__mro__:
            names = [*getattr(kind, "__slots__", ()), *getattr(thing, "__dict__", ())]
            open_ends += [getattr(thing, name) for name in names if hasattr(thing, name)]
    return list(found.values())


def secrets_of(client):
    """The secret bytes that a client holds now: seeds, rows of shares, keys of channels and edges."""
    held = client._secrets
    secrets = [*getattr(held, "seeds", ()), *(row for row in getattr(held, "rows", ()) if row)]
    secrets += [held.own_row] if hasattr(held, "own_row") else []
    if pairs := getattr(held, "pairs", None):
        for keys in (*getattr(pairs, "_seal_keys", ()), *pairs._tag_keys):
            secrets += keys
        secrets += [edge.key for edge in getattr(pairs, "_edges", {}).values()]
    if hasattr(held, "keys"):
        own = held.keys
        secrets += [pair.private.private_bytes_raw() for pair in (own.channel, own.masks.pair)]
        secrets += [own.masks.hybrid.edge_seed] if own.masks.hybrid else []
    return secrets


def shows(text, secrets):
    """Whether a text holds one of the secrets, as it is, as Python writes it or as hexadecimal."""
    forms = [form for secret in secrets for form in (secret.hex(), repr(secret)[2:-1])]
    return any(form in text for form in forms)


def is_ours(thing):
    return type(thing).__module__.partition(".")[0] == "secagg"


@pytest.mark.parametrize("agreement", ["x25519", "x25519-mlkem768"])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_in_a_live_round_shows_or_copies_a_secret(mode, agreement):
    settings = {"adversary": mode, "clients": 5, "key_agreement": agreement}
    round_ = Round(choose(**settings, conditional_secrets=0))
    kinds = set()
    while round_.stage != "done":
        client = round_.clients[0]
        secrets = secrets_of(client)
        for thing in (*reachable(client), *reachable(round_.server)):
            if not is_ours(thing):
                continue
            assert not shows(repr(thing) + str(thing), secrets), type(thing)
            kinds.add(type(thing).__name__)
            for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
                if type(thing).__name__ in HOLDERS:
                    with pytest.raises(LocalProtocolError, match="pickled"):
                        attempt(thing)
        round_.play()
    expected = HOLDERS - (set() if agreement != "x25519" else {"Edge", "HybridMaskKeys", "HybridPair"})
    assert expected - (set() if mode == "malicious" else {"Identity"}) <= kinds


def test_whatever_pickles_in_a_live_round_holds_no_secret():
    """The objects that may be pickled, at the moment when a client holds the most."""
    round_ = Round(choose(adversary="malicious")).play_until("masked_input")
    client = round_.clients[0]
    client.receive(round_.server.message_for(0))
    secrets = secrets_of(client)
    assert len(secrets) > 30
    tried = 0
    for thing in reachable(client):
        if is_ours(thing) and type(thing).__name__ not in HOLDERS:
            with np.errstate(all="ignore"):
                try:
                    data = pickle.dumps(thing)
                except (TypeError, AttributeError, pickle.PicklingError):
                    continue
            tried += 1
            assert not any(secret in data for secret in secrets), type(thing)
    assert tried


@pytest.mark.parametrize("mode", MODES)
def test_no_error_and_no_log_shows_a_secret(mode, caplog):
    """Every stage, every message bent in a dozen ways, at both ends; fixed seed."""
    rng = np.random.default_rng(4)
    caplog.set_level(logging.DEBUG)
    texts, secrets = [], []

    def bent(message):
        data = bytearray(message)
        for place in rng.integers(0, len(data), rng.integers(1, 4)).tolist():
            data[place] ^= 1 << int(rng.integers(8))
        return bytes(data[: len(data) - int(rng.integers(3) == 0)])

    stages = ["advertise", "share", "masked_input", "consistency", "unmask"]
    for stage in stages if mode == "malicious" else [s for s in stages if s != "consistency"]:
        for _ in range(12):
            round_ = Round(choose(adversary=mode, clients=4)).play_until(stage)
            secrets += secrets_of(round_.clients[0])
            try:
                answer = round_.answer(0, bent(round_.server.message_for(0)))
                round_.server.receive(0, bent(answer))
            except SecAggError as error:
                texts.append(f"{error} {error!r} {error.__dict__}")
    assert len(texts) > 30
    assert not any(shows(text, secrets) for text in texts)
    assert not caplog.records


def kept_by(error):
    """All bytes that can be come by from an error, through the frames of ours that it keeps and what they hold."""
    kept = []
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_globals["__name__"].startswith("secagg."):
                kept += [thing for thing in reachable(dict(frame.f_locals)) if isinstance(thing, bytes)]
        error = error.__context__
    return kept


@pytest.mark.parametrize("agreement", ["x25519", "x25519-mlkem768"])
@pytest.mark.parametrize("stage", ["share", "masked_input", "consistency", "unmask"])
def test_an_error_that_is_kept_keeps_no_secret(stage, agreement):
    """What a tool that collects errors shows of their frames, or a list of failed clients keeps in memory."""
    settings = {"clients": 5, "adversary": "malicious", "key_agreement": agreement}
    round_ = Round(choose(**settings)).play_until(stage)
    client, message = round_.clients[0], round_.server.message_for(0)
    secrets, body = secrets_of(client), len(message) - HEADER_BYTES
    hashes = 4 * client._codec.hash_row_bytes
    edges = 0 if agreement == "x25519" else 2 * EDGE_BYTES
    bent = {
        "share": message[:-1],
        "masked_input": message[: -hashes - edges] + bytes(hashes) + message[len(message) - edges :],
        "consistency": message[:HEADER_BYTES] + b"\x03",
        "unmask": message[:HEADER_BYTES] + bytes(body),
    }[stage]
    with pytest.raises(SecAggError) as caught:
        client.receive(bent)
    assert len(secrets) > 3
    assert not set(secrets) & set(kept_by(caught.value))
    assert kept_by(caught.value)


def test_the_search_for_secrets_finds_them():
    """Power: a representation that Python would make by itself, and one that is hexadecimal."""
    secret = bytes(range(40, 72))
    assert shows(repr({"seed": secret}), [secret])
    assert shows(f"Key({secret.hex()})", [secret])
    assert not shows(hidden(SeededEntropy(secret)), [secret])
    assert not shows(repr(Identity(secret)), [secret])
