"""The promise as asked for: validated before anything else happens."""

import math

import pytest

from dp.errors import ParameterError
from dp.privacy import Privacy, delta_warning

GOOD = {"delta": 1e-5, "l2_clip_norm": 0.5, "readers_epsilon": 2.0}


def test_one_target_is_enough():
    for name in ("readers_epsilon", "server_epsilon", "noise_multiplier"):
        assert getattr(Privacy(delta=1e-5, l2_clip_norm=0.5, **{name: 3.0}), name) == 3.0


def test_no_target_at_all_is_refused():
    with pytest.raises(ParameterError, match="at least one of readers_epsilon, server_epsilon"):
        Privacy(delta=1e-5, l2_clip_norm=0.5)


@pytest.mark.parametrize("name", ["readers_epsilon", "server_epsilon", "noise_multiplier", "l2_clip_norm"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "2", True])
def test_every_number_must_be_positive_and_finite(name, value):
    with pytest.raises(ParameterError, match=name):
        Privacy(**{**GOOD, name: value})


@pytest.mark.parametrize("name", ["delta", "metrics_share"])
@pytest.mark.parametrize("value", [0, 1, -0.1, 1.1, math.nan])
def test_probabilities_lie_strictly_inside(name, value):
    with pytest.raises(ParameterError, match=name):
        Privacy(**{**GOOD, name: value})


@pytest.mark.parametrize("value", [0, -1, 1.5, math.inf, math.nan])
def test_a_cap_is_a_whole_number(value):
    with pytest.raises(ParameterError, match="max_participations"):
        Privacy(**GOOD, max_participations=value)


def test_a_large_delta_is_warned_about_with_its_reason():
    assert delta_warning(delta=1e-5, population=99_999) is None
    assert "in full" in delta_warning(delta=1e-5, population=100_000)
