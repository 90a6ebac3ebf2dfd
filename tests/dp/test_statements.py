"""The two statements: never one without the other, each with its observer and every assumption."""

import json
import math

import pytest

from dp.central import CentralGaussian, CentralMatrix
from dp.cohorts import PaddedPoisson, SelfSampling
from dp.fixed_cohorts import FixedOrder, FixedSizeSample
from dp.mechanisms import DistributedDiscreteGaussian
from dp.privacy import Epsilons, Privacy
from dp.shared_budget import SharedBudget, Sharing
from dp.statements import epsilon_text, statements

SAMPLER = PaddedPoisson(population=3000, expected=300)


def make(epsilons=None, **changes):
    settings = {
        "mechanism": DistributedDiscreteGaussian(
            noise_multiplier=1.5, sensitivity=9000.0, dimension=7850, honest_survivors=333
        ),
        "sampler": SAMPLER,
        "privacy": Privacy(noise_multiplier=1.5, delta=1e-5, l2_clip_norm=0.3, max_participations=12),
        "minimum_survivors": 374,
        "charged": 50,
        **changes,
    }
    return statements(epsilons or Epsilons(2.53, 10.7), **settings)


def test_each_statement_names_its_observer_its_epsilon_and_its_delta():
    both = make()
    assert (both.readers.observer, both.readers.epsilon) == ("readers", 2.53)
    assert (both.server.observer, both.server.epsilon) == ("server", 10.7)
    for statement in (both.readers, both.server):
        assert f"epsilon {epsilon_text(statement.epsilon)}" in statement.text
        assert "1e-05" in statement.text
        assert str(statement) == statement.text


@pytest.mark.parametrize(
    "fact",
    ["one client", "zero-out", "374 of the 416", "41 collude", "333 others", "1.5 times", "300",
     "50 rounds", "took part", "vanished", "not proven"],
)  # fmt: skip
def test_both_statements_hold_every_shared_assumption(fact):
    both = make()
    assert fact in both.readers.text
    assert fact in both.server.text


def test_amplification_is_claimed_for_readers_alone():
    both = make()
    assert "probability 0.1" in both.readers.text
    assert "coin" not in both.server.text
    assert "no amplification" in both.server.text


@pytest.mark.parametrize(
    ("cap", "charged", "says"),
    [
        (12, 50, "at most 12 rounds, its cap"),
        (None, 50, "at most 50 rounds, all"),
        (12, 3, "at most 3 rounds, all"),
    ],
)
def test_the_server_statement_counts_a_clients_own_participations(cap, charged, says):
    privacy = Privacy(noise_multiplier=1.5, delta=1e-5, l2_clip_norm=0.3, max_participations=cap)
    assert says in make(privacy=privacy, charged=charged).server.text


def test_a_seeded_run_says_that_it_promises_nothing():
    assert "simulation, no guarantee" not in make().readers.text
    both = make(seeded=True)
    assert "simulation, no guarantee" in both.readers.text
    assert "simulation, no guarantee" in both.server.text


def test_a_run_without_masks_says_so():
    assert "without cryptography" in make(masked=False).server.text
    assert "without cryptography" not in make().server.text


def test_lost_rounds_and_a_large_delta_are_told():
    assert "2 of them without a result" in make(aborted=2).readers.text
    careless = Privacy(noise_multiplier=1.5, delta=1e-3, l2_clip_norm=0.3)
    assert "not below 1/population" in make(privacy=careless).readers.text


def test_an_infinite_epsilon_is_words_and_null():
    both = make(Epsilons(2.0, math.inf))
    assert "no promise" in both.server.text
    assert json.loads(json.dumps(both.as_dict()))["server"]["epsilon"] is None


@pytest.mark.parametrize(
    ("sampler", "readers_say", "server_says"),
    [
        (
            SelfSampling(SAMPLER, 0.25),
            "probability 0.025: it is drawn",
            "carries in at most 50 rounds, all of them",
        ),
        (FixedSizeSample(3000, 300), "secret uniform sample of 3000", "at most 12 rounds, its cap"),
        (
            FixedOrder(3000, 300),
            "at least 10 rounds apart; the order is no secret",
            "at most 5 rounds, its turns",
        ),
    ],
)
def test_every_sampler_is_named_with_what_it_hides(sampler, readers_say, server_says):
    both = make(sampler=sampler)
    assert readers_say in both.readers.text
    assert server_says in both.server.text
    assert "padded Poisson" not in both.readers.text


def test_a_trusted_server_is_told_apart():
    central = CentralGaussian(noise_multiplier=1.5, sensitivity=9000.0, dimension=7850, trusted_server=True)
    both = make(Epsilons(2.53, math.inf), mechanism=central)
    assert "the noise that the server adds to the sum is 1.5 times" in both.readers.text
    assert "trusted with the sum before the noise" in both.server.text
    assert "collude" not in both.readers.text
    assert "that other clients clip as they should" in both.readers.text


@pytest.mark.parametrize("bands", [1, 10])
def test_correlated_noise_is_stated_by_what_it_is_measured_against(bands):
    matrix = CentralMatrix(
        noise_multiplier=1.5, sensitivity=9000.0, dimension=7850, bands=bands, trusted_server=True
    )
    said = make(Epsilons(2.53, math.inf), mechanism=matrix, sampler=FixedOrder(3000, 300)).readers.text
    assert (
        f"correlated over {bands} rounds, and 1.5 times what one participation changes in all of them" in said
    )
    # A single sum holds more than that, so "the noise on the sum is 1.5 times" would be another mechanism's.
    assert "adds to the sum" not in said


def test_divisors_are_stated_as_they_are():
    # Means of metrics, weighted averages and bounded means are divided by noised sums of the same vector.
    assert (
        "divided by the public expectation 300 or by noised sums, never by the number drawn"
        in make().server.text
    )


def test_on_a_shared_ledger_the_budget_is_claimed_and_what_was_spent_is_told():
    budget = SharedBudget(delta=1e-5, readers_epsilon=4.0, server_epsilon=20.0)
    both = make(Epsilons(2.1, 9.3), sharing=Sharing(budget, runs=3))
    assert (both.readers.epsilon, both.server.epsilon) == (4.0, 20.0)
    for statement, kept in ((both.readers, "a Renyi filter of order 6"), (both.server, "a Gaussian filter")):
        assert "shared by 3 runs" in statement.text
        assert kept in statement.text
        assert (
            "however they were chosen, and each under the assumptions of its own statement" in statement.text
        )
        assert "50 rounds of this run are charged" in statement.text
        assert "not chosen by looking" not in statement.text
    assert "of it 2.100 is spent" in both.readers.text
    assert "of it 9.300 is spent" in both.server.text


def test_what_a_shared_budget_does_not_promise_is_said():
    readers = make(sharing=Sharing(SharedBudget(delta=1e-5, readers_epsilon=4.0), runs=1))
    assert readers.server.epsilon == math.inf
    assert "because the budget that the run shares sets no limit" in readers.server.text
    assert "promises nothing here" in readers.server.text
    server = make(sharing=Sharing(SharedBudget(delta=1e-5, server_epsilon=9.0, server_order=8), runs=1))
    assert (server.readers.epsilon, server.server.epsilon) == (9.0, 9.0)
    assert "order 8 against the server, who sees all that readers do" in server.readers.text


def test_an_active_server_and_what_it_may_do_are_named():
    passive, active = make(), make(active_server=True)
    assert any("follows the protocol" in assumption for assumption in passive.server.assumptions)
    assert any("may break the protocol" in assumption for assumption in active.server.assumptions)
    assert not any("follows the protocol" in assumption for assumption in active.server.assumptions)


def test_noise_beyond_the_promise_is_stated():
    """Shares for the fewest honest survivors: all of the cohort together hold sqrt(cohort / honest) times as much."""
    assert any(
        "a sum that all are in holds 1.12 times as much" in text for text in make().readers.assumptions
    )


def test_what_a_later_quantum_computer_could_open_is_said_where_it_could():
    assert "quantum computer" in make().server.text
    assert "quantum computer" not in make(quantum_safe=True).server.text
    assert "quantum computer" not in make(masked=False).server.text


def test_a_promise_is_a_factor_and_an_addition_never_a_chance_of_none():
    claim = make().readers.claim
    assert "e^2.530 = 12.6, plus 1e-05" in claim
    assert "except" not in claim


def test_on_the_sparse_graph_the_server_must_not_have_chosen_who_falls_silent():
    assert "who falls silent" in make(sparse=True).server.text
    assert "who falls silent" not in make(sparse=True).readers.text
    for other in ({}, {"sparse": True, "active_server": True}):
        assert "who falls silent" not in make(**other).server.text
