"""The client's own rules: its record of the sets decides, and everything secret is gone at the end."""

import copy
import os
import pickle

import numpy as np
import pytest

from secagg import (
    AuthenticationFailed,
    DuplicateMessage,
    InconsistentSets,
    LocalProtocolError,
    MalformedMessage,
    ParameterError,
    RefusedParameters,
    TooFewClients,
    UnexpectedMessage,
)
from secagg.client_state import Secrets
from secagg.messages import HEADER_BYTES
from secagg.phases import Phase
from tests.secagg.rounds import Round, choose, new_client, new_server

MODES = ["semi_honest", "malicious"]


@pytest.mark.parametrize("mode", MODES)
def test_a_round_without_dropouts(mode):
    round_ = Round(choose(adversary=mode))
    result = round_.finish()
    assert result.totals["v"].tolist() == round_.plain(range(8))
    assert all(client.phase is Phase.DONE for client in round_.clients.values())


@pytest.mark.parametrize("mode", MODES)
def test_identical_repeats_are_ignored_and_different_ones_end_the_round(mode):
    repeated = Round(choose(adversary=mode))
    while repeated.stage != "done":
        repeated.play()
        for received in repeated.down.values():
            assert repeated.clients[2].receive(received[2]) is None
    assert repeated.server.result.survivors == tuple(range(8))
    stages = list(repeated.down)
    for stage in stages:
        round_ = Round(choose(adversary=mode))
        while stage not in round_.down:
            round_.play()
        last = round_.down[stage][3]
        with pytest.raises(DuplicateMessage):
            round_.clients[3].receive(last[:-1] + bytes([last[-1] ^ 1]))
        assert round_.clients[3].phase is Phase.FAILED
        assert round_.clients[3]._secrets is None


@pytest.mark.parametrize("mode", MODES)
def test_a_failed_client_is_over_for_good_and_holds_no_secret(mode):
    round_ = Round(choose(adversary=mode)).play_until("masked_input")
    client = round_.clients[0]
    with pytest.raises(MalformedMessage, match="bytes"):
        client.receive(round_.server.message_for(0)[:-1])
    assert client.phase is Phase.FAILED
    assert client._secrets is None
    with pytest.raises(UnexpectedMessage, match="failed"):
        client.receive(round_.server.message_for(0))
    with pytest.raises(LocalProtocolError):
        client.mask(round_.inputs[0])


@pytest.mark.parametrize("mode", MODES)
def test_secrets_are_dropped_as_soon_as_they_are_not_needed(mode):
    round_ = Round(choose(adversary=mode)).play_until("masked_input")
    secrets = round_.clients[0]._secrets
    names = {"keys", "seeds"}, {"_own", "_seal_keys", "_mask_publics", "_edges"}
    assert all(hasattr(secrets, name) for name in names[0])
    assert all(hasattr(secrets.pairs, name) for name in names[1])
    round_.play()
    assert not any(hasattr(secrets, name) for name in names[0])
    assert not any(hasattr(secrets.pairs, name) for name in names[1])
    round_.finish()
    assert round_.clients[0]._secrets is None


def test_no_secret_is_in_a_repr_or_an_exception():
    round_ = Round(choose()).play_until("masked_input")
    client = round_.clients[0]
    secrets = client._secrets
    assert isinstance(secrets, Secrets)
    texts = [repr(client), repr(secrets), repr(round_.server), str(client)]
    with pytest.raises(LocalProtocolError) as caught:
        pickle.dumps(client)
    texts.append(str(caught.value))
    with pytest.raises(DuplicateMessage) as second:
        client.receive(round_.down["advertise"][0][:-1] + b"x")
    texts.append(str(second.value))
    texts += [repr(secrets.keys), repr(secrets.pairs), repr(secrets.keys.masks)]
    hidden = [*secrets.seeds, *(key for pair in secrets.pairs._seal_keys for key in pair)]
    for text in texts:
        assert not any(secret.hex() in text or repr(secret)[2:-1] in text for secret in hidden)


@pytest.mark.parametrize("attempt", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_live_round_is_neither_copied_nor_pickled(attempt):
    for stage in ("advertise", "share", "masked_input", "unmask"):
        client = Round(choose()).play_until(stage).clients[0]
        with pytest.raises(LocalProtocolError, match="copied or pickled"):
            attempt(client)


@pytest.mark.filterwarnings(
    "ignore:os.fork:RuntimeWarning"
)  # JAX, where another test loaded it, warns of forks.
@pytest.mark.parametrize("call", ["receive", "mask"])
def test_a_forked_child_cannot_go_on_and_its_parent_can(call):
    round_ = Round(choose()).play_until("masked_input")
    client, message = round_.clients[0], round_.server.message_for(0)
    if call == "mask":
        client.receive(message)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            client.receive(message) if call == "receive" else client.mask(round_.inputs[0])
            os.write(write, b"went on")
        except LocalProtocolError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"forked" in os.read(read, 200)
    os.close(read)
    os.close(write)
    answer = client.mask(round_.inputs[0]) if call == "mask" else client.receive(message)
    assert answer is None or len(answer) > HEADER_BYTES


def test_inputs_that_do_not_fit_are_refused_by_name():
    good = np.arange(5, dtype=np.uint32)
    for wrong, match in [
        ({}, "are named"),
        ({"w": good}, "are named"),
        ({"v": good, "w": good}, "are named"),
        ({"v": good[:4]}, "shape"),
        ({"v": good.reshape(1, 5)}, "shape"),
        ({"v": good.astype(np.float64)}, "integers"),
        ({"v": good.astype(np.int64) - 1}, "outside"),
        ({"v": good + np.uint32(65532)}, "outside"),
    ]:
        round_ = Round(choose()).play_until("masked_input")
        client = round_.clients[0]
        client.receive(round_.server.message_for(0))
        with pytest.raises(ParameterError, match=match):
            client.mask(wrong)
        assert client.phase is Phase.FAILED


def test_an_input_is_copied_not_changed():
    round_ = Round(choose()).play_until("masked_input")
    before = round_.inputs[0]["v"].copy()
    round_.play()
    assert (round_.inputs[0]["v"] == before).all()


@pytest.mark.parametrize("client_id", [-1, 2**63])
def test_ids_out_of_range_are_refused(client_id):
    with pytest.raises(ParameterError, match="out of range"):
        new_client(choose(), client_id)


def test_malicious_mode_needs_an_identity_in_the_roster():
    parameters = choose(adversary="malicious")
    with pytest.raises(ParameterError, match="identity"):
        new_client(parameters, 0, identity=None)
    with pytest.raises(ParameterError, match="trusted roster"):
        new_client(parameters, 0, identities=None)
    stranger = new_client(parameters, 1)._identity
    with pytest.raises(ParameterError, match="does not stand"):
        new_client(parameters, 0, identity=stranger)


def test_offer_of_another_session_is_refused():
    parameters = choose()
    offer = new_server(parameters).message_for(0)
    bent = offer[:10] + bytes([offer[10] ^ 1]) + offer[11:]
    with pytest.raises(RefusedParameters, match="another session"):
        new_client(parameters, 0).receive(bent)


def test_roster_without_this_client_or_with_other_keys_of_it_is_refused():
    for bend in ("missing", "channel", "mask"):
        round_ = Round(choose(threshold=5)).play_until("share")
        message = round_.server.message_for(0)
        row = 72
        body = message[HEADER_BYTES:]
        if bend == "missing":
            bent = message[:HEADER_BYTES] + body[row:]
        else:
            at = 8 if bend == "channel" else 40
            other = body[row + at : row + at + 31] + b"\x01"
            bent = message[:HEADER_BYTES] + body[:at] + other + body[at + 32 :]
        with pytest.raises(InconsistentSets, match="keys it advertised"):
            round_.clients[0].receive(bent)


def test_nothing_opens_for_a_client_of_another_context():
    round_ = Round(choose()).play_until("masked_input")
    message = round_.server.message_for(0)
    bent = message[: HEADER_BYTES + 1] + bytes(len(message) - HEADER_BYTES - 1)
    with pytest.raises(AuthenticationFailed, match="nothing opened"):
        round_.clients[0].receive(bent)


@pytest.mark.parametrize("mode", MODES)
def test_sets_below_the_floors_are_refused(mode):
    parameters = choose(adversary=mode, minimum_survivors=7)
    round_ = Round(parameters).play_until("unmask" if mode == "semi_honest" else "consistency")
    message = round_.server.message_for(0)
    bent = message[:-1] + b"\x3f"
    with pytest.raises(TooFewClients) as caught:
        round_.clients[0].receive(bent)
    assert (caught.value.have, caught.value.need) == (6, 7)


@pytest.mark.parametrize("mode", MODES)
def test_a_u2_with_too_few_share_holders_is_refused_before_the_input(mode):
    """The smallest set that is taken has the threshold's number of them; nothing was masked for a smaller one."""
    round_ = Round(choose(adversary=mode)).play_until("masked_input")
    server, codec = round_.server, round_.server._codec
    need = round_.parameters.threshold
    for client, inside in ((0, need), (1, need - 1)):
        others = [other for other in range(8) if other != client][: inside - 1]
        shown = np.isin(np.arange(8), [client, *others])
        rows, hashes = server._sealed.incoming(client, shown), server._shares.hashes_for(client, shown)
        message = codec.encode_inbox(shown, rows, hashes, [])
        if inside == need:
            assert round_.clients[client].receive(message) is None
            continue
        with pytest.raises(TooFewClients, match="share holders") as caught:
            round_.clients[client].receive(message)
        assert (caught.value.have, caught.value.need) == (need - 1, need)
