"""Every mechanism, sampler and clip of `dp`, in whole runs: the right noise, the right statement, exact resuming."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import dp
import fedavg
import secagg
from fedavg import Federation, RunEntropy, SecureAggregation, train
from fedavg.report import View

PRIVACY = dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0)
IDEAL = SecureAggregation.ideal()
CLIENTS = [np.full(3, float(i % 3)) for i in range(60)]


def step(weights, data):
    return {"b": weights["b"] + 0.01, "w": weights["w"] + 0.05 * (data - weights["w"])}


def still(weights, data):
    return weights


def settings(**changes):
    return {
        "weights": {"w": np.zeros(3), "b": np.zeros(2)},
        "rounds": 3,
        "cohort_size": 20,
        "privacy": PRIVACY,
        "entropy": RunEntropy.seeded(5),
        "secure": IDEAL,
        **changes,
    }


def central(mechanism, **changes):
    return replace(PRIVACY, mechanism=mechanism, trusted_server=True, **changes)


ORDER = dp.FixedOrder(population=60, expected=20)
CAPPED = {"privacy": replace(PRIVACY, max_participations=2)}
WAYS = {
    "skellam": {"privacy": replace(PRIVACY, mechanism="skellam")},
    "central gaussian": {"privacy": central("central_gaussian")},
    "central matrix": {"privacy": central("central_matrix"), "cohort_size": None, "sampler": ORDER},
    "per layer": {"privacy": replace(PRIVACY, l2_clip_norm={"w": 0.8, "b": 0.1})},
    "adaptive clip": {"privacy": replace(PRIVACY, clip_quantile=0.5, l2_clip_norm=0.2)},
    "compressed": {"secure": replace(IDEAL, compression="rotation")},
    "self-sampling": {
        "cohort_size": None,
        "sampler": dp.SelfSampling(dp.PaddedPoisson(population=60, expected=30), coin=0.5),
    },
    "fixed size": {"cohort_size": None, "sampler": dp.FixedSizeSample(population=60, expected=20)},
    "fixed order": {"cohort_size": None, "sampler": ORDER},
}


@pytest.mark.parametrize("way", WAYS)
def test_masked_and_ideal_give_the_same_bits(way):
    chosen = settings(**WAYS[way])
    plain = train(step, CLIENTS, **chosen)
    masked = train(step, CLIENTS, **{**chosen, "secure": replace(chosen["secure"], masked=True)})
    for name in plain.weights:
        np.testing.assert_array_equal(plain.weights[name], masked.weights[name])
    assert plain.statement.readers.epsilon == masked.statement.readers.epsilon > 0


@pytest.mark.parametrize("way", WAYS)
def test_a_run_resumes_exactly(way, tmp_path):
    chosen = settings(**WAYS[way])
    whole = train(step, CLIENTS, **chosen)
    half = Federation(step, CLIENTS, **chosen, folder=tmp_path)
    half.run_round()
    rest = train(step, CLIENTS, **chosen, folder=tmp_path, resume=True)
    for name in whole.weights:
        np.testing.assert_array_equal(whole.weights[name], rest.weights[name])
    assert [r.l2_clip_norm for r in whole.rounds] == [r.l2_clip_norm for r in rest.rounds]
    assert dp.verify(tmp_path / "operator" / "ledger.sqlite").findings == ()


@pytest.mark.parametrize(
    ("way", "low", "high"),
    [
        ("skellam", 0.98, 1.25),
        ("central gaussian", 0.98, 1.02),
        ("compressed", 0.98, 1.25),
        ("fixed size", 0.98, 1.25),
    ],
)
def test_the_noise_of_a_released_sum_is_the_stated_one(way, low, high):
    """One round of 20,000 still weights: their deviation within 2% (4 sd) of what the plan says, or above by the
    dropouts that never came; 2/3 and 3/2 of it would be far outside."""
    chosen = settings(**WAYS[way], rounds=1, weights={"w": np.zeros(20_000)})
    federation = Federation(still, CLIENTS, **chosen)
    federation.run_round()
    weights = federation.result().weights["w"]
    least = federation.plan.mechanism.noise_multiplier * federation.plan.encoding.sensitivity
    stated = least / federation.plan.encoding.scale("update") / federation.sampler.expected
    assert low < weights.std() / stated < high
    if way != "central gaussian":
        exact = federation.plan.stddev_of_sum("update") / federation.sampler.expected
        assert 0.98 < weights.std() / exact < 1.02


def test_correlated_noise_grows_slower_than_independent_noise_in_the_model():
    """60 rounds of still weights, 3 bands: the inverse of the factor partly cancels earlier noise."""
    spread = {}
    for way in ("central gaussian", "central matrix"):
        privacy = WAYS[way]["privacy"]
        chosen = settings(
            privacy=privacy, cohort_size=None, sampler=ORDER, rounds=60, weights={"w": np.zeros(20_000)}
        )
        result = train(still, CLIENTS, **chosen)
        # The same noise a participation: both are z times the norm of what one participation changes.
        assert result.plan.mechanism.noise_multiplier == 1.0
        spread[way] = result.weights["w"].std()
    assert spread["central matrix"] < 0.8 * spread["central gaussian"]


def correlated(**changes):
    return settings(**WAYS["central matrix"], rounds=6, **changes)


def joint_norm(rows, coefficients):
    """How far one client, in these rows of a matrix, can move all that is released."""
    moved = np.zeros(max(rows) + len(coefficients))
    for row in rows:
        moved[row : row + len(coefficients)] += coefficients
    return np.linalg.norm(moved)


def test_correlated_noise_begins_anew_after_a_round_that_was_lost():
    """Otherwise turns 3 rounds apart would be 2 releases apart, and a client would move more than is accounted for."""
    federation = Federation(step, CLIENTS, **correlated())
    columns = federation.plan.mechanism.coefficients / 2**16
    promised = np.sqrt(2) * np.linalg.norm(columns)
    assert joint_norm([0, 3], columns) == pytest.approx(promised)
    assert joint_norm([0, 2], columns) > 1.12 * promised
    depths = []
    for lost in (False, False, True, False):
        if lost:
            federation.ledger.reserve()  # As a crash leaves it, or a sum that failed after an unmasking share.
        federation.run_round()
        depths.append(len(federation.state.memory["sums"]))
    assert depths == [1, 2, 1, 2]


def test_correlated_noise_begins_anew_from_an_older_checkpoint(tmp_path):
    """The rounds since were released: what they hold of earlier sums must not be released once more, shifted."""
    federation = Federation(step, CLIENTS, **correlated(), folder=tmp_path)
    federation.run_round()
    checkpoint = tmp_path / "operator" / "checkpoint.npz"
    older = checkpoint.read_bytes()
    federation.run_round()
    checkpoint.write_bytes(older)
    again = Federation(step, CLIENTS, **correlated(), folder=tmp_path, resume=True)
    assert again.state.rounds == len(again.state.memory["sums"]) == 1
    again.run_round()
    assert len(again.state.memory["sums"]) == 1


def test_turns_are_counted_from_a_rounds_own_charge_whoever_else_is_charged_meanwhile():
    seen = []

    def noting(weights, data):
        seen.append(int(data))
        return step(weights, np.zeros(3))

    federation = Federation(noting, list(range(60)), **settings(**WAYS["fixed order"]))
    reserve = federation.ledger.reserve

    def raced(**arguments):
        number = reserve(**arguments)
        reserve()  # Another process of the same run, before this one draws.
        return number

    federation.ledger.reserve = raced
    federation.run_round()
    assert sorted(seen) == list(range(20))


def test_a_turn_is_never_given_twice_by_refunding_an_older_one(tmp_path):
    """Two processes of one run: were the first round taken back, the next would be where the second already was."""
    trained = []

    def noting(weights, data):
        trained.append(int(data))
        return step(weights, np.zeros(3))

    chosen = settings(**WAYS["fixed order"], ledger=tmp_path / "ledger.sqlite")
    first, second = (Federation(noting, list(range(60)), **chosen) for _ in range(2))

    def vanishing(*_, **__):
        second.run_round()
        raise secagg.TooFewClients(have=1, need=18)

    object.__setattr__(first._process, "backend", SimpleNamespace(sum_round=vanishing))
    with pytest.raises(fedavg.RoundAborted, match="stays charged") as aborted:
        first.run_round()
    assert aborted.value.charged
    second.run_round()
    assert sorted(trained) == list(range(20, 60))


@pytest.mark.parametrize(
    ("chosen", "turned_round"),
    [(WAYS["fixed order"], True), (WAYS["fixed order"], False), (CAPPED, False)],
    ids=["turns in another order", "turns of others", "caps of others"],
)
def test_turns_and_caps_never_move_to_other_clients(chosen, turned_round, tmp_path):
    people = {f"client {i}": data for i, data in enumerate(CLIENTS)}
    other = (
        dict(reversed(people.items()))
        if turned_round
        else {**dict(list(people.items())[1:]), "new": CLIENTS[0]}
    )
    Federation(step, people, **settings(**chosen), folder=tmp_path).run_round()
    with pytest.raises(fedavg.CheckpointError, match="differs in clients"):
        Federation(step, other, **settings(**chosen), folder=tmp_path, resume=True)
    Federation(step, people, **settings(**chosen), folder=tmp_path, resume=True).run_round()


@pytest.mark.parametrize("mechanism", ["central_gaussian", "central_matrix"])
def test_a_trusted_server_is_said_to_see_everything(mechanism, tmp_path):
    way = WAYS[mechanism.replace("_", " ")]
    result = train(step, CLIENTS, **settings(**way), folder=tmp_path)
    assert result.statement.server.epsilon == np.inf
    assert "no promise" in result.statement.server.claim
    assert result.statement.as_dict()["server"]["epsilon"] is None
    assert '"server": null' in (tmp_path / "public" / "rounds.jsonl").read_text()
    assert result.statement.readers.epsilon < np.inf


def test_an_adaptive_clip_finds_the_quantile():
    """Updates of norm 0.3: the clip climbs from 0.01 to just around it, and the report says where it was."""
    clients = list(range(600))
    chosen = settings(
        weights={"w": np.zeros(9)}, cohort_size=300, rounds=45,
        privacy=replace(PRIVACY, clip_quantile=0.5, l2_clip_norm=0.01),
    )  # fmt: skip
    result = train(lambda weights, data: {"w": weights["w"] + 0.1}, clients, **chosen)
    clips = [report.l2_clip_norm for report in result.rounds]
    assert clips[0] == 0.01
    assert 0.2 < clips[-1] < 0.45
    # What a round costs does not depend on where the clip went.
    fixed = train(still, clients, **{**chosen, "privacy": PRIVACY})
    assert result.statement.readers.epsilon == pytest.approx(fixed.statement.readers.epsilon, rel=1e-9)


def test_each_layer_keeps_its_own_bound():
    """With no noise to speak of, the released change of a layer is at most its bound, however large the update."""
    privacy = central("central_gaussian", noise_multiplier=1e-3, l2_clip_norm={"w": 0.5, "b": 0.02})
    chosen = settings(privacy=privacy, rounds=1, sampler=dp.FixedSizeSample(60, 60), cohort_size=None)
    huge = train(lambda w, data: {"w": w["w"] + 1e6, "b": w["b"] - 1e6}, CLIENTS, **chosen)
    assert np.linalg.norm(huge.weights["w"]) == pytest.approx(0.5, rel=0.01)
    assert np.linalg.norm(huge.weights["b"]) == pytest.approx(0.02, rel=0.01)


def test_compressed_vectors_take_fewer_bits():
    size = {"w": np.zeros(4096)}
    plain = Federation(still, CLIENTS, **settings(weights=size)).plan
    small = Federation(
        still, CLIENTS, **settings(weights=size, secure=replace(IDEAL, compression="rotation"))
    ).plan
    assert small.modulus_bits <= plain.modulus_bits - 5


@pytest.mark.parametrize("way", ["default", "skellam"])
def test_one_draw_has_the_law_of_the_shares(way):
    """20,000 still weights: the deviation of one draw is the sum of shares' within 2% (4 sd)."""
    chosen = settings(**WAYS.get(way, {}), rounds=1, weights={"w": np.zeros(20_000)})
    spread = [
        train(still, CLIENTS, **{**chosen, "secure": secure}).weights["w"].std()
        for secure in (IDEAL, SecureAggregation.ideal(one_draw=True))
    ]
    assert spread[1] == pytest.approx(spread[0], rel=0.02)


BAD = {
    "matrix without order": ({"privacy": central("central_matrix")}, fedavg.ParameterError, "FixedOrder"),
    "too many bands": (
        {"privacy": central("central_matrix", bands=4), "cohort_size": None, "sampler": ORDER},
        dp.CohortMismatch,
        "at most 3",
    ),
    "sampler and size": ({"sampler": ORDER}, fedavg.ParameterError, "exactly one"),
    "neither": ({"cohort_size": None}, fedavg.ParameterError, "exactly one"),
    "sampler of others": (
        {"cohort_size": None, "sampler": dp.FixedOrder(50, 10)},
        fedavg.ParameterError,
        "draws from 50",
    ),
    "a layer too few": ({"privacy": replace(PRIVACY, l2_clip_norm={"w": 1.0})}, fedavg.ParameterError, "'b', 'w'"),
    "removal of skellam": (
        {"privacy": replace(PRIVACY, mechanism="skellam"), "secure": replace(IDEAL, excess_noise="remove")},
        fedavg.ParameterError,
        "only discrete_gaussian",
    ),
    **{
        f"compressed sums under {mechanism}": (
            {**way, "secure": replace(IDEAL, compression="rotation")},
            fedavg.ParameterError,
            "sums may wrap",
        )
        for mechanism, way in WAYS.items()
        if mechanism.startswith("central")
    },
    "an indicator without room": (
        {"privacy": replace(PRIVACY, clip_quantile=0.5, noise_multiplier=3.0)},
        dp.ParameterError,
        "indicator",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_before_anything_is_charged(case, tmp_path):
    changes, error, words = BAD[case]
    with pytest.raises(error, match=words):
        Federation(step, CLIENTS, **settings(**changes), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ids_that_cannot_be_counted_are_refused_before_anything_is_charged(tmp_path):
    people = {("ward", i): data for i, data in enumerate(CLIENTS)}
    with pytest.raises(dp.ParameterError, match="of type tuple"):
        Federation(step, people, **settings(), ledger=tmp_path / "ledger.sqlite")
    assert dp.Ledger.open(tmp_path / "ledger.sqlite").charged == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mechanism": "laplace"}, "choose one of"),
        ({"mechanism": "central_gaussian"}, "trusted_server=True"),
        ({"trusted_server": True}, "never trust"),
        ({"bands": 3}, "central_matrix"),
        ({"clip_quantile": 1.0}, "strictly between"),
        ({"clip_quantile": 0.5, "l2_clip_norm": {"w": 1.0}}, "each layer"),
        ({"l2_clip_norm": {"w": -1.0}}, "'w'"),
    ],
)
def test_a_promise_that_contradicts_itself_is_refused(changes, words):
    with pytest.raises(dp.ParameterError, match=words):
        replace(PRIVACY, **changes)


@pytest.mark.parametrize("mechanism", ["central_gaussian", "central_matrix"])
def test_a_plan_knows_the_noise_that_a_trusted_server_adds(mechanism):
    """Nobody sends anything, so that the first model is the noise: 4,000 values, within five standard errors."""
    done = train(
        still,
        CLIENTS,
        **settings(
            weights=np.zeros(4000),
            rounds=1,
            privacy=central(mechanism),
            cohort_size=None,
            sampler=dp.FixedOrder(population=60, expected=6),
        ),
    )
    stated = done.plan.stddev_of_sum("update") / done.sampler.expected
    assert abs(np.mean(done.weights**2) / stated**2 - 1) < 5 * np.sqrt(2 / 4000)


def test_a_report_tells_how_correlated_noise_grows():
    done = train(still, CLIENTS, **settings(**WAYS["central matrix"]))
    matrix = done.plan.mechanism
    first = done.plan.stddev_of_sum("update") / 20
    last = first * matrix.stddev_of_release(3) / matrix.stddev_of_release()
    assert "rounds that one participation touches" in View.of(done).settings["Noise"]
    said = View.of(done).settings["Noise in the average"]
    assert first < last
    assert f"deviation {first:.3g} in every value after the first round, {last:.3g} after round 3" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy": replace(PRIVACY, noise_multiplier=1e9)},
        {"privacy": replace(PRIVACY, noise_multiplier=1e7, mechanism="skellam")},
        {"privacy": central("central_gaussian", noise_multiplier=1e8)},
        {"privacy": replace(PRIVACY, noise_multiplier=1e9), "secure": replace(IDEAL, excess_noise="remove")},
    ],
)
def test_noise_that_no_sampler_draws_is_refused_before_a_round_is_paid_for(changes):
    with pytest.raises(
        fedavg.ParameterError, match=r"noise multiplier of 1e\+0. over 7 values cannot be drawn"
    ):
        Federation(still, CLIENTS, **settings(**changes))
