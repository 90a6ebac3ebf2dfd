"""The noise that is really in the decoded sums: whoever drops out, at whichever stage, and whoever colludes.

One masked round of 20,000 values each; a chi-square interval at alpha 1e-4 has a half-width of 4%: noise of 2/3 or
3/2 of the stated deviation would be far outside.
"""

import numpy as np
import pytest
from scipy import stats

import dp
from fedavg import RunEntropy, SecureAggregation
from fedavg.aggregation import DROPOUT_STAGES, AggregationPlan

SIZE, COHORT, LOST, COLLUDERS = 20_000, 30, 6, 6
PRIVACY = dp.Privacy(noise_multiplier=1.0, delta=1e-4, l2_clip_norm=1.0)
BLOCK = dp.Block("update", length=SIZE, l2_bound=1.0, weight=1.0)
INPUT = np.full(SIZE, 0.5 / np.sqrt(SIZE))


def plan_of(excess_noise="keep", mechanism="discrete_gaussian", corruption=0.0, *, masked=True):
    secure = SecureAggregation(dropout=0.2, corruption=corruption, excess_noise=excess_noise, masked=masked)
    privacy = dp.Privacy(noise_multiplier=1.0, delta=1e-4, l2_clip_norm=1.0, mechanism=mechanism)
    return AggregationPlan.choose(
        [BLOCK], cohort=COHORT, privacy=privacy, noise_multiplier=1.0, secure=secure
    )


def run(plan, dropouts, seed=1):
    return plan.sum_round(
        lambda client: {"update": INPUT},
        clients=range(COHORT),
        number=1,
        model_hash=bytes(32),
        dropouts=dropouts,
        entropy=RunEntropy.seeded(seed),
    )


def excess_ratio(noise, stddev, rounding):
    """Variance found over variance stated, and the interval it must lie in; `rounding` values round by 1/4 at most."""
    low, high = stats.chi2.ppf([5e-5, 1 - 5e-5], noise.size) / noise.size
    return np.mean(noise**2) / stddev**2, low, high + rounding / 4 / stddev**2


DROPOUTS = {
    "nobody": {},
    "half of the tolerance": {"share": [1, 2, 3]},
    **{f"all at {stage}": {stage: range(LOST)} for stage in DROPOUT_STAGES},
    "spread over the stages": {stage: [i] for i, stage in enumerate(DROPOUT_STAGES)},
}


@pytest.mark.parametrize("who", DROPOUTS)
@pytest.mark.parametrize(
    ("excess_noise", "mechanism"),
    [("keep", "discrete_gaussian"), ("remove", "discrete_gaussian"), ("keep", "skellam")],
)
def test_the_noise_in_a_sum_is_the_stated_one_whoever_drops_out(who, excess_noise, mechanism):
    plan = plan_of(excess_noise, mechanism)
    result = run(plan, DROPOUTS[who])
    late = set(DROPOUTS[who].get("unmask", ()))
    gone = {client for clients in DROPOUTS[who].values() for client in clients} - late
    assert result.survivors == COHORT - len(gone)
    scale = plan.encoding.scale("update")
    noise = (result.sums["update"] - result.survivors * INPUT) * scale
    ratio, low, high = excess_ratio(noise, plan.mechanism.stddev_of_sum(result.survivors), COHORT)
    assert low < ratio < high
    # Never less than promised; with removal never more than a little, however few dropped out.
    promised, _, _ = excess_ratio(noise, plan.encoding.sensitivity, COHORT)
    assert promised > low
    if excess_noise == "remove":
        assert promised < 1.1
    elif not gone:
        assert promised == pytest.approx(COHORT / (COHORT - LOST), rel=0.05)


@pytest.mark.parametrize("dropouts", [{}, {"masked_input": range(LOST)}])
@pytest.mark.parametrize("excess_noise", ["keep", "remove"])
def test_colluders_who_subtract_their_own_shares_leave_the_stated_noise(excess_noise, dropouts):
    """The last six clients and the server pool all they know: their vectors, their noise, their seeds."""
    plan = plan_of(excess_noise, corruption=0.2, masked=False)
    result = run(plan, dropouts)
    entropy, mechanism = RunEntropy.seeded(1), plan.mechanism
    total = np.rint(result.sums["update"] * plan.encoding.scale("update"))
    known = np.zeros(SIZE)
    for client in range(COHORT - COLLUDERS, COHORT):
        keystream = entropy.keystream("noise", 1, client)
        known += plan.encoding.encode({"update": INPUT}, keystream)
        if excess_noise == "keep":
            known += mechanism.share(keystream)
            continue
        seeds = [entropy.secret("seed", 1, client, part) for part in range(1, mechanism.seeds + 1)]
        taken_off = mechanism.revealed(COHORT - result.survivors)
        known += mechanism.share(keystream, seeds)
        known -= mechanism.excess([(part, seeds[part - 1]) for part in taken_off])
    honest = result.survivors - COLLUDERS
    noise = total - known - honest * INPUT * plan.encoding.scale("update")
    ratio, low, high = excess_ratio(noise, plan.encoding.sensitivity, COHORT)
    assert ratio > low
    if dropouts or excess_noise == "remove":  # Exactly the worst that was planned for.
        assert ratio < high * 1.1
    # Control: what they subtracted was really in there.
    assert np.mean((noise + known) ** 2) > np.mean(noise**2)


def test_noise_shares_that_dropouts_thin_would_be_seen():
    """The control: shares sized for the whole cohort, as if nobody could drop out, fall below the interval."""
    plan = plan_of()
    thin = SecureAggregation(dropout=0.0, corruption=0.0, masked=False)
    careless = AggregationPlan.choose(
        [BLOCK], cohort=COHORT, privacy=PRIVACY, noise_multiplier=1.0, secure=thin
    )
    total = sum(
        careless.encode({"update": INPUT}, RunEntropy.seeded(1).keystream(i)).astype(np.uint64)
        for i in range(COHORT - LOST)
    )
    lifted = careless.encoding.lift(
        total & np.uint64(2**careless.modulus_bits - 1), modulus_bits=careless.modulus_bits
    )
    noise = lifted - (COHORT - LOST) * INPUT * careless.encoding.scale("update")
    promised, low, _ = excess_ratio(noise, plan.encoding.sensitivity, COHORT)
    assert promised < low


@pytest.mark.parametrize("excess_noise", ["keep", "remove"])
def test_one_number_of_many_clients_is_rounded_finely_enough(excess_noise):
    """In usual units, whose number is the root of the length, a share's deviation would be below 2: not proven."""
    one, many = dp.Block("update", length=1, l2_bound=1.0, weight=1.0), 50_000
    secure = SecureAggregation(dropout=0.2, excess_noise=excess_noise, masked=False)
    plan = AggregationPlan.choose([one], cohort=many, privacy=PRIVACY, noise_multiplier=1.0, secure=secure)
    assert 2 <= plan.mechanism.local_stddev < 10
    assert plan.stddev_of_sum("update") == pytest.approx(1.2, abs=0.2)
    assert plan_of().encoding == dp.Encoding.plan([BLOCK])
