"""Byzantine dealers and holders: the sum is exact or nothing is released, and blame falls right or not at all.

Rows of the attack table: bad ciphertexts to one or all, one wrong share, a polynomial of too high a degree, a top
word out of range, shares at points 0 or p, words outside the field, wrong records at the end, false complaints.
"""

import numpy as np
import pytest

from secagg import (
    AuthenticationFailed,
    Fault,
    MalformedMessage,
    ParameterError,
    RevealRule,
    TooFewClients,
    shamir,
)
from secagg.client import Client
from secagg.messages import HEADER_BYTES
from tests.secagg.rounds import Round, choose, identity_of

BAD = 3
ACCEPTED_ANOTHER = "it revealed another share than it had accepted"
COMPLAINED = "the holder complained of its share"
MISDEALT = "it committed to shares that do not fit"
OFF = "the revealed share does not fit the others"


class BentDealer(Client):
    """A client whose rows of records, one per holder, are bent before they are hashed and sealed."""

    bend = staticmethod(lambda rows: rows)
    seeds = staticmethod(lambda seeds: seeds)

    def _rows(self, secrets):
        kept, secrets.seeds = secrets.seeds, self.seeds(secrets.seeds)
        rows = super()._rows(secrets)
        secrets.seeds = kept
        return self.bend(rows)


def byzantine(*, bend=None, seeds=None, mode="malicious", rule=None, **settings):
    round_ = Round(choose(clients=9, adversary=mode, **settings), rule=rule)
    trust = {"identity": identity_of(BAD), "identities": round_.clients[BAD]._identities}
    dealer = BentDealer(round_.parameters, BAD, rule=rule, **(trust if mode == "malicious" else {}))
    dealer.bend = bend or BentDealer.bend
    dealer.seeds = seeds or BentDealer.seeds
    round_.clients[BAD] = dealer
    return round_


def record(round_, index):
    """Where one record of a row is."""
    width = round_.server._codec.record_bytes
    return slice(index * width, (index + 1) * width)


def bend_sealed(round_, holders, *, hashes=False):
    """Bend one byte of a sealed row, or of a hash row, of each of `holders` on its way to the server."""
    codec = round_.server._codec
    width = codec.hash_row_bytes if hashes else codec.row_bytes

    def bend(client, message):
        if client != BAD:
            return message
        bent = bytearray(message)
        for holder in holders:
            rows = HEADER_BYTES + 32
            place = holder - (holder > BAD)
            if hashes:
                rows += 8 * codec.row_bytes
                place = holder
            bent[rows + place * width] ^= 1
        return bytes(bent)

    return bend


@pytest.mark.parametrize("hashes", [False, True])
def test_a_bad_ciphertext_or_hash_for_one_holder_stops_nobody(hashes):
    round_ = Round(choose(clients=9, adversary="malicious")).play_until("share")
    round_.play(up=bend_sealed(round_, [5], hashes=hashes))
    result = round_.finish()
    assert result.totals["v"].tolist() == round_.plain(range(9))
    assert round_.server.faults == (Fault(BAD, 5, COMPLAINED),)


@pytest.mark.parametrize("silent", [(), (BAD,)])
def test_bad_ciphertexts_for_all_abort_and_name_the_pairs(silent):
    """Nobody can answer for the dealer; every complaint names it or the holder, and no holder stands alone."""
    round_ = Round(choose(clients=9, adversary="malicious")).play_until("share")
    round_.play(up=bend_sealed(round_, [c for c in range(9) if c != BAD]))
    round_.play(silent=silent)
    with pytest.raises(TooFewClients, match=f"share holders of client {BAD}"):
        round_.finish()
    assert {fault.dealer for fault in round_.server.faults} == {BAD}
    assert {fault.holder for fault in round_.server.faults} == set(range(9)) - {BAD}


def test_enough_bad_ciphertexts_below_the_threshold_still_give_the_sum():
    round_ = Round(choose(clients=9, adversary="malicious")).play_until("share")
    spoilt = [0, 1, 2, 4]
    assert 9 - len(spoilt) == round_.parameters.threshold
    round_.play(up=bend_sealed(round_, spoilt))
    assert round_.finish().totals["v"].tolist() == round_.plain(range(9))


def wrong_share(rows, index, holders, secrets=2):
    """Other records for some holders, which the dealer hashes and seals as if they were right."""
    width = len(rows[0]) // secrets
    for holder in holders:
        row = bytearray(rows[holder])
        row[index * width + 20 : index * width + 26] = b"\1\2\3\4\5\6"
        rows[holder] = bytes(row)
    return rows


@pytest.mark.parametrize("holders", [[0], [0, 5]])
@pytest.mark.parametrize("what", ["self mask", "mask key", "conditional"])
@pytest.mark.parametrize("mode", ["semi_honest", "malicious"])
def test_a_few_wrong_shares_of_a_dealer_are_left_out(what, holders, mode):
    """Two of nine are off the polynomial and any five give it: the sum comes out, and the dealer is named."""
    extra = {"conditional_secrets": 1, "reveal_rule": "all"} if what == "conditional" else {}
    rule = RevealRule("all", lambda parameters, shared, survivors: [1]) if extra else None
    index = ["self mask", "mask key", "conditional"].index(what)
    round_ = byzantine(
        bend=lambda rows: wrong_share(rows, index, holders, 2 + len(extra) // 2),
        mode=mode,
        rule=rule,
        **extra,
    ).play_until("masked_input")
    silent = [BAD] if what == "mask key" else []
    round_.play(silent=silent)
    result = round_.finish()
    assert result.totals["v"].tolist() == round_.plain(c for c in range(9) if c not in silent)
    if mode == "malicious":
        assert round_.server.faults == (Fault(BAD, None, MISDEALT),)
    else:
        assert round_.server.faults == tuple(Fault(BAD, holder, OFF) for holder in holders)
    if extra:
        assert all(set(seeds) == {1} for seeds in result.revealed.values())


@pytest.mark.parametrize("holders", [[0], [0, 5]])
def test_without_hashes_holders_that_lie_are_left_out_and_named_with_each_dealer(holders):
    """A flipped bit in every record of two holders; nobody but the pair can be named."""
    round_ = Round(choose(clients=9)).play_until("unmask")

    def flip(client, message):
        if client not in holders:
            return message
        body = np.frombuffer(message[HEADER_BYTES:], "<u2").copy()
        body[::18] ^= 1
        return message[:HEADER_BYTES] + body.tobytes()

    round_.play(up=flip)
    assert round_.server.result.totals["v"].tolist() == round_.plain(range(9))
    pairs = {(fault.dealer, fault.holder) for fault in round_.server.faults}
    assert pairs == {(dealer, holder) for dealer in range(9) for holder in holders}
    assert {fault.reason for fault in round_.server.faults} == {OFF}


def test_more_wrong_shares_than_can_be_told_apart_release_nothing():
    round_ = byzantine(bend=lambda rows: wrong_share(rows, 0, [0, 1, 2, 4, 5])).play_until("unmask")
    with pytest.raises(AuthenticationFailed, match="nothing is released") as caught:
        round_.finish()
    assert caught.value.sender == BAD
    assert round_.server.faults == (Fault(BAD, None, MISDEALT),)


@pytest.mark.parametrize("mode", ["semi_honest", "malicious"])
def test_what_is_left_without_the_wrong_shares_must_be_the_committed_secret_too(mode):
    round_ = byzantine(
        seeds=lambda seeds: [b"x" * 32, *seeds[1:]],
        bend=lambda rows: wrong_share(rows, 0, [0]),
        mode=mode,
    ).play_until("unmask")
    with pytest.raises(AuthenticationFailed, match="nothing is released"):
        round_.finish()
    assert round_.server.faults == ((Fault(BAD, None, MISDEALT),) if mode == "malicious" else ())


def test_a_wrong_share_that_nobody_needs_harms_nobody():
    """Its holder is silent, so the right ones suffice."""
    round_ = byzantine(bend=lambda rows: wrong_share(rows, 0, [0]))
    round_.play_until("unmask")
    round_.play(silent=[0])
    assert round_.server.result.totals["v"].tolist() == round_.plain(range(9))


def test_a_polynomial_of_too_high_a_degree_names_the_dealer():
    def higher(rows):
        """Deal the same secret again with a higher threshold, keeping salts and the second secret."""
        words = shamir.share([bytes(32)], threshold=9, shares=9, entropy=np.random.default_rng(1).bytes)
        width = len(rows[0]) // 2
        return [row[:16] + words[0, i].astype("<u2").tobytes() + row[width:] for i, row in enumerate(rows)]

    round_ = byzantine(bend=higher).play_until("unmask")
    with pytest.raises(AuthenticationFailed) as caught:
        round_.finish()
    assert caught.value.sender == BAD
    assert [(f.dealer, f.holder) for f in round_.server.faults] == [(BAD, None)]


def test_consistent_shares_of_another_secret_name_the_dealer():
    round_ = byzantine(seeds=lambda seeds: [b"x" * 32, *seeds[1:]]).play_until("unmask")
    with pytest.raises(AuthenticationFailed):
        round_.finish()
    assert round_.server.faults == (Fault(BAD, None, MISDEALT),)


def test_shares_of_another_mask_seed_show_when_the_dealer_drops_out():
    round_ = byzantine(seeds=lambda seeds: [seeds[0], b"x" * 32]).play_until("masked_input")
    round_.play(silent=[BAD])
    with pytest.raises(AuthenticationFailed):
        round_.finish()
    assert round_.server.faults[0].dealer == BAD


def test_a_top_word_out_of_range_is_reported_not_folded():
    """Words of a constant polynomial: each share is the secret itself, its top word 2."""

    def constant(rows):
        words = np.zeros(18, "<u2")
        words[17] = 2
        width = len(rows[0]) // 2
        return [row[:16] + words.tobytes() + row[width:] for row in rows]

    round_ = byzantine(bend=constant).play_until("unmask")
    with pytest.raises(AuthenticationFailed):
        round_.finish()
    assert [(f.dealer, f.holder) for f in round_.server.faults] == [(BAD, None)]


def test_words_outside_the_field_are_complained_of_at_once():
    def outside(rows):
        row = bytearray(rows[0])
        row[16:18] = shamir.PRIME.to_bytes(2, "little")
        return [bytes(row), *rows[1:]]

    round_ = byzantine(bend=outside)
    assert round_.finish().totals["v"].tolist() == round_.plain(range(9))
    assert round_.server.faults == (Fault(BAD, 0, COMPLAINED),)


def test_nobody_ever_gets_the_share_at_point_zero_or_p():
    """Places start at one, and a holder list that would reach p is refused."""
    with pytest.raises(ParameterError, match="sparse"):
        choose(clients=shamir.PRIME, graph="complete")
    for round_ in (Round(choose()), Round(choose(adversary="malicious"))):
        round_.play_until("done")
    secrets = [bytes(32), b"\1" * 32]
    dealt = shamir.share(secrets, threshold=2, shares=5, entropy=np.random.default_rng(0).bytes)
    for index, secret in enumerate(secrets):
        assert shamir.encode_share(dealt[index, 0]) != secret
    with pytest.raises(ParameterError):
        shamir.reconstruct([0, 1], dealt[:, :2])
    with pytest.raises(ParameterError):
        shamir.reconstruct([1, shamir.PRIME], dealt[:, :2])


@pytest.mark.parametrize("at", [0, 20])
def test_a_holder_that_reveals_another_share_is_named_alone_and_its_record_left_out(at):
    """Salt or share: both are under the dealer's hash."""
    round_ = Round(choose(clients=9, adversary="malicious")).play_until("unmask")

    def bend(client, message):
        if client != 5:
            return message
        bent = bytearray(message)
        bent[HEADER_BYTES + record(round_, BAD).start + at] ^= 1
        return bytes(bent)

    round_.play(up=bend)
    assert round_.server.result.totals["v"].tolist() == round_.plain(range(9))
    assert round_.server.faults == (Fault(None, 5, ACCEPTED_ANOTHER),)


def test_a_record_with_a_word_outside_the_field_refuses_the_whole_message():
    round_ = Round(choose(clients=9, adversary="malicious")).play_until("unmask")

    def bend(client, message):
        return message[:-2] + b"\xff\xff" if client == 5 else message

    round_.play(up=bend)
    assert isinstance(round_.refused[5], MalformedMessage)
    assert round_.refused[5].sender == 5
    assert round_.server.result.totals["v"].tolist() == round_.plain(range(9))


def test_a_false_complaint_withholds_that_share_only_and_bans_nobody():
    round_ = Round(choose(clients=9, adversary="malicious")).play_until("masked_input")

    def complain(client, message):
        if client != 5:
            return message
        return message[:-1] + b"\x01"

    round_.clients[5]._secrets.rows = []
    round_.play(up=complain)
    lying = round_.clients[5]
    lying._secrets.rows[0] = None
    result = round_.finish()
    assert result.totals["v"].tolist() == round_.plain(range(9))
    assert round_.server.faults == (Fault(0, 5, COMPLAINED),)


def test_a_complaint_about_somebody_who_shared_nothing_is_refused():
    round_ = Round(choose(clients=9)).play_until("share")
    round_.play(silent=[0])
    round_.play(up=lambda c, m: m[:-1] + b"\x01" if c == 5 else m)
    assert isinstance(round_.refused[5], MalformedMessage)
    assert round_.finish().survivors == (1, 2, 3, 4, 6, 7, 8)


def test_honest_holders_are_never_named_alone_whatever_a_dealer_does():
    """A dealer that bends records, hashes and ciphertexts at random, forty times, fixed seed."""
    rng = np.random.default_rng(5)
    for _ in range(40):
        index, holders = int(rng.integers(2)), rng.choice(9, int(rng.integers(1, 9)), replace=False).tolist()
        round_ = byzantine(bend=lambda rows, i=index, h=holders: wrong_share(rows, i, h))
        round_.play_until("share")
        spoilt = [h for h in rng.choice(9, 2, replace=False).tolist() if h != BAD]
        round_.play(up=bend_sealed(round_, spoilt, hashes=bool(rng.integers(2))))
        try:
            round_.play(silent=[BAD] if rng.integers(2) else [])
            total = round_.finish()
        except (AuthenticationFailed, TooFewClients):
            total = None
        if total is not None:
            assert total.totals["v"].tolist() == round_.plain(total.survivors)
        assert all(fault.dealer == BAD for fault in round_.server.faults)


def test_in_semi_honest_mode_shares_of_another_secret_release_nothing_and_blame_nobody():
    round_ = byzantine(seeds=lambda seeds: [b"x" * 32, *seeds[1:]], mode="semi_honest").play_until("unmask")
    with pytest.raises(AuthenticationFailed, match=f"client {BAD}"):
        round_.finish()
    assert round_.server.faults == ()


def test_every_spare_holder_may_lie_where_shares_have_hashes():
    """Four of nine, the first ones, reveal other shares; the five that are left are the threshold."""
    round_ = Round(choose(clients=9, adversary="malicious")).play_until("unmask")
    assert round_.parameters.threshold == 5

    def flip(client, message):
        at = HEADER_BYTES + record(round_, BAD).start + 16
        return message if client > 3 else message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]

    round_.play(up=flip)
    assert round_.server.result.totals["v"].tolist() == round_.plain(range(9))
    assert round_.server.faults == tuple(Fault(None, holder, ACCEPTED_ANOTHER) for holder in range(4))
