"""The table of shares: owed, taken, matched against hashes, recovered in batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import TooFewClients, shamir
from secagg.graph import holder_table
from secagg.messages import Codec
from secagg.recovery import ShareTable
from secagg.routing import Routing
from tests.secagg.rounds import choose

CODEC = Codec(choose(conditional_secrets=2, reveal_rule="r"), bytes(32))


def table_for(clients, neighbours, threshold):
    routing = Routing(holder_table(clients, neighbours=neighbours, seed=b"s" * 32))
    ids = [10 * c for c in range(clients)]
    return routing, ShareTable(routing, ids=ids, codec=CODEC, context=bytes(32), threshold=threshold)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(4, 16),
    st.integers(0, 2**32),
    st.sampled_from([(), (1,), (2,), (1, 2)]),
)
def test_every_seed_that_has_enough_holders_comes_back(clients, seed, numbers):
    rng = np.random.default_rng(seed)
    neighbours = int(rng.choice([clients - 1, *range(2, clients - 1, 2)]))
    width = min(neighbours, clients - 1) + 1
    threshold = int(rng.integers(2, width + 1))
    routing, table = table_for(clients, neighbours, threshold)
    secrets = [[rng.bytes(32) for _ in range(4)] for _ in range(clients)]
    dealt = [shamir.share(s, threshold=threshold, shares=width, entropy=rng.bytes) for s in secrets]
    shared = rng.random(clients) < 0.9
    survivors = shared & (rng.random(clients) < 0.9)
    table.open_slots(1 + len(numbers))
    answering = [c for c in np.flatnonzero(survivors).tolist() if rng.random() < 0.9]
    complaints = {}
    for holder in answering:
        others = routing.neighbours(holder)
        complaints[holder] = shared[others] & (rng.random(len(others)) < 0.1)
        table.withhold(holder, complaints[holder])
    for holder in answering:
        answer = table.answer(holder, shared, survivors, numbers)
        records = b"".join(
            shamir.encode_share(dealt[dealer][secret, place])
            for dealer, place, secret in zip(answer.dealers, answer.places, answer.secrets, strict=True)
        )
        assert set(answer.secrets[answer.slots == 0].tolist()) <= {0, 1}
        table.put(holder, answer, memoryview(records))
    have = {
        dealer: sum(
            holder == dealer or not complaints[holder][routing.neighbours(holder).tolist().index(dealer)]
            for holder in routing.holders[dealer].tolist()
            if holder in answering
        )
        for dealer in np.flatnonzero(shared).tolist()
    }
    for slot, number in enumerate((0, *numbers)):
        dealers = np.flatnonzero(survivors if number else shared)
        enough = np.array([d for d in dealers.tolist() if have[d] >= threshold], np.int64)
        for dealer, found in table.recover(slot, enough):
            index = 1 + number if number else (0 if survivors[dealer] else 1)
            assert found == secrets[dealer][index]
        lacking = [d for d in dealers.tolist() if have[d] < threshold]
        if lacking:
            with pytest.raises(TooFewClients, match="share holders of client"):
                list(table.recover(slot, np.array(lacking)))


def test_too_few_shares_name_the_client_that_has_the_fewest():
    _, table = table_for(4, 3, 3)
    table.open_slots(1)
    with pytest.raises(TooFewClients, match="share holders of client 20") as caught:
        list(table.recover(0, np.array([2])))
    assert (caught.value.have, caught.value.need) == (0, 3)


def test_nothing_to_recover_is_nothing():
    _, table = table_for(4, 3, 3)
    table.open_slots(1)
    assert list(table.recover(0, np.array([], np.int64))) == []
