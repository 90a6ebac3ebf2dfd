"""Splitting examples over clients that differ, as real clients do, or that do not.

| partitioner | clients differ in | source |
| --- | --- | --- |
| `iid` | nothing | McMahan et al. 2017, section 3 |
| `dirichlet` | how often each label occurs | Hsu, Qi, Brown 2019, section 3 |
| `shards` | which few labels they hold | McMahan et al. 2017, section 3 |
| `quantity_skew` | how many examples they hold | Li et al. 2022, section IV-C |
| `natural` | whatever real users differ in | the data's own user ids |

Invariants: every client holds exactly as many examples as asked for, and no example is held twice. Each returns the
positions that `ClientData.from_parts` takes. All but `natural` are random: the same seed deals the same way, and that
randomness protects nobody.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedavg.client_data import ByUser
from fedavg.errors import ParameterError

__all__ = ["dirichlet", "iid", "natural", "quantity_skew", "shards"]


def iid(examples: int, *, clients: int, examples_per_client: int, seed: int) -> NDArray[np.int64]:
    """Deal examples to clients at random.

    Args:
        examples: How many there are.
        clients: How many clients.
        examples_per_client: How many examples each holds.
        seed: The same seed deals the same way.

    Returns:
        Positions, shape (clients, examples_per_client), all different.

    Raises:
        ParameterError: more examples asked for than there are, or a number out of range.

    Source: McMahan et al. 2017, "Communication-efficient learning of deep networks", section 3.

    >>> sorted(iid(6, clients=3, examples_per_client=2, seed=0).ravel().tolist())
    [0, 1, 2, 3, 4, 5]
    """
    _check(examples, clients, examples_per_client)
    dealt = np.random.default_rng(seed).permutation(examples)[: clients * examples_per_client]
    return dealt.reshape(clients, examples_per_client)


def shards(
    labels: NDArray[np.int64], *, clients: int, shards_per_client: int = 2, seed: int
) -> NDArray[np.int64]:
    """Sort examples by label, cut them into shards of one size, and give each client a few: few labels each.

    Args:
        labels: Shape (examples,).
        clients: How many clients.
        shards_per_client: How many shards each holds; it then holds hardly more labels than that.
        seed: The same seed deals the same way.

    Returns:
        Positions in `labels`, shape (clients, shards_per_client * examples in a shard), all different. The examples
        that would not fill a shard for everybody, fewer than there are shards, are left out at random.

    Raises:
        ParameterError: more shards than examples, or a number out of range.

    Source: McMahan et al. 2017, "Communication-efficient learning of deep networks", section 3.

    >>> sorted(np.array([0, 1, 0, 1])[shards(np.array([0, 1, 0, 1]), clients=2, shards_per_client=1, seed=0)].tolist())
    [[0, 0], [1, 1]]
    """
    _check(len(labels), clients, shards_per_client)
    generator = np.random.default_rng(seed)
    count = clients * shards_per_client
    size = len(labels) // count
    kept = generator.permutation(len(labels))[: count * size]
    in_shards = kept[np.argsort(labels[kept], kind="stable")].reshape(count, size)
    return in_shards[generator.permutation(count)].reshape(clients, shards_per_client * size)


def quantity_skew(
    examples: int, *, clients: int, concentration: float, minimum: int = 1, seed: int
) -> list[NDArray[np.int64]]:
    """Deal all examples at random, to some clients many and to others few.

    Args:
        examples: How many there are.
        clients: How many clients.
        concentration: Of the symmetric Dirichlet over clients that the sizes follow, positive: 100 gives nearly equal
            sizes, 0.1 gives a few clients nearly everything.
        minimum: How many examples every client holds at least.
        seed: The same seed deals the same way.

    Returns:
        Each client's positions; together they are all examples, each once.

    Raises:
        ParameterError: fewer examples than the clients' minimum, or a number out of range.

    Source: Li et al. 2022, "Federated learning on non-IID data silos", section IV-C.

    >>> parts = quantity_skew(100, clients=3, concentration=0.5, seed=0)
    >>> sum(map(len, parts)), min(map(len, parts)) >= 1
    (100, True)
    """
    _check(examples, clients, minimum)
    _check_concentration(concentration)
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.full(clients, concentration))
    sizes = minimum + generator.multinomial(examples - clients * minimum, shares / shares.sum())
    return np.split(generator.permutation(examples), np.cumsum(sizes)[:-1])


def natural(users: ArrayLike) -> ByUser:
    """Give each user its own examples, in their order.

    Args:
        users: Who each example belongs to, shape (examples,), numbers or text: one of a data set's `groups`.

    Returns:
        Each user's positions by id, sorted; made when looked up, so a million users cost what their examples cost.

    Raises:
        ParameterError: not a list of numbers or of text, or nobody in it.

    >>> dict(natural(["ada", "bob", "ada"]))
    {'ada': array([0, 2]), 'bob': array([1])}
    """
    return ByUser(users)


def dirichlet(
    labels: NDArray[np.int64], *, clients: int, examples_per_client: int, concentration: float, seed: int
) -> NDArray[np.int64]:
    """Deal examples to clients whose labels each follow a Dirichlet draw of their own.

    A concentration of 1 gives clients that hold a few labels mostly, 100 nearly equal ones, 0.1 nearly one label each.
    When all examples are dealt out, the last few clients get what the others left.

    Args:
        labels: Shape (examples,), whole numbers from 0.
        clients: How many clients.
        examples_per_client: How many examples each holds.
        concentration: Of the symmetric Dirichlet over labels, positive.
        seed: The same seed deals the same way.

    Returns:
        Positions in `labels`, shape (clients, examples_per_client), all different.

    Raises:
        ParameterError: more examples asked for than there are, a number out of range, or labels that are no whole
            numbers from 0.

    Source: Hsu, Qi, Brown 2019, "Measuring the effects of non-identical data distribution", section 3.

    >>> dirichlet(np.array([0, 0, 1, 1]), clients=2, examples_per_client=2, concentration=1.0, seed=0).shape
    (2, 2)
    """
    _check(len(labels), clients, examples_per_client)
    _check_concentration(concentration)
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "biu" or labels.min() < 0:
        raise ParameterError(
            f"the labels have shape {labels.shape} and type {labels.dtype}, the least is {labels.min()}; give whole"
            " numbers from 0, one for each example"
        )
    generator = np.random.default_rng(seed)
    piles = [generator.permutation(np.flatnonzero(labels == label)) for label in range(int(labels.max()) + 1)]
    left = np.array([len(pile) for pile in piles])
    likings = generator.dirichlet(np.full(len(piles), concentration), clients)
    dealt = np.empty((clients, examples_per_client), np.int64)
    for client, liking in enumerate(likings):
        counts = _counts(generator, liking, left, examples_per_client)
        left -= counts
        hand = [pile[rest : rest + count] for pile, rest, count in zip(piles, left, counts, strict=True)]
        dealt[client] = np.concatenate(hand)
    return dealt


def _counts(
    generator: np.random.Generator, liking: NDArray[np.float64], left: NDArray[np.int64], wanted: int
) -> NDArray[np.int64]:
    """How many of each label one client gets: by its liking, and by what is left where that runs out."""
    counts = np.zeros_like(left)
    while missing := wanted - int(counts.sum()):
        weights = np.where(counts < left, liking, 0.0)
        if weights.sum() <= 0:
            weights = (left - counts).astype(np.float64)
        drawn = generator.multinomial(missing, weights / weights.sum())
        counts = np.minimum(counts + drawn, left)
    return counts


def _check(examples: int, clients: int, each: int) -> None:
    if clients < 1 or each < 1:
        raise ParameterError(
            f"{clients} clients of {each} examples cannot be dealt to; give at least 1 client and 1 example each"
        )
    if clients * each > examples:
        raise ParameterError(
            f"{clients:,} clients of {each} examples need {clients * each:,} examples and there are {examples:,};"
            f" take at most {examples // each:,} clients"
            + (f", or at most {examples // clients} examples each" if examples >= clients else "")
        )


def _check_concentration(concentration: float) -> None:
    if not 0 < concentration < np.inf:
        raise ParameterError(f"the Dirichlet concentration is {concentration}; give a positive finite number")
