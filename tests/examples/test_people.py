"""The people experiment in small: both promises in the rows, who is held out, and nothing run twice."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from examples import people
from fedavg.datasets import is_cached
from fedavg.datasets.har import PACKAGE

pytestmark = pytest.mark.skipif(not is_cached(PACKAGE), reason="`veilsum data har` fetches it")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    done = people.main(["--small", "--output", str(folder)])
    assert json.loads((folder / "people.json").read_text()) == done
    return done, folder


def test_every_promise_is_kept_against_both_observers(rows):
    private = [row for row in rows[0] if "private" in row["setting"] and "no privacy" not in row["setting"]]
    assert [row["readers"] for row in private] == pytest.approx([8, 2, 2, 8], abs=0.01)
    assert [row["server"] for row in private] == [row["readers"] for row in private]
    assert all(row["total_readers"] == pytest.approx(row["readers"] + 0.5, abs=0.01) for row in private)
    assert [row["bytes_up_per_client"] > 0 for row in private] == [False, False, False, True]


def test_what_promises_nothing_names_no_epsilon(rows):
    open_rows = [row for row in rows[0] if "central" in row["setting"] or "no privacy" in row["setting"]]
    assert len(open_rows) == 2
    assert not any("readers" in row or "server" in row for row in open_rows)


def test_nothing_is_run_twice(rows, monkeypatch):
    done, folder = rows
    for name in ("People", "in_the_open", "privately"):
        monkeypatch.setattr(people, name, None)
    assert people.main(["--small", "--output", str(folder)]) == done


def test_held_out_people_never_train_and_differ_by_seed():
    first, second = (people.People.of(people.KINDS[0], seed) for seed in (1, 2))
    assert len(first.training) == 24
    assert len(first.held_out) == 6
    assert not first.training.keys() & first.held_out.keys()
    assert first.held_out.keys() != second.held_out.keys()


def test_fine_tuning_and_its_evaluation_share_no_window():
    x = np.arange(20, dtype=np.float32)[:, None]
    own, rest = people.split((x, np.arange(20) // 10))
    assert own[0].ravel().tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert rest[0].ravel().tolist() == [6, 7, 8, 9, 16, 17, 18, 19]
