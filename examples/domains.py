"""People in a few public domains, for `examples.agnostic`: what each holds, trains and is tested on.

A client belongs to one domain. It takes one gradient step on its own examples and reports the mean loss before it.

Not here: how the server weighs domains (`examples.agnostic`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedavg.datasets import load, load_users

__all__ = ["Labelled", "Pages", "Problem", "adult", "digits", "fashion", "pages"]

Array = NDArray[Any]


class Problem(Protocol):
    """What agnostic training needs to know of a task."""

    names: tuple[str, ...]
    rate: float
    clip: float
    largest_loss: float

    @property
    def domain(self) -> Array:
        """Each client's domain."""
        ...

    def zeros(self) -> Array:
        """The model to start from."""
        ...

    def prepared(self, weights: Array) -> Array:
        """What all clients compute alike from the weights they were sent."""
        ...

    def work(self, prepared: Array, client: int) -> tuple[Array, float]:
        """One client's mean gradient and mean loss."""
        ...

    def whole(self, weights: Array) -> list[tuple[Array, float]]:
        """The same over each domain with all its data in one place, for the control."""
        ...

    def tested(self, weights: Array) -> list[tuple[int, float, float]]:
        """Test examples of each domain, accuracy, mean loss."""
        ...


def probabilities(scores: Array) -> Array:
    """Softmax of each row."""
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: Array = scores / scores.sum(axis=1, keepdims=True)
    return found


@dataclass(frozen=True, eq=False)
class Labelled:
    """Softmax regression over labelled rows; clients hold a few rows of one domain each."""

    x: Array
    y: Array
    row_domain: Array
    test: tuple[Array, Array, Array]
    names: tuple[str, ...]
    each: int
    rate: float
    clip: float
    largest_loss: float = 2.0

    @cached_property
    def rows(self) -> list[Array]:
        """Rows of each client."""
        return [rows for domain in range(len(self.names)) for rows in self._dealt(domain)]

    def _dealt(self, domain: int) -> Iterator[Array]:
        mine = np.random.default_rng(domain).permutation(np.flatnonzero(self.row_domain == domain))
        yield from mine[: len(mine) // self.each * self.each].reshape(-1, self.each)

    @cached_property
    def domain(self) -> Array:
        """Each client's domain."""
        return np.array([self.row_domain[rows[0]] for rows in self.rows])

    def zeros(self) -> Array:
        """Nobody's weights."""
        return np.zeros((self.x.shape[1], int(self.y.max()) + 1))

    def prepared(self, weights: Array) -> Array:
        """Nothing to prepare."""
        return weights

    def work(self, prepared: Array, client: int) -> tuple[Array, float]:
        """Mean gradient and loss of the client's rows."""
        return self._on(prepared, self.rows[client])

    def whole(self, weights: Array) -> list[tuple[Array, float]]:
        """Mean gradient and loss of each domain."""
        domains = range(len(self.names))
        return [self._on(weights, np.flatnonzero(self.row_domain == domain)) for domain in domains]

    def _on(self, weights: Array, rows: Array) -> tuple[Array, float]:
        x, y, places = self.x[rows], self.y[rows], np.arange(len(rows))
        found = probabilities(x @ weights)
        loss = float(-np.log(np.maximum(found[places, y], 1e-9)).mean())
        found[places, y] -= 1
        return x.T @ found / len(rows), loss

    def tested(self, weights: Array) -> list[tuple[int, float, float]]:
        """Over the test rows of each domain."""
        x, y, domain = self.test
        found = probabilities(x @ weights)
        right = found.argmax(axis=1) == y
        loss = -np.log(np.maximum(found[np.arange(len(y)), y], 1e-9))
        of = [domain == d for d in range(len(self.names))]
        return [(int(rows.sum()), float(right[rows].mean()), float(loss[rows].mean())) for rows in of]


def with_ones(x: Array) -> Array:
    """A column for the bias."""
    return np.hstack([x, np.ones((len(x), 1), x.dtype)]).astype(np.float64)


def adult() -> Labelled:
    """One person of the census a client: a doctorate or not; do they earn more than $50,000?"""
    data = load("adult")
    doctor = data.groups["education"] == "Doctorate"
    column = next(j for j in range(data.features) if ((data.train_x[:, j] > 0) == doctor).all())
    test = with_ones(data.test_x), data.test_y, (data.test_x[:, column] > 0).astype(int)
    names = "no doctorate", "doctorate"
    return Labelled(with_ones(data.train_x), data.train_y, doctor.astype(int), test, names, 1, 1.0, 3.0)


def fashion() -> Labelled:
    """Five pictures of one garment a client: t-shirt, pullover or shirt? Each is a domain, too."""
    return _labels_as_domains("fashion-mnist", {"t-shirt": 0, "pullover": 2, "shirt": 6}, 5, 0.03, 10.0)


def digits() -> Labelled:
    """Small: three digits that are their own domains."""
    return _labels_as_domains("digits", {"one": 1, "two": 2, "eight": 8}, 5, 0.3, 4.0)


def _labels_as_domains(dataset: str, kept: dict[str, int], each: int, rate: float, clip: float) -> Labelled:
    data, labels = load(dataset), list(kept.values())

    def of(x: Array, y: Array) -> tuple[Array, Array]:
        rows = np.isin(y, labels)
        return with_ones(x[rows]), np.array([labels.index(label) for label in y[rows].tolist()])

    (x, y), (test_x, test_y) = of(data.train_x, data.train_y), of(data.test_x, data.test_y)
    return Labelled(x, y, y, (test_x, test_y, test_y), tuple(kept), each, rate, clip)


LETTERS = "\n !'(),-.0123456789:;?abcdefghijklmnopqrstuvwxyz"
PAGE = 1000


@dataclass(frozen=True, eq=False)
class Pages:
    """The next character by softmax over the last two; a client holds a page of a thousand characters."""

    train: list[Array]
    domain: Array
    test: list[Array]
    names: tuple[str, ...]
    rate: float = 20.0
    clip: float = 0.15
    largest_loss: float = 4.0

    def zeros(self) -> Array:
        """Scores of the next character by the last and by the last but one."""
        return np.zeros((2, len(LETTERS), len(LETTERS)))

    def prepared(self, weights: Array) -> Array:
        """Probabilities of the next character after every pair, shape (pairs, characters)."""
        size = len(LETTERS)
        return probabilities((weights[0][None, :, :] + weights[1][:, None, :]).reshape(size * size, size))

    def work(self, prepared: Array, client: int) -> tuple[Array, float]:
        """Mean gradient and loss of the client's page."""
        return self._on(prepared, self.train[client])

    def whole(self, weights: Array) -> list[tuple[Array, float]]:
        """Mean gradient and loss of each domain."""
        table = self.prepared(weights)
        return [self._on(table, text) for text in self._joined]

    @cached_property
    def _joined(self) -> list[Array]:
        of = [np.flatnonzero(self.domain == d) for d in range(len(self.names))]
        return [np.concatenate([self.train[client] for client in clients.tolist()]) for clients in of]

    def _on(self, table: Array, text: Array) -> tuple[Array, float]:
        size = len(LETTERS)
        pairs, after = text[:-2] * size + text[1:-1], text[2:]
        loss = float(-np.log(table[pairs, after]).mean())
        counted = np.bincount(pairs, minlength=size**2).reshape(size, size)
        likely = table.reshape(size, size, size)
        guessed = np.einsum("bl,bln->ln", counted, likely), np.einsum("bl,bln->bn", counted, likely)
        seen = (np.bincount(here * size + after, minlength=size**2) for here in (text[1:-1], text[:-2]))
        return np.stack([g - s.reshape(size, size) for g, s in zip(guessed, seen, strict=True)]) / len(
            after
        ), loss

    def tested(self, weights: Array) -> list[tuple[int, float, float]]:
        """Over pages that no client holds."""
        table, size = self.prepared(weights), len(LETTERS)
        found = []
        for text in self.test:
            likely = table[text[:-2] * size + text[1:-1]]
            after = text[2:]
            loss = -np.log(likely[np.arange(len(after)), after]).mean()
            found.append((len(after), float((likely.argmax(axis=1) == after).mean()), float(loss)))
        return found


def pages() -> Pages:
    """Ten pages of each State of the Union address, and the first page of each of Shakespeare's larger roles."""
    addresses = [text for said in load_users("sotu").users.values() for text in said]
    roles = ["\n".join(said) for said in load_users("shakespeare").users.values()]
    speeches, plays = [_coded(text) for text in addresses], [_coded(text) for text in roles]
    train = [_page(text, k) for text in speeches for k in range(10) if len(text) >= PAGE * (k + 2)]
    parts = len(train), len(plays)
    train += [_page(text, 0) for text in plays]
    # What is tested on follows the pages that are trained on.
    rest = [np.concatenate([text[10 * PAGE : 12 * PAGE] for text in speeches]),
            np.concatenate([text[PAGE : 2 * PAGE] for text in plays])]  # fmt: skip
    return Pages(train, np.repeat([0, 1], parts), rest, ("speeches", "plays"))


def _coded(text: str) -> Array:
    plain = text.lower().replace("’", "'").replace("—", "--")
    return np.array([LETTERS.index(letter) for letter in plain if letter in LETTERS])


def _page(text: Array, number: int) -> Array:
    return text[number * PAGE : (number + 1) * PAGE]
