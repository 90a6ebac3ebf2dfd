"""An active server lies about the sets U2 and U3: at most one sum comes out, and never both shares of a client.

Rows of the attack table: both shares asked, equivocation, reflected and moved tags, withheld ciphertexts, a
minimal U2, all but one dropped, late and second inputs, a restarted server.
"""

import numpy as np
import pytest

from secagg import (
    DuplicateMessage,
    InconsistentSets,
    LocalProtocolError,
    SecAggError,
    TooFewClients,
    UnexpectedMessage,
)
from secagg import keys as keys_module
from secagg.binding import vector_fields
from secagg.masking import apply_masks
from secagg.messages import HEADER_BYTES, bitmap
from secagg.phases import Phase
from secagg.ring import reduce, unpack
from tests.secagg.rounds import Round, choose, meanwhile, new_client

MODES = ["semi_honest", "malicious"]


def with_set(message, mask):
    """A survivors message that names another set."""
    return message[:HEADER_BYTES] + bitmap(np.array(mask, np.bool_))


def malicious(clients=10, **settings):
    return Round(choose(clients=clients, adversary="malicious", corruption=0.2, **settings))


def show_sets(round_, sets):
    """Show every client its own U3; return the tags that came back, by sender and receiver."""
    tags = {}
    for client in round_.clients:
        message = with_set(round_.server.message_for(client), sets[client])
        body = round_.clients[client].receive(message)[HEADER_BYTES:]
        receivers = [c for c in round_.clients if c != client and sets[client][c]]
        tags[client] = {c: body[32 * i : 32 * (i + 1)] for i, c in enumerate(receivers)}
    return tags


def nobody_unmasks(round_, sets, tag_shown):
    """Show every client the tags that `tag_shown(sender, receiver)` picks; nobody may answer with a share."""
    for client in round_.clients:
        senders = [c for c in round_.clients if c != client and sets[client][c]]
        tags = b"".join(tag_shown(sender, client) for sender in senders)
        with pytest.raises(TooFewClients, match="saw the same sets"):
            round_.clients[client].receive(round_.server._codec.encode_tags(tags))
        assert round_.clients[client].phase is Phase.FAILED
    return True


@pytest.mark.parametrize("mode", MODES)
def test_client_refuses_to_reveal_both_shares(mode):
    """A second U3 that drops somebody would give the mask-key share after the self-mask share."""
    round_ = Round(choose(adversary=mode)).play_until("unmask" if mode == "semi_honest" else "consistency")
    client, message = round_.clients[0], round_.server.message_for(0)
    other = with_set(message, [1, 1, 1, 1, 1, 1, 1, 0])
    assert client.receive(message)
    assert client.receive(message) is None
    with pytest.raises(DuplicateMessage):
        client.receive(other)
    assert client.phase is Phase.FAILED
    with pytest.raises((DuplicateMessage, UnexpectedMessage)):
        client.receive(other)


@pytest.mark.parametrize("mode", MODES)
def test_two_threads_with_two_survivor_sets_get_one_answer(mode):
    """The second set arrives while the first is being read, before anything is remembered of it."""
    stage = "unmask" if mode == "semi_honest" else "consistency"
    round_ = Round(choose(adversary=mode)).play_until(stage)
    client, message = round_.clients[0], round_.server.message_for(0)
    other = with_set(message, [1, 1, 1, 1, 1, 1, 1, 0])
    refused = meanwhile(client._codec, "decode_survivors", lambda: client.receive(other))
    assert client.receive(message)
    (error,) = refused
    assert isinstance(error, LocalProtocolError)
    assert client.phase is (Phase.DONE if mode == "semi_honest" else Phase.TAGGED)


def test_two_threads_that_mask_get_one_masked_input():
    """Two inputs under one set of masks would show their difference."""
    round_ = Round(choose()).play_until("masked_input")
    client = round_.clients[0]
    client.receive(round_.server.message_for(0))
    refused = meanwhile(client, "_masks", lambda: client.mask(round_.inputs[1]))
    masked = client.mask(round_.inputs[0])
    (error,) = refused
    assert isinstance(error, LocalProtocolError)
    round_.server.receive(0, masked)


def test_a_second_u3_after_tagging_ends_the_round_before_any_share():
    round_ = malicious().play_until("unmask")
    client, tags = round_.clients[0], round_.server.message_for(0)
    with pytest.raises(DuplicateMessage):
        client.receive(with_set(round_.down["consistency"][0], [1] * 9 + [0]))
    with pytest.raises(UnexpectedMessage):
        client.receive(tags)


@pytest.mark.parametrize("mode", MODES)
def test_one_record_per_peer_and_the_set_decides_which(mode):
    """The unmask message has one record for each dealer; the share of the other secret is nowhere in it."""
    round_ = Round(choose(adversary=mode))
    round_.play().play().play(silent=[5])
    rows = dict(enumerate(round_.clients[0]._secrets.rows, start=1))
    codec = round_.clients[0]._codec
    round_.play_until("done")
    answer = round_.up["unmask"][0]
    assert len(answer) == HEADER_BYTES + 8 * codec.record_bytes
    for peer, row in rows.items():
        shown, hidden = (1, 0) if peer == 5 else (0, 1)
        assert codec.record(row, shown) in answer
        assert codec.record(row, hidden)[codec.salt_bytes :] not in answer


@pytest.mark.parametrize("mode", MODES)
def test_u3_outside_u2_or_without_the_client_is_refused(mode):
    stage = "unmask" if mode == "semi_honest" else "consistency"
    for mask in ([0, 1, 1, 1, 1, 1, 1, 0], [1] * 8):
        round_ = Round(choose(adversary=mode))
        round_.play().play(silent=[7]).play_until(stage)
        with pytest.raises(InconsistentSets):
            round_.clients[0].receive(with_set(round_.server.message_for(0), mask))


@pytest.mark.parametrize("mode", MODES)
def test_u3_without_enough_of_the_clients_own_share_holders_is_refused(mode):
    """On a ring, a sum over many clients can leave one of them with too few holders of its own in it."""
    parameters = choose(
        clients=100, graph="sparse", adversary=mode, dropout=0.05, corruption=0.05, minimum_survivors=7
    )
    round_ = Round(parameters).play_until("unmask" if mode == "semi_honest" else "consistency")
    need = parameters.threshold

    def shown(client, inside):
        """A U3 of everybody but share holders of the client, of which `inside` are left, itself among them."""
        survivors = np.ones(100, np.bool_)
        survivors[round_.clients[client]._place.neighbours[inside - 1 :]] = False
        assert survivors.sum() >= parameters.minimum_survivors
        return with_set(round_.server.message_for(client), survivors)

    assert round_.clients[0].receive(shown(0, need))
    with pytest.raises(TooFewClients, match="share holders") as caught:
        round_.clients[1].receive(shown(1, need - 1))
    assert (caught.value.have, caught.value.need) == (need - 1, need)


WITHOUT_9, WITHOUT_0 = [1] * 9 + [0], [0] + [1] * 9
TWO_SETS = {c: WITHOUT_9 if c < 5 else WITHOUT_0 for c in range(10)}


def test_equivocated_u3_unmasks_nobody():
    round_ = malicious().play_until("consistency")
    tags = show_sets(round_, TWO_SETS)
    assert nobody_unmasks(round_, TWO_SETS, lambda sender, receiver: tags[sender].get(receiver, bytes(32)))


def test_equivocated_u2_under_one_u3_unmasks_nobody():
    """Half the clients believe that client 9 shared, the others that it did not; all tag the same U3."""
    round_ = malicious()
    round_.play().play(silent=[9])
    pretended = round_.server._shared.copy()
    pretended[9] = True

    def tell(client, message):
        if client < 5:
            return message
        rows = message[HEADER_BYTES + 2 :]
        codec = round_.server._codec
        sealed, hashes = rows[: 8 * codec.row_bytes], rows[8 * codec.row_bytes :]
        return (
            message[:HEADER_BYTES]
            + bitmap(pretended)
            + sealed
            + bytes(codec.row_bytes)
            + hashes
            + bytes(codec.hash_row_bytes)
        )

    round_.play(down=tell, up=lambda c, answer: forget_complaints(answer) if c >= 5 else answer)
    assert round_.stage == "consistency"
    sets = dict.fromkeys(range(9), WITHOUT_9)
    del round_.clients[9]
    tags = show_sets(round_, sets)
    assert nobody_unmasks(round_, sets, lambda sender, receiver: tags[sender][receiver])


def forget_complaints(answer):
    return answer[:-2] + bytes(2)


def test_own_tag_reflected_is_no_tag():
    """The server equivocates and gives each client its own tags back as those of the others."""
    round_ = malicious().play_until("consistency")
    tags = show_sets(round_, TWO_SETS)
    assert nobody_unmasks(round_, TWO_SETS, lambda sender, receiver: tags[receiver][sender])


def test_tag_moved_to_another_receiver_is_no_tag():
    """Every tag is one that its sender made over the very same sets, for somebody else."""
    round_ = malicious().play_until("consistency")
    sets = {c: [1] * 10 for c in range(10)}
    tags = show_sets(round_, sets)

    def moved(sender, receiver):
        return next(tag for other, tag in tags[sender].items() if other not in (receiver, sender))

    assert nobody_unmasks(round_, sets, moved)


def test_tags_of_another_round_are_no_tags():
    one, other = malicious().play_until("consistency"), malicious(round=4).play_until("consistency")
    sets = {c: [1] * 10 for c in range(10)}
    show_sets(one, sets)
    tags = show_sets(other, sets)
    assert nobody_unmasks(one, sets, lambda sender, receiver: tags[sender][receiver])


def test_a_bad_tag_is_a_missing_tag_and_blames_nobody():
    round_ = malicious()
    spoil = [1, 2]
    kept = Round(round_.parameters)
    kept.play_until("consistency")
    kept.play(
        up=lambda c, answer: (
            answer[:HEADER_BYTES] + bytes(len(answer) - HEADER_BYTES) if c in spoil else answer
        )
    )
    result = kept.finish()
    assert result.totals["v"].tolist() == kept.plain(range(10))
    assert kept.server.faults == ()


def test_too_few_valid_tags_release_nothing():
    round_ = malicious().play_until("consistency")
    threshold = round_.parameters.threshold
    silent = range(threshold - 1, 10)
    with pytest.raises(TooFewClients):
        round_.play(silent=silent)
    assert round_.shares_out() == 0


def test_ciphertexts_withheld_one_way_still_give_one_exact_sum():
    """The receiver masks with everyone in U2, opened or not, and lists what did not open."""
    round_ = malicious().play_until("masked_input")

    def withhold(client, message):
        width = round_.server._codec.row_bytes
        start = HEADER_BYTES + 2
        return message[:start] + bytes(width) + message[start + width :] if client in (3, 4) else message

    round_.play(down=withhold)
    result = round_.finish()
    assert result.totals["v"].tolist() == round_.plain(range(10))
    assert {(f.dealer, f.holder) for f in round_.server.faults} == {(0, 3), (0, 4)}


def test_withheld_ciphertexts_of_a_dropped_client_leave_its_share_holders_out_only():
    round_ = malicious().play_until("masked_input")

    def withhold(client, message):
        width = round_.server._codec.row_bytes
        start = HEADER_BYTES + 2
        return message[:start] + bytes(width) + message[start + width :] if client in (3, 4) else message

    round_.play(down=withhold, silent=[0])
    assert round_.finish().totals["v"].tolist() == round_.plain(range(1, 10))


def test_a_victim_with_a_minimal_u2_is_never_unmasked_alone():
    """The victim is shown the fewest clients that it accepts; then the honest ones among them are dropped.

    What would be left for the server is the victim's self mask; no t holders ever answer for it under a U3
    without those clients, because t is more than half of everyone.
    """
    round_ = malicious().play_until("masked_input")
    threshold = round_.parameters.threshold
    codec = round_.server._codec
    seen = np.arange(10) < threshold

    def minimal(client, message):
        if client != 0:
            return message
        rows = threshold - 1
        start = HEADER_BYTES + 2
        hashes = start + 9 * codec.row_bytes
        return (
            message[:HEADER_BYTES]
            + bitmap(seen)
            + message[start : start + rows * codec.row_bytes]
            + message[hashes : hashes + rows * codec.hash_row_bytes]
        )

    round_.play(down=minimal)
    assert not round_.errors
    dropped = with_set(round_.server.message_for(1), ~seen | (np.arange(10) == 0))
    for client in [0, *range(threshold, 10)]:
        with pytest.raises(SecAggError):
            round_.clients[client].receive(dropped)


@pytest.mark.parametrize("mode", MODES)
def test_all_but_one_dropped_gives_no_output(mode):
    round_ = Round(choose(adversary=mode)).play_until("masked_input")
    with pytest.raises(TooFewClients):
        round_.play(silent=range(1, 8))
    with pytest.raises(LocalProtocolError):
        _ = round_.server.result
    alone = Round(choose(adversary=mode)).play_until("unmask" if mode == "semi_honest" else "consistency")
    with pytest.raises(TooFewClients):
        alone.clients[0].receive(with_set(alone.server.message_for(0), [1] + [0] * 7))


def test_a_late_input_stays_hidden_although_its_mask_key_was_recovered():
    """Everything pairwise can be taken off the late upload, and what is left is still under its self mask.

    Power: with the self mask, which nobody ever reveals of a client outside the sum, the input is there.
    """
    round_ = Round(choose()).play_until("masked_input")
    self_mask_seed = round_.clients[5]._secrets.seeds[0]
    late = round_.answer(5, round_.server.message_for(5))
    round_.play(silent=[5])
    with pytest.raises(UnexpectedMessage, match="masked_input is not allowed in phase unmask"):
        round_.server.receive(5, late)
    round_.finish()
    server, vector = round_.server, round_.parameters.vectors[0]
    bits, context, fields = vector.modulus_bits, server._context, [vector_fields(0, vector)]
    seeds = dict(server._shares.recover(0, np.array([5])))
    pair = keys_module.derive_mask_pair(seeds[5], server._session)
    _, (packed,) = server._codec.decode_masked_input(late, neighbours=7, sender=5)
    left = unpack(packed, length=vector.padded_length, bits=bits)
    for other in [c for c in range(8) if c != 5]:
        public = server._roster.mask_key(other)
        (key,) = keys_module.mask_keys(pair, public, context, 5, other, fields)
        apply_masks(left, [(key, -1 if other > 5 else 1)], bits=bits)
    reduce(left, bits)
    assert (left[: vector.length] != round_.inputs[5]["v"]).all()
    assert (left[vector.length :] != 1).all()
    apply_masks(left, [(keys_module.self_mask_keys(self_mask_seed, context, 5, fields)[0], -1)], bits=bits)
    reduce(left, bits)
    assert left[: vector.length].tolist() == round_.inputs[5]["v"].tolist()


def test_a_different_second_input_is_refused_and_an_identical_one_ignored():
    round_ = Round(choose()).play_until("masked_input")
    round_.play(close=False)
    good = round_.up["masked_input"][2]
    round_.server.receive(2, good)
    with pytest.raises(DuplicateMessage) as caught:
        round_.server.receive(2, good[:-1] + bytes([good[-1] ^ 1]))
    assert caught.value.sender == 2
    round_.server.advance()
    assert round_.finish().totals["v"].tolist() == round_.plain(range(8))


@pytest.mark.parametrize("mode", MODES)
def test_a_restarted_server_with_another_u3_gets_nothing(mode):
    """The same clients, a server that lost its state and closes the masked inputs differently."""
    round_ = Round(choose(adversary=mode)).play_until("unmask" if mode == "semi_honest" else "consistency")
    message = round_.server.message_for(0)
    round_.play()
    second = with_set(message, [1, 1, 1, 1, 1, 1, 1, 0])
    for client in round_.clients.values():
        with pytest.raises(DuplicateMessage):
            client.receive(second)


def test_a_server_restarted_from_the_offer_gets_nothing_from_a_client_that_advertised():
    parameters = choose()
    client = new_client(parameters, 0)
    first, second = Round(parameters), Round(parameters)
    client.receive(first.server.message_for(0))
    offer = second.server.message_for(0)
    offer = offer[:HEADER_BYTES] + bytes([offer[HEADER_BYTES] ^ 1]) + offer[HEADER_BYTES + 1 :]
    with pytest.raises(DuplicateMessage):
        client.receive(offer)
