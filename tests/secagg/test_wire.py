"""The bytes on the wire are pinned: a change of any of them must raise the version and the vectors."""

import json

import pytest

from secagg import RemoteProtocolError
from secagg.binding import PROTOCOL_VERSION
from tests.secagg.rounds import Round, choose
from tests.secagg.wire_vectors import CASES, PATH, vectors

PINNED = json.loads(PATH.read_text())


@pytest.mark.parametrize("case", CASES)
def test_every_message_of_a_seeded_round_is_the_pinned_one(case):
    assert PINNED["version"] == PROTOCOL_VERSION
    made = json.loads(json.dumps(vectors()["rounds"][case]))
    assert made == PINNED["rounds"][case]


@pytest.mark.parametrize("stage", PINNED["bad"])
def test_pinned_bad_messages_are_refused(stage):
    round_ = Round(choose(**CASES["malicious"])).play_until(stage)
    for name, data in PINNED["bad"][stage].items():
        with pytest.raises(RemoteProtocolError) as caught:
            round_.server.receive(0, bytes.fromhex(data))
        assert caught.value.sender == 0, name
