"""The search finds the published values, agrees with exact arithmetic, and refuses what cannot be met."""

import itertools
from fractions import Fraction
from math import comb

import pytest

from secagg.errors import ParameterError
from secagg.graph_parameters import GraphParameters, complete_threshold, graph_parameters, unmet_conditions

SEMI_HONEST = [
    (0.05, 100, 12, 6),
    (0.05, 1000, 34, 18),
    (0.05, 10**4, 38, 21),
    (0.05, 10**6, 44, 24),
    (0.1, 1000, 52, 28),
    (0.1, 10**5, 66, 35),
    (0.2, 1000, 112, 59),
    (1 / 3, 100, 68, 34),
]
MALICIOUS = [
    (0.05, 100, 18, 13),
    (0.05, 300, 46, 32),
    (0.05, 1000, 98, 75),
    (0.05, 10**4, 122, 92),
    (0.05, 10**6, 136, 102),
    (0.1, 1000, 178, 132),
    (0.1, 10**5, 248, 181),
]


@pytest.mark.parametrize(("share", "clients", "neighbours", "threshold"), SEMI_HONEST)
def test_known_answers_semi_honest(share, clients, neighbours, threshold):
    found = graph_parameters(clients, dropout=share, corruption=share)
    assert (found.neighbours, found.threshold) == (neighbours, threshold)


@pytest.mark.parametrize(("share", "clients", "neighbours", "threshold"), MALICIOUS)
def test_known_answers_malicious(share, clients, neighbours, threshold):
    found = graph_parameters(clients, dropout=share, corruption=share, adversary="malicious")
    assert (found.neighbours, found.threshold) == (neighbours, threshold)


def tail(population, marked, draws, least):
    """Pr[H(population, marked, draws) >= least], exactly."""
    ways = sum(
        comb(marked, h) * comb(population - marked, draws - h) for h in range(max(0, least), draws + 1)
    )
    return Fraction(ways, comb(population, draws))


def unmet_exactly(n, k, t, corrupted, dropped, malicious, sigma, eta):
    """E1 to E5 as they are written, in fractions."""
    lost = corrupted + dropped
    together = Fraction(comb(lost, k), comb(n, k))
    met = {
        "E1": n * tail(n - 1, corrupted, k, t) <= Fraction(1, 2 ** (sigma + 1)),
        "E2": k > lost or Fraction(n * (n - k - 1), 2) * together < Fraction(1, 2 ** (sigma + 1)),
        "E3": n * (1 - tail(n, n - dropped, k, t)) <= Fraction(1, 2**eta),
    }
    if malicious:
        bound = Fraction(1, 2 ** (sigma + 81))
        window = tail(n, corrupted, k // 2, t - k // 2 - 1)
        met["E4"] = n * tail(n - 1, corrupted, k, 2 * t - (k + 1)) <= bound
        met["E5"] = 2 * (t - k // 2 - 1) > corrupted or Fraction(n * n, 2) * window**2 <= bound
    return tuple(name for name, is_met in met.items() if not is_met)


@pytest.mark.parametrize("adversary", ["semi_honest", "malicious"])
@pytest.mark.parametrize("n", [3, 10, 31, 60])
def test_conditions_agree_with_exact_fractions(adversary, n):
    """Every (k, t) at a few corruptions and dropouts; sigma and eta small, so that both answers occur."""
    seen = set()
    for corrupted, dropped in itertools.product({0, 1, n // 5, n // 2}, {0, 1, n // 4, n - 1}):
        for k, t in itertools.product(range(2, n, 4), range(2, n, 3)):
            bits = {"security_bits": 6, "failure_bits": 4}
            shares = {"dropout": dropped / n, "corruption": corrupted / n}
            found = unmet_conditions(n, k, t, **shares, adversary=adversary, **bits)
            assert found == unmet_exactly(n, k, t, corrupted, dropped, adversary == "malicious", 6, 4)
            seen.add(found)
    assert n == 3 or () in seen
    assert n == 3 or len(seen) > 4


@pytest.mark.parametrize("adversary", ["semi_honest", "malicious"])
@pytest.mark.parametrize("n", [2, 3, 4, 9, 24, 40])
def test_the_search_finds_what_trying_everything_finds(adversary, n):
    for corrupted, dropped in itertools.product(range(0, n, 1 + n // 5), range(0, n, 1 + n // 5)):
        shares = {"dropout": dropped / n, "corruption": corrupted / n}
        bits = {"security_bits": 8, "failure_bits": 6}
        first = next(
            (
                (k, t)
                for k in range(2, n, 2)
                for t in range(2, k + 2)
                if not unmet_exactly(n, k, t, corrupted, dropped, adversary == "malicious", 8, 6)
            ),
            None,
        )
        if first is None:
            with pytest.raises(ParameterError, match="graph='complete'"):
                graph_parameters(n, **shares, adversary=adversary, **bits)
        else:
            found = graph_parameters(n, **shares, adversary=adversary, **bits)
            assert (found.neighbours, found.threshold) == first


def test_corrupted_and_dropped_are_floors_without_float_loss():
    """floor(.29 * 100) is 28 in floats."""
    found = graph_parameters(100, dropout=0.29, corruption=0.07)
    assert (found.dropped, found.corrupted) == (29, 7)


def test_half_windows_cut_from_the_ring_are_refused_by_e5():
    """Parameters that meet E4 alone let a server drop two half-windows and get two sums."""
    shares = {"dropout": 0.1, "corruption": 0.1, "adversary": "malicious"}
    found = graph_parameters(1000, **shares)
    assert unmet_conditions(1000, found.neighbours, found.threshold, **shares) == ()
    unmet = [unmet_conditions(1000, found.neighbours, t, **shares) for t in range(found.threshold)]
    assert ("E5",) in unmet


def test_a_semi_honest_choice_is_refused_against_a_malicious_server():
    found = graph_parameters(1000, dropout=0.05, corruption=0.05)
    unmet = unmet_conditions(
        1000, found.neighbours, found.threshold, dropout=0.05, corruption=0.05, adversary="malicious"
    )
    assert {"E4", "E5"} <= set(unmet)


def test_the_honest_floor_of_a_malicious_ring():
    """n = 1000, k = 98, t = 75: X = 50, so floor(1000 / 148) * 25."""
    found = graph_parameters(1000, dropout=0.05, corruption=0.05, adversary="malicious")
    assert found.honest_floor == 6 * 25


def most_disjoint_windows(places, n, k):
    """How many of the windows of k+1 around these places of a ring share no place."""
    best = 0
    for turn, first in enumerate(places):
        count, last = 1, first
        for place in [*places[turn + 1 :], *(place + n for place in places[:turn])]:
            if last + k < place < first + n - k:
                count, last = count + 1, place
        best = max(best, count)
    return best


def rings(n, k, places=(0,)):
    """Every least set of places with gaps below k/2, but for one below k, which ends at place 0.

    Least: of two gaps in a row, the place between them cannot be left out. With more places there are no fewer windows.
    """
    if n - 1 - places[-1] < k:
        yield places
    before = places[-1] - places[-2] - 1 if places[1:] else k
    for gap in range(max(0, k // 2 - 1 - before), k // 2):
        if places[-1] + 1 + gap < n:
            yield from rings(n, k, (*places, places[-1] + 1 + gap))


@pytest.mark.parametrize(("k", "sizes"), [(4, range(5, 24)), (6, range(7, 26)), (10, (27, 32))])
def test_every_ring_that_e5_leaves_has_the_windows_of_the_honest_floor(k, sizes):
    """The worst of all rings, one long gap among them, has at least as many disjoint windows as the floor counts."""
    for n in sizes:
        floor = GraphParameters(clients=n, neighbours=k, threshold=k + 1, corrupted=0, dropped=0)
        worst = min(most_disjoint_windows(places, n, k) for places in rings(n, k))
        each = floor.threshold - (2 * floor.threshold - k - 2)
        assert 0 <= floor.honest_floor // each <= worst


@pytest.mark.parametrize("adversary", ["semi_honest", "malicious"])
def test_large_and_hopeless_cases_end(adversary):
    for dropout, corruption in ((0.45, 0.45), (0.5, 0.5), (0.9, 0.2), (0.3, 0.3)):
        try:
            found = graph_parameters(10**6, dropout=dropout, corruption=corruption, adversary=adversary)
        except ParameterError:
            continue
        assert not unmet_conditions(
            10**6,
            found.neighbours,
            found.threshold,
            dropout=dropout,
            corruption=corruption,
            adversary=adversary,
        )


def test_complete_threshold_outvotes_the_corrupted():
    assert complete_threshold(100, dropout=0.1, corruption=0.1) == 56
    assert complete_threshold(101, dropout=0, corruption=0) == 51
    with pytest.raises(ParameterError, match="60 of 100"):
        complete_threshold(100, dropout=0.4, corruption=0.3)


@pytest.mark.parametrize(
    "change",
    [
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"corruption": 1.0},
        {"corruption": 1 - 1e-12},
        {"failure_bits": -1},
    ],
)
def test_values_out_of_range_are_refused(change):
    with pytest.raises(ParameterError, match="use"):
        graph_parameters(100, **{"dropout": 0.1, "corruption": 0.1, **change})


def test_other_adversaries_and_tiny_rounds_are_refused():
    with pytest.raises(ParameterError, match="'malicious'"):
        graph_parameters(100, dropout=0.1, corruption=0.1, adversary="covert")
    with pytest.raises(ParameterError, match="at least 2"):
        graph_parameters(1, dropout=0, corruption=0)


@pytest.mark.parametrize(("n", "fraction"), [(416, 0.1), (1000, 0.1), (1000, 0.2), (10_000, 0.2)])
def test_privacy_holds_for_the_smallest_roster_too(n, fraction):
    """Silent at advertise are all honest in the worst case: the same corrupted among fewer."""
    lost = corrupted = int(fraction * n)
    found = graph_parameters(n, dropout=fraction, corruption=fraction, smallest_roster=n - lost)
    unmet = unmet_conditions(
        n - lost, found.neighbours, found.threshold, dropout=0.0, corruption=corrupted / (n - lost)
    )
    assert "E1" not in unmet
    assert "E2" not in unmet
    assert "E3" not in unmet_conditions(
        n, found.neighbours, found.threshold, dropout=fraction, corruption=fraction
    )
    planned_for_all = graph_parameters(n, dropout=fraction, corruption=fraction)
    assert "E1" in unmet_conditions(
        n - lost,
        planned_for_all.neighbours,
        planned_for_all.threshold,
        dropout=0.0,
        corruption=corrupted / (n - lost),
    )


def test_a_round_goes_on_with_no_smaller_roster_than_it_was_planned_for():
    """Without it, colluders among few enough survivors of the advertisement hold enough shares to unmask."""
    from secagg import RoundParameters, Vector

    round_ = RoundParameters.choose(
        clients=500, vectors=[Vector("v", 8, 20)], dropout=0.2, corruption=0.1, task="t", round=0, model_hash=bytes(32),
        application=b"", minimum_survivors=10,
    )  # fmt: skip
    assert round_.graph == "sparse"
    assert round_.minimum_roster == 400
    assert not {"E1", "E2"} & {
        *unmet_conditions(400, round_.neighbours, round_.threshold, dropout=0.0, corruption=50 / 400)
    }
