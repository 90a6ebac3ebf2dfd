"""The central example, small, in the TensorFlow environment: it runs, and both accountants agree."""

import pytest

pytest.importorskip("tensorflow_privacy")


def test_it_trains_and_tensorflow_privacys_accountant_confirms_the_epsilon():
    from examples.tensorflow_privacy_central import main

    _, ours, theirs, server_is_infinite = main("digits", clients=70, cohort=20, rounds=6)
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert server_is_infinite
