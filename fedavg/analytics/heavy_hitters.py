"""Private heavy hitters over an open domain: the words that many clients hold, out of all words there could be.

A prefix tree over the noised sum (Zhu et al. 2020, TrieHH, with secure aggregation and Gaussian noise in the place of a
sample): the known prefixes go to the clients; each client marks which letters follow a prefix in its words; where the
noised count of a continuation is above the threshold, it is a prefix of the next level. A word ends by a letter of its
own, and its count is that of its end.

Every level counts *all* continuations of the known prefixes, whether or not anybody holds them: they are coordinates
under the same noise, so which of them pass tells no more than their noised counts, and the threshold costs no delta. It
is there for the reader: it keeps words that nobody holds out of the result, except with the stated probability.

All levels are one draw and one event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dp
from fedavg.analytics.population import Clients
from fedavg.client_data import ClientData
from fedavg.core import (
    SERVER,
    Context,
    ExecutionError,
    FederatedComputation,
    SequenceType,
    TensorType,
    at_clients,
    at_server,
    federated_broadcast,
    federated_computation,
    federated_map,
    federated_sum,
    federated_value,
    local_computation,
    within,
)

__all__ = ["HeavyHitters", "heavy_hitters"]

_LETTERS = "abcdefghijklmnopqrstuvwxyz'"
_NONE = -1
_WORDS = SequenceType(TensorType("str"))


@dataclass(frozen=True)
class HeavyHitters:
    """The words found, most frequent first.

    Attributes:
        counts: Word to the noised number of clients that hold it among their first words.
        stddev: Deviation of the noise in each count.
        threshold: Least noised count of a word that is reported.
        false_discovery: Largest probability that any word is reported that nobody holds.
        statements: What it cost; the threshold adds nothing to delta.
    """

    counts: Mapping[str, float]
    stddev: float
    threshold: float
    false_discovery: float
    statements: dp.Statements


@dataclass(frozen=True)
class _Search:
    """What is public about a search."""

    alphabet: str
    longest: int
    words: int
    width: int

    @property
    def end(self) -> int:
        return len(self.alphabet)

    def coded(self, words: list[str]) -> list[tuple[int, ...]]:
        """A client's first words that the search could find, as letters and their end."""
        fit = (w for w in dict.fromkeys(words) if 0 < len(w) <= self.longest and {*w} <= {*self.alphabet})
        codes = [tuple(self.alphabet.index(c) for c in word) for word in fit]
        return [(*code, self.end) for code in codes[: self.words]]

    def marks(self, words: list[str], prefixes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Which continuations of the known prefixes a client's words have: at most one for each word."""
        level = prefixes.shape[1]
        rows = {tuple(prefix): row for row, prefix in enumerate(prefixes.tolist()) if _NONE not in prefix}
        marked = np.zeros((len(prefixes), self.end + 1))
        for code in self.coded(words):
            row = rows.get(code[:level])
            if row is not None and len(code) > level:
                marked[row, code[level]] = 1.0
        return marked.reshape(-1)

    def survivors(
        self, prefixes: NDArray[np.int64], counts: NDArray[np.float64], least: float
    ) -> NDArray[np.int64]:
        """The most frequent continuations that may go on, over a threshold; empty rows where there are fewer."""
        table = counts.reshape(len(prefixes), -1)[:, : self.end].copy()
        table[(prefixes == _NONE).any(axis=1)] = -np.inf
        best = np.argsort(table, axis=None)[::-1][: self.width]
        kept = np.full((self.width, prefixes.shape[1] + 1), _NONE)
        for row, (prefix, letter) in enumerate(zip(*np.unravel_index(best, table.shape), strict=True)):
            if table[prefix, letter] > least:
                kept[row] = [*prefixes[prefix], letter]
        return kept

    def found(
        self, prefixes: NDArray[np.int64], counts: NDArray[np.float64], least: float
    ) -> dict[str, float]:
        """The words that end at a level, over the threshold."""
        ends = counts.reshape(len(prefixes), -1)[:, self.end]
        return {
            "".join(self.alphabet[letter] for letter in prefix): float(count)
            for prefix, count in zip(prefixes.tolist(), ends, strict=True)
            if _NONE not in prefix and prefix and count > least
        }

    def program(self) -> FederatedComputation:
        """The search: level by level, every level's prefixes and noised counts are its result."""

        @federated_computation(at_clients(_WORDS), at_server(np.float64))
        def heavy_hitters(words, least):  # type: ignore[no-untyped-def]
            levels, prefixes = [], federated_value(np.zeros((1, 0), np.int64), SERVER)
            for level in range(self.longest + 1):
                rows = self.width if level else 1
                form = within((np.float64, (rows * (self.end + 1),)), l2=sqrt(self.words))
                marks = local_computation(returns=form)(self.marks)
                counts = federated_sum(federated_map(marks, (words, federated_broadcast(prefixes))))
                levels.append((prefixes, counts))
                if level < self.longest:
                    wider = (np.int64, (self.width, level + 1))
                    choose = local_computation(returns=wider)(self.survivors)
                    prefixes = federated_map(choose, (prefixes, counts, least))
            return levels

        return heavy_hitters


def heavy_hitters(
    clients: Clients,
    *,
    context: Context,
    words_per_client: int = 10,
    longest: int = 8,
    width: int = 40,
    alphabet: str = _LETTERS,
    false_discovery: float = 0.05,
) -> HeavyHitters:
    """The words that many clients hold.

    Guarantee: as the context's statements say, which are in the result.

    Args:
        clients: Each one's list of words, the most important first, or its one word; repeated words and words with
            other letters are passed over.
        context: Population, promise, and way of summing; its promise is used up by the call.
        words_per_client: How many of its words a client counts in; each costs noise by its root.
        longest: Most letters of a word that can be found; each costs noise by its root.
        width: Most prefixes that are followed.
        alphabet: The letters.
        false_discovery: Largest probability that any word is reported that nobody holds.

    Raises:
        ExecutionError: a setting out of its range, or an alphabet with repeated letters.
    """
    for name, value in (("words_per_client", words_per_client), ("longest", longest), ("width", width)):
        if value < 1:
            raise ExecutionError(f"{name} is {value}; give at least 1")
    if not 0 < false_discovery < 1 or len({*alphabet}) < len(alphabet) or not alphabet:
        raise ExecutionError(
            f"false_discovery is {false_discovery} and the alphabet {alphabet!r}; give a probability between 0 and 1,"
            " and letters that differ"
        )
    search = _Search(alphabet, longest, words_per_client, width)
    program = search.program()
    stddev = max(event.stddev[0] for event in context.privacy(program).events)
    candidates = width * longest  # ends of prefixes that are looked at
    threshold = stddev * NormalDist().inv_cdf(1 - false_discovery / candidates)
    # Half the threshold on the way: a prefix that fails is lost, one that passes is asked again.
    run = context.run(program, ClientData.of(clients).map(_listed), threshold / 2)
    found: dict[str, float] = {}
    for prefixes, counts in run.value:
        found |= search.found(prefixes, counts, threshold)
    ordered: dict[str, Any] = dict(sorted(found.items(), key=lambda item: -item[1]))
    return HeavyHitters(ordered, stddev, threshold, false_discovery, run.statements)  # type: ignore[arg-type]


def _listed(words: Any) -> Any:
    """A client's words; a text would be gone through letter by letter."""
    return [words] if isinstance(words, str) else words
