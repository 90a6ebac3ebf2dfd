"""Nests of arrays as one flat vector and back, in the order of their *sorted paths*.

A nest is any combination of dicts, lists and tuples (named tuples too) whose leaves are floating-point arrays.
Leaves are laid out by sorted path, never by insertion order: JAX sorts dictionary keys, so two clients whose
dictionaries were filled in another order would otherwise add one layer's weights onto another's without an error.

Invariants: `flatten` refuses a tree whose paths, shapes or kinds of dtype differ from the spec's; `unflatten`
returns new arrays of the spec's own dtypes, which share no memory with the vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.errors import TreeError

__all__ = ["Leaf", "Tree", "TreeSpec"]

Tree = Any  # a nest of arrays; the type system cannot say more
_Path = tuple[str, ...]


@dataclass(frozen=True)
class Leaf:
    """One array of a nest: where it stands (`layer/kernel`), its shape and its floating-point dtype."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @cached_property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass(frozen=True)
class TreeSpec:
    """The agreed form of a nest of arrays: its leaves in sorted-path order, and a skeleton to rebuild it.

    >>> spec = TreeSpec.of({"b": np.zeros(2), "a": [np.ones((1, 3))]})
    >>> [leaf.path for leaf in spec.leaves], spec.size
    (['a/0', 'b'], 5)
    >>> spec.flatten({"a": [np.ones((1, 3))], "b": np.zeros(2)})
    array([1., 1., 1., 0., 0.])
    """

    leaves: tuple[Leaf, ...]
    skeleton: Tree

    @classmethod
    def of(cls, tree: Tree) -> TreeSpec:
        """Read the spec off a tree.

        Raises:
            TreeError: a leaf is no array, is not floating-point (step counters, batch-norm counts and other
                buffers do not average), or the tree is empty.
        """
        entries = sorted(_walk(tree, ()), key=lambda entry: entry[0])
        if not entries:
            raise TreeError("the weights hold no array; give at least one floating-point array")
        leaves = tuple(_leaf(path, value) for path, value in entries)
        index = {path: i for i, (path, _) in enumerate(entries)}
        return cls(leaves=leaves, skeleton=_map(tree, (), lambda path, _: index[path]))

    @cached_property
    def size(self) -> int:
        """Number of values in all leaves."""
        return sum(leaf.size for leaf in self.leaves)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The widest dtype of the leaves, at least float32: the dtype of flat vectors."""
        return np.result_type(np.float32, *(leaf.dtype for leaf in self.leaves))

    def matches(self, tree: Tree) -> bool:
        """Whether the tree has exactly these paths; shapes and dtypes are `flatten`'s to check."""
        return sorted("/".join(path) for path, _ in _walk(tree, ())) == sorted(
            leaf.path for leaf in self.leaves
        )

    def flatten(self, tree: Tree) -> NDArray[Any]:
        """Lay the tree out as one vector of `dtype`, shape (size,).

        Raises:
            TreeError: names the first path whose presence, shape or kind of dtype differs from the spec.
        """
        vector = np.empty(self.size, self.dtype)
        for (_, start, end), array in zip(self._spans, self._checked(tree), strict=True):
            vector[start:end] = array.reshape(-1)
        return vector

    def difference(self, tree: Tree, vector: NDArray[Any]) -> NDArray[Any]:
        """`flatten(tree) - vector`, in one pass: how far a tree is from a vector of `dtype`, shape (size,).

        Raises:
            TreeError: see `flatten`.
        """
        change = np.empty(self.size, self.dtype)
        for (_, start, end), array in zip(self._spans, self._checked(tree), strict=True):
            np.subtract(array.reshape(-1), vector[start:end], out=change[start:end], dtype=self.dtype)
        return change

    def unflatten(self, vector: NDArray[Any]) -> Tree:
        """Rebuild the nest from a vector of shape (size,): new arrays, the spec's dtypes, any container kept."""
        return self._nest([array for _, array in self.arrays(vector)])

    def lent(self, vector: NDArray[Any]) -> Tree:
        """What `unflatten` gives, without a copy where dtypes allow: read-only, and only as good as the vector."""
        vector = vector.view()
        vector.flags.writeable = False
        return self._nest(
            [
                vector[start:end].astype(leaf.dtype, copy=False).reshape(leaf.shape)
                for leaf, start, end in self._spans
            ]
        )

    def arrays(self, vector: NDArray[Any]) -> Iterator[tuple[Leaf, NDArray[Any]]]:
        """Each leaf with its part of a vector of shape (size,): new arrays of the leaf's shape and dtype.

        Raises:
            TreeError: the vector has another shape.
        """
        if vector.shape != (self.size,):
            raise TreeError(f"the vector has shape {vector.shape}, not ({self.size},)")
        for leaf, start, end in self._spans:
            yield leaf, vector[start:end].astype(leaf.dtype, copy=True).reshape(leaf.shape)

    def non_finite(self, vector: NDArray[Any]) -> str | None:
        """Name the first leaf that holds NaN or infinity, in its own dtype; None if there is none."""
        with np.errstate(over="ignore"):
            paths = (leaf.path for leaf, array in self.arrays(vector) if not np.isfinite(array).all())
            return next((path or "the weights" for path in paths), None)

    @cached_property
    def _spans(self) -> list[tuple[Leaf, int, int]]:
        """Each leaf with where it begins and ends in a flat vector."""
        ends = list(accumulate(leaf.size for leaf in self.leaves))
        return [(leaf, end - leaf.size, end) for leaf, end in zip(self.leaves, ends, strict=True)]

    @cached_property
    def _keys(self) -> dict[str, int] | None:
        """Of a plain dictionary of arrays, the commonest nest: the place of each key's leaf; else None."""
        plain = type(self.skeleton) is dict and all(type(place) is int for place in self.skeleton.values())
        return self.skeleton if plain else None

    def _nest(self, arrays: list[NDArray[Any]]) -> Tree:
        if self._keys is not None:
            return {key: arrays[place] for key, place in self._keys.items()}
        return _map(self.skeleton, (), lambda _, place: arrays[place])

    def _checked(self, tree: Tree) -> list[NDArray[Any]]:
        """The tree's arrays in the order of the leaves; refuses other paths, shapes and dtypes."""
        values, arrays = self._values(tree), []
        for leaf, value in zip(self.leaves, values, strict=True):
            array = _array(leaf.path, value)
            if array.shape != leaf.shape:
                raise TreeError(
                    f"{leaf.path} has shape {array.shape}, not {leaf.shape}; return the shape you were given"
                )
            plain = type(value) is np.ndarray and array.dtype == leaf.dtype
            if not plain and _leaf((leaf.path,), array).dtype != leaf.dtype:
                raise TreeError(
                    f"{leaf.path} has dtype {array.dtype}, not {leaf.dtype}; return the dtype you were given"
                )
            arrays.append(array)
        return arrays

    def _values(self, tree: Tree) -> list[Any]:
        """The tree's leaves in the order of the spec's; refuses other paths."""
        keys = self._keys
        if keys is not None and type(tree) is dict and tree.keys() == keys.keys():
            values = [tree[key] for key in self._order]
            if all(type(value) is np.ndarray for value in values):
                return values
        entries = sorted(_walk(tree, ()), key=lambda entry: entry[0])
        found = ["/".join(path) for path, _ in entries]
        expected = [leaf.path for leaf in self.leaves]
        if found != expected:
            odd = sorted(set(found) ^ set(expected))[:3]
            raise TreeError(
                f"the tree has other paths than the weights: {', '.join(odd)}; return the same nest"
            )
        return [value for _, value in entries]

    @cached_property
    def _order(self) -> list[str]:
        """The keys of a plain dictionary in the order of its leaves."""
        return [leaf.path for leaf in self.leaves]

    def describe(self) -> str:
        """The form in words, canonical: part of what a round binds its masks to."""
        return ",".join(f"{leaf.path}:{leaf.dtype.str}{list(leaf.shape)}" for leaf in self.leaves)


def _walk(tree: Tree, path: _Path) -> Iterator[tuple[_Path, Any]]:
    """Every leaf with its path; list positions are zero-padded, so that sorting keeps their order."""
    if isinstance(tree, Mapping):
        for key, child in tree.items():
            yield from _walk(child, (*path, _key(key, path)))
    elif isinstance(tree, list | tuple):
        width = len(str(max(len(tree) - 1, 0)))
        for position, child in enumerate(tree):
            yield from _walk(child, (*path, f"{position:0{width}d}"))
    else:
        yield path, tree


def _map(tree: Tree, path: _Path, leaf: Any) -> Tree:
    """The same containers with every leaf replaced by `leaf(path, value)`."""
    if isinstance(tree, Mapping):
        return {key: _map(child, (*path, _key(key, path)), leaf) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        width = len(str(max(len(tree) - 1, 0)))
        children = [_map(child, (*path, f"{i:0{width}d}"), leaf) for i, child in enumerate(tree)]
        if isinstance(tree, list):
            return children
        return type(tree)(*children) if hasattr(tree, "_fields") else tuple(children)
    return leaf(path, tree)


def _key(key: object, path: _Path) -> str:
    if not isinstance(key, str) or "/" in key:
        raise TreeError(f"key {key!r} under '{'/'.join(path)}' is no plain string without '/'; rename it")
    return key


def _leaf(path: _Path, value: Any) -> Leaf:
    name = "/".join(path)
    if not hasattr(value, "__array__") and not isinstance(value, float):
        raise TreeError(
            f"{name or 'the weights'}: {type(value).__name__} is no array; keep only arrays in the weights"
        )
    array = _array(name, value)
    # ml_dtypes' bfloat16 is of kind 'V'; averaging it would round every round's result to 8 bits.
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TreeError(
            f"{name or 'the weights'} has dtype {array.dtype}; only floating-point arrays average: leave it out"
        )
    return Leaf(name, array.shape, array.dtype)


def _array(name: str, value: Any) -> NDArray[Any]:
    """A leaf as an array of numpy's; some tensors refuse to be one: those that track gradients, or lie on a GPU."""
    try:
        return np.asarray(value)
    except Exception as error:
        kind = f"{type(value).__module__}.{type(value).__name__}"
        raise TreeError(
            f"{name or 'the weights'}: this {kind} cannot be read as an array ({error}); give numpy arrays, of torch's"
            " tensors tensor.detach().cpu().numpy()"
        ) from error
