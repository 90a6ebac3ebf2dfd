"""The generators that Keras 3 and TensorFlow keep for everybody: each client has its own, the caller's come back."""

import pytest

keras = pytest.importorskip("keras")

from fedavg.own_dice import OwnDice, kept  # noqa: E402


def without_a_seed():
    return float(keras.random.normal((1,))[0])


def without_a_seed_of_ones_own():
    import tensorflow as tf

    return float(tf.random.normal((1,))[0])


def by_the_global_generator():
    import tensorflow as tf

    return float(tf.random.get_global_generator().normal((1,))[0])


OF_KERAS_2 = [without_a_seed_of_ones_own, by_the_global_generator]
DRAWS = pytest.mark.parametrize("draw", OF_KERAS_2 if keras.__version__ < "3" else [without_a_seed])


def seed_everything():
    keras.utils.set_random_seed(1)
    if keras.__version__ < "3":
        import tensorflow as tf

        tf.random.set_global_generator(tf.random.Generator.from_seed(1))


def drawn(draw, counts):
    """What clients draw last who draw so many times, one after the other."""
    seed_everything()
    dice, last = OwnDice(bytes(32)), []
    for position, count in enumerate(counts):
        dice.throw(position)
        last += [draw() for _ in range(count)][-1:]
    return last


@DRAWS
def test_what_a_client_draws_does_not_depend_on_how_often_another_has_drawn(draw):
    few, many = drawn(draw, [1, 2, 2]), drawn(draw, [5, 2, 2])
    assert few[1:] == many[1:] == drawn(draw, [0, 2, 2])
    assert len({*few, *many}) == 4


@DRAWS
def test_the_callers_generators_are_as_they_were(draw):
    seed_everything()
    expected = [draw(), draw()]
    seed_everything()
    drawn_before = draw()
    with kept():
        OwnDice(bytes(32)).throw(0)
        assert draw() not in expected
    assert [drawn_before, draw()] == expected
