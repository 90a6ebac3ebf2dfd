"""tensorflow-privacy's queries in our ledger and ours among its queries; runs in the TensorFlow environment."""

import math

import numpy as np
import pytest

tfp = pytest.importorskip("tensorflow_privacy")
tf = pytest.importorskip("tensorflow")
import dp_accounting  # noqa: E402

import dp  # noqa: E402
from dp.tensorflow_privacy import (  # noqa: E402
    CentralQuery,
    QueryAccountant,
    both_levels,
    distributed_sum_query,
    example_level_statement,
    tree_epsilon,
)

TEMPLATE = {"w": tf.zeros(4), "b": tf.zeros(2)}
SAMPLER = dp.PaddedPoisson(population=3000, expected=300)
PRIVACY = dp.Privacy(noise_multiplier=1.5, delta=1e-5, l2_clip_norm=1.0)


def record(value):
    return {"w": tf.fill([4], float(value)), "b": tf.fill([2], float(value))}


def test_a_central_query_must_be_trusted_in_so_many_words():
    with pytest.raises(dp.ParameterError, match="trusted_server=True"):
        CentralQuery(tfp.GaussianSumQuery(1.0, 1.0), TEMPLATE, trusted_server=False)


def test_a_gaussian_query_clips_sums_and_noises_once():
    query = CentralQuery(tfp.GaussianSumQuery(1.0, 1e-6), TEMPLATE, trusted_server=True)
    result = query.run([record(9.0), record(9.0)])
    expected = 2 / math.sqrt(6)
    np.testing.assert_allclose(result["w"], np.full(4, expected), atol=1e-4)
    assert float(query.event.noise_multiplier) == float(np.float32(1e-6))


def test_its_noise_has_the_stated_deviation():
    """400 runs of six values: chi-square at alpha 1e-4, which rejects 2/3 and 3/2."""
    from scipy import stats

    tf.random.set_seed(1)
    query = CentralQuery(tfp.GaussianSumQuery(1.0, 2.0), TEMPLATE, trusted_server=True)
    values = np.concatenate([np.concatenate([*map(np.ravel, query.run([]).values())]) for _ in range(400)])
    low, high = stats.chi2.ppf([5e-5, 1 - 5e-5], values.size) / values.size
    ratio = np.mean(values**2) / 4
    assert low < ratio < high
    assert not low < ratio * 9 / 4 < high
    assert not low < ratio * 4 / 9 < high


def _numbers(event):
    """The query's event with its tensors as floats, for their accountants."""
    if isinstance(event, dp_accounting.ComposedDpEvent):
        return dp_accounting.ComposedDpEvent([_numbers(part) for part in event.events])
    return dp_accounting.GaussianDpEvent(float(event.noise_multiplier))


@pytest.mark.parametrize(
    "query",
    [
        tfp.GaussianSumQuery(1.0, 1.5),
        tfp.QuantileAdaptiveClipSumQuery(1.0, 1.5, 0.5, 0.2, 5.0, 100.0),
        tfp.NestedQuery({"w": tfp.GaussianSumQuery(1.0, 2.0), "b": tfp.GaussianSumQuery(0.5, 1.0)}),
    ],
    ids=["gaussian", "quantile-adaptive", "nested"],
)
def test_their_events_are_charged_in_our_ledger_and_their_accountant_confirms_it(query, tmp_path):
    central = CentralQuery(query, TEMPLATE, trusted_server=True)
    accountant = QueryAccountant.for_event(central.event, SAMPLER, PRIVACY)
    ledger = dp.Ledger.attach(tmp_path / "ledger.sqlite", accountant=accountant, run={"task": "test"})
    for _ in range(3):
        number = ledger.reserve()
        central.run([record(0.1)])
        ledger.settle(number, survivors=1, model_hash=bytes(32))
    spent = ledger.spent()
    assert spent.server == math.inf
    numbers = _numbers(central.event)
    sampled = dp_accounting.SelfComposedDpEvent(dp_accounting.PoissonSampledDpEvent(0.1, numbers), 3)
    renyi = dp_accounting.rdp.RdpAccountant().compose(sampled).get_epsilon(1e-5)
    assert 0.5 * renyi < spent.readers < renyi
    if isinstance(numbers, dp_accounting.GaussianDpEvent):
        theirs = dp_accounting.pld.PLDAccountant().compose(sampled).get_epsilon(1e-5)
        assert spent.readers == pytest.approx(theirs, rel=1e-3)
    ledger.verify()


def test_one_draw_of_two_sums_is_one_event():
    """Two Gaussians on one draw cost what one of multiplier z/sqrt 2 costs, not what two draws cost."""
    nested = tfp.NestedQuery({"w": tfp.GaussianSumQuery(1.0, 1.5), "b": tfp.GaussianSumQuery(1.0, 1.5)})
    event = CentralQuery(nested, TEMPLATE, trusted_server=True).event
    together = QueryAccountant.for_event(event, SAMPLER, PRIVACY).epsilons(50).readers
    joint = dp_accounting.GaussianDpEvent(1.5 / math.sqrt(2))
    assert together == pytest.approx(
        QueryAccountant.for_event(joint, SAMPLER, PRIVACY).epsilons(50).readers, rel=1e-3
    )


def test_the_demos_setting_gives_the_demos_epsilon():
    accountant = QueryAccountant.for_event(dp_accounting.GaussianDpEvent(1.5), SAMPLER, PRIVACY)
    assert accountant.epsilons(50).readers == pytest.approx(2.530, abs=2e-3)


def test_a_budget_stops_a_central_run(tmp_path):
    privacy = dp.Privacy(readers_epsilon=0.9, delta=1e-5, l2_clip_norm=1.0)
    accountant = QueryAccountant.for_event(dp_accounting.GaussianDpEvent(1.5), SAMPLER, privacy)
    ledger = dp.Ledger.attach(tmp_path / "ledger.sqlite", accountant=accountant, run={})
    affordable = sum(accountant.epsilons(rounds).readers <= 0.9 for rounds in range(1, 8))
    assert 1 <= affordable < 7
    for _ in range(affordable):
        ledger.reserve()
    with pytest.raises(dp.BudgetExceeded):
        ledger.reserve()


def test_a_servers_budget_cannot_be_kept_by_a_trusted_server():
    privacy = dp.Privacy(server_epsilon=1.0, delta=1e-5, l2_clip_norm=1.0)
    with pytest.raises(dp.ParameterError, match="infinite"):
        QueryAccountant.for_event(dp_accounting.GaussianDpEvent(1.5), SAMPLER, privacy)


def test_queries_without_an_event_are_refused_and_trees_have_their_own_accountant():
    tree = tfp.TreeCumulativeSumQuery.build_l2_gaussian_query(1.0, 1.0, TEMPLATE)
    with pytest.raises(dp.UnsupportedEvent):
        CentralQuery(tree, TEMPLATE, trusted_server=True)
    costs = [tree_epsilon(3.0, steps, delta=1e-5) for steps in (1, 2, 64, 65)]
    assert costs == sorted(costs)
    event = dp_accounting.SingleEpochTreeAggregationDpEvent(3.0, [64])
    accountant = dp_accounting.rdp.RdpAccountant(
        neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL
    )
    assert costs[2] == pytest.approx(accountant.compose(event).get_epsilon(1e-5), rel=0.05)
    run = QueryAccountant.for_tree(3.0, PRIVACY)
    assert run.epsilons(64).readers == costs[2]


def ours(honest=20):
    encoding = dp.Encoding.plan([dp.Block("w", 40, l2_bound=1.0, weight=1.0)])
    mechanism = dp.DistributedDiscreteGaussian(
        noise_multiplier=0.5, sensitivity=encoding.sensitivity, dimension=40, honest_survivors=honest
    )
    bits = encoding.check_bits(None, summands=30, noise_stddev=mechanism.stddev_of_sum(30))
    return encoding, mechanism, distributed_sum_query(encoding, mechanism, modulus_bits=bits)


def accumulate(query, records):
    state = query.initial_global_state()
    sample = query.initial_sample_state()
    for one in records:
        sample = query.accumulate_record(query.derive_sample_params(state), sample, one)
    return query.get_noised_result(sample, state)


def test_ours_is_one_of_their_queries_and_its_event_is_real():
    _, mechanism, query = ours()
    assert isinstance(query, tfp.SumAggregationDPQuery)
    result, _, event = accumulate(query, [{"w": tf.fill([40], 10.0)}] * 30)
    noise = mechanism.stddev_of_sum(30) / mechanism.sensitivity * 1.01
    assert abs(np.mean(result["w"]) - 30 / math.sqrt(40)) < 6 * noise / math.sqrt(40)
    theirs = dp_accounting.pld.PLDAccountant().compose(event).get_epsilon(1e-5)
    exact = dp_accounting.pld.PLDAccountant().compose(dp_accounting.GaussianDpEvent(0.5)).get_epsilon(1e-5)
    assert exact <= theirs <= exact * (1 + 1e-4)


def test_too_few_records_hold_too_little_noise():
    _, _, query = ours()
    with pytest.raises(dp.ParameterError, match="19 records"):
        accumulate(query, [{"w": tf.zeros(40)}] * 19)


def test_a_mechanism_made_for_less_is_refused():
    encoding, _, _ = ours()
    weak = dp.DistributedDiscreteGaussian(
        noise_multiplier=0.5, sensitivity=encoding.sensitivity / 2, dimension=40, honest_survivors=20
    )
    with pytest.raises(dp.ParameterError, match=r"encoding\.sensitivity"):
        distributed_sum_query(encoding, weak, modulus_bits=24)


def test_more_participations_are_more_passes():
    """Ten rounds of two epochs are twenty epochs of DP-SGD over the same examples."""
    settings = {"examples": 1000, "batch_size": 100, "noise_multiplier": 1.0, "delta": 1e-5}
    assert example_level_statement(**settings, epochs=2, participations=10) == example_level_statement(
        **settings, epochs=20
    )
    with pytest.raises(dp.ParameterError, match="participations"):
        example_level_statement(**settings, epochs=2, participations=0)


def test_a_run_with_both_says_both():
    """Client level against both observers, and example level, each under its own heading, each with its words."""
    privacy = dp.Privacy(delta=1e-5, l2_clip_norm=1.0, noise_multiplier=1.5, max_participations=10)
    sampler = dp.PaddedPoisson(3000, 300)
    mechanism = dp.DistributedDiscreteGaussian(
        noise_multiplier=1.5, sensitivity=9000.0, dimension=1000, honest_survivors=334
    )
    ours = dp.statements(
        dp.epsilon_of(mechanism, sampler, 50, 1e-5, 10), mechanism=mechanism, sampler=sampler, privacy=privacy,
        minimum_survivors=375, charged=50,
    )  # fmt: skip
    theirs = example_level_statement(
        examples=200, batch_size=20, epochs=1, noise_multiplier=1.1, delta=1e-5, participations=10
    )
    text = both_levels(ours, theirs)
    for part in (ours.readers.text, ours.server.text, theirs.strip(), "does not replace them"):
        assert part in text
    headings = [line for line in text.splitlines() if line.startswith("One ")]
    assert len(headings) == 3


def test_the_example_level_statement_is_theirs():
    words = example_level_statement(examples=1000, batch_size=100, epochs=2, noise_multiplier=1.0, delta=1e-5)
    assert "DP-SGD" in words
    assert "example" in words.lower()
