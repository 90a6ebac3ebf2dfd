"""The bytes on the wire are pinned: a change of any of them must raise the version and the vectors."""

import hashlib
import json

import pytest

from secagg import RemoteProtocolError
from secagg.binding import PROTOCOL_VERSION
from tests.secagg.rounds import Round, choose
from tests.secagg.wire_vectors import CASES, HYBRID_CASES, PATH, lengths, vectors

PINNED = json.loads(PATH.read_text())
DIGESTS = {1: "c7901afec1e4df1e5723c74d162749e7e0f573502966a3254afcb29cefc21d7d"}
"""SHA-256 of the vectors of every version there was; an entry is added with a version and never changed."""


def test_the_vectors_of_a_version_never_change():
    """Who makes the vectors anew after a change of the wire raises the version, and adds its digest here."""
    assert set(DIGESTS) == set(range(1, PROTOCOL_VERSION + 1))
    assert PINNED["version"] == PROTOCOL_VERSION
    content = json.dumps([PINNED["rounds"], PINNED["lengths"]], sort_keys=True)
    assert hashlib.sha256(content.encode()).hexdigest() == DIGESTS[PROTOCOL_VERSION]


@pytest.mark.parametrize("case", CASES)
def test_every_message_of_a_seeded_round_is_the_pinned_one(case):
    made = json.loads(json.dumps(vectors()["rounds"][case]))
    assert made == PINNED["rounds"][case]


@pytest.mark.parametrize("case", HYBRID_CASES)
def test_hybrid_messages_have_the_pinned_lengths(case):
    assert lengths(case) == PINNED["lengths"][case]


@pytest.mark.parametrize("stage", PINNED["bad"])
def test_pinned_bad_messages_are_refused(stage):
    round_ = Round(choose(**CASES["malicious"])).play_until(stage)
    for name, data in PINNED["bad"][stage].items():
        with pytest.raises(RemoteProtocolError) as caught:
            round_.server.receive(0, bytes.fromhex(data))
        assert caught.value.sender == 0, name
