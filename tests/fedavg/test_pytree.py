"""Nests of arrays: sorted paths, strict forms, exact round trips."""

from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedavg.errors import TreeError
from fedavg.pytree import TreeSpec

Layer = namedtuple("Layer", "kernel bias")
leaves = arrays(
    st.sampled_from([np.float32, np.float64]),
    array_shapes(min_dims=0, max_dims=3, max_side=3),
    elements=st.floats(-8, 8, width=16),
)
names = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=4)
trees = st.recursive(
    leaves,
    lambda child: st.one_of(
        st.dictionaries(names, child, min_size=1, max_size=3),
        st.lists(child, min_size=1, max_size=12),
        st.builds(Layer, child, child),
    ),
    max_leaves=12,
)


def assert_same(left, right):
    assert type(left) is type(right) or isinstance(left, np.ndarray | np.generic)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert np.asarray(left).dtype == np.asarray(right).dtype
        np.testing.assert_array_equal(left, right)


@given(trees)
def test_a_tree_survives_the_round_trip(tree):
    spec = TreeSpec.of(tree)
    assert_same(spec.unflatten(spec.flatten(tree)), tree)


@given(st.dictionaries(names, leaves, min_size=2, max_size=5))
def test_insertion_order_never_matters(tree):
    spec = TreeSpec.of(tree)
    reversed_tree = dict(reversed(tree.items()))
    np.testing.assert_array_equal(spec.flatten(tree), spec.flatten(reversed_tree))
    assert TreeSpec.of(reversed_tree).leaves == spec.leaves


@given(trees, trees)
def test_a_difference_is_that_of_the_vectors(tree, other):
    spec = TreeSpec.of(tree)
    vector = np.linspace(-1, 1, spec.size, dtype=spec.dtype)
    np.testing.assert_array_equal(spec.difference(tree, vector), spec.flatten(tree) - vector)
    if TreeSpec.of(other).leaves != spec.leaves:
        with pytest.raises(TreeError):
            spec.difference(other, vector)


@given(trees)
def test_a_lent_tree_is_the_same_and_cannot_be_written(tree):
    spec = TreeSpec.of(tree)
    vector = spec.flatten(tree)
    lent = spec.lent(vector)
    assert_same(lent, tree)
    assert all(not (np.shares_memory(a, vector) and a.flags.writeable) for a in spec._checked(lent))
    assert vector.flags.writeable


def test_a_dictionary_with_a_list_in_an_arrays_place_is_another_tree():
    with pytest.raises(TreeError, match="other paths"):
        TreeSpec.of({"w": np.zeros(2)}).flatten({"w": [np.zeros(()), np.zeros(())]})


def test_lists_longer_than_ten_keep_their_order():
    tree = [np.full(1, float(i)) for i in range(12)]
    np.testing.assert_array_equal(TreeSpec.of(tree).flatten(tree), np.arange(12.0))


def test_unflattened_arrays_share_nothing_with_the_vector():
    spec = TreeSpec.of({"w": np.zeros(3)})
    vector = np.zeros(3)
    spec.unflatten(vector)["w"][0] = 1.0
    assert vector[0] == 0.0


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"w": np.zeros(3, np.int64)}, "int64"),
        ({"w": "text"}, "no array"),
        ({}, "no array"),
        ({"a/b": np.zeros(1)}, "a/b"),
        ({1: np.zeros(1)}, "1"),
        ({"w": np.zeros(3, complex)}, "complex"),
    ],
)
def test_what_cannot_be_averaged_is_refused(tree, says):
    with pytest.raises(TreeError, match=says):
        TreeSpec.of(tree)


def test_a_tensor_that_numpy_cannot_read_is_named_with_the_way_out():
    torch = pytest.importorskip("torch")
    given = {"w": torch.zeros(3, requires_grad=True)}  # As of dict(module.named_parameters()).
    for read in (TreeSpec.of, TreeSpec.of({"w": np.zeros(3)}).flatten):
        with pytest.raises(
            TreeError, match=r"w: this torch.Tensor cannot be read .*tensor.detach\(\).cpu\(\).numpy"
        ):
            read(given)


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"w": np.zeros((3, 2)), "b": np.zeros(2)}, r"w has shape \(3, 2\), not \(2, 3\)"),
        ({"w": np.zeros((2, 3))}, "b"),
        ({"w": np.zeros((2, 3), np.float32), "b": np.zeros(2)}, "float32"),
        ({"w": np.zeros((2, 3)), "b": np.zeros(2), "c": np.zeros(1)}, "c"),
    ],
)
def test_a_tree_of_another_form_is_refused(tree, says):
    spec = TreeSpec.of({"w": np.zeros((2, 3)), "b": np.zeros(2)})
    with pytest.raises(TreeError, match=says):
        spec.flatten(tree)


def test_the_description_tells_forms_apart():
    forms = [
        {"a": np.zeros(2)},
        {"a": np.zeros(3)},
        {"a": np.zeros(2, np.float32)},
        {"b": np.zeros(2)},
        {"a": np.zeros((1, 2))},
    ]
    assert len({TreeSpec.of(form).describe() for form in forms}) == len(forms)
