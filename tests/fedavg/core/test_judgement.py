"""Good programs pass and give the right answer; whatever passes has the sensitivity that its plan states."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dp
from fedavg import RunEntropy, SecureAggregation
from fedavg.aggregation import RoundSum
from fedavg.backends import Local
from fedavg.core import (
    CLIENTS,
    SERVER,
    Context,
    InsecureWarning,
    Noise,
    PrivacyTypeError,
    SequenceType,
    TensorType,
    TypeMismatch,
    at_clients,
    at_server,
    federated_broadcast,
    federated_clip,
    federated_computation,
    federated_eval,
    federated_filter,
    federated_map,
    federated_mean,
    federated_sum,
    federated_value,
    federated_zip,
    local_computation,
    within,
)

N = 300
XS = [((7 * i) % 21 - 10) / 10 for i in range(N)]
ONE = at_clients(np.float64)
IDEAL = SecureAggregation.ideal()


def clipped_sum(x):
    return federated_sum(federated_clip(x, l2=1.0))


def clipped_mean(x):
    return federated_mean(federated_clip(x, l2=1.0))


def function_with_a_bound_in_its_type(x):
    return federated_sum(federated_map(local_computation(returns=within(np.float64, l2=1.0))(np.tanh), x))


def amplified_then_clipped(x):
    return federated_sum(federated_clip(federated_map(lambda v: v * 1000.0, x), l2=1.0))


def a_count_of_clients(x):
    return federated_sum(federated_clip(federated_value(1.0, CLIENTS), l2=1.0))


def two_sums_side_by_side(x):
    return {"a": clipped_sum(x), "b": federated_sum(federated_clip(federated_map(np.abs, x), l2=1.0))}


def a_sum_of_a_bounded_struct(x):
    both = federated_zip({"v": x, "square": federated_map(np.square, x)})
    return federated_sum(federated_clip(both, l2=2.0))


def parts_with_their_own_bounds(x):
    return federated_sum(
        (federated_clip(x, l2=1.0), federated_clip(federated_map(lambda v: 2 * v, x), l2=2.0))
    )


def a_weighted_mean(x):
    weight = federated_map(lambda v: np.float64(v > 0), x)
    return federated_mean(federated_clip(x, l2=1.0), federated_clip(weight, l2=1.0))


def a_filtered_sum(x):
    return federated_sum(federated_clip(federated_filter(x, lambda v: bool(v > 0.5)), l2=1.0))


def adaptive(x):
    center = clipped_mean(x)
    moved = federated_map(lambda v, c: v - c, (x, federated_broadcast(center)))
    return federated_sum(federated_clip(moved, l2=1.0))


def a_loop_of_fixed_length(x):
    center = federated_value(0.0, SERVER)
    for _ in range(3):
        moved = federated_map(lambda v, c: v - c, (x, federated_broadcast(center)))
        center = federated_map(lambda c, m: c + m, (center, federated_mean(federated_clip(moved, l2=1.0))))
    return center


def server_post_processing(x):
    return federated_map(lambda s: np.hypot(s, 1.0), clipped_sum(x))


def a_public_result_beside(x):
    return (federated_value(3.0, SERVER), clipped_sum(x), "plain text", 4)


def noised_value_at_every_client(x):
    return federated_broadcast(clipped_sum(x))


def client_state_summed(x):
    return federated_sum(federated_clip(federated_eval(lambda: 0.5, CLIENTS), l2=1.0))


def a_histogram(x):
    one_hot = local_computation(returns=within((np.float64, (4,)), l2=1.0))(
        lambda v: np.eye(4)[min(int((v + 1) * 2), 3)]
    )
    return federated_sum(federated_map(one_hot, x))


def whole_numbers(x):
    return federated_sum(federated_clip(federated_map(lambda v: int(v > 0), x), l2=1.0))


def its_own_noise(x):
    return federated_sum(federated_clip(x, l2=1.0), noise=Noise(multiplier=5.0))


def most_of_the_noise_budget(x):
    heavy = federated_sum(federated_clip(x, l2=1.0), noise=Noise(weight=9.0))
    return heavy, clipped_sum(x)


def selected_from_a_struct(x):
    pair = federated_map(lambda v: {"v": v, "w": v + 1}, x)
    return federated_sum(federated_clip(pair.v, l2=1.0)), federated_sum(federated_clip(pair["w"], l2=2.0))


def another_program_inside(x):
    return federated_computation(ONE)(clipped_sum)(x)


GOOD = [
    clipped_sum, clipped_mean, function_with_a_bound_in_its_type, amplified_then_clipped, a_count_of_clients,
    two_sums_side_by_side, a_sum_of_a_bounded_struct, parts_with_their_own_bounds, a_weighted_mean, a_filtered_sum,
    adaptive, a_loop_of_fixed_length, server_post_processing, a_public_result_beside, noised_value_at_every_client,
    client_state_summed, a_histogram, whole_numbers, its_own_noise, most_of_the_noise_budget, selected_from_a_struct,
    another_program_inside,
]  # fmt: skip


def flat(result):
    if isinstance(result, dict):
        return [x for item in result.values() for x in flat(item)]
    if isinstance(result, tuple):
        return [x for item in result for x in flat(item)]
    return [] if isinstance(result, str) else np.asarray(result, float).reshape(-1).tolist()


@pytest.mark.parametrize("program", GOOD, ids=lambda program: program.__name__)
def test_a_good_program_passes_and_is_right_up_to_its_noise(program):
    """Noise of fixed seed; a sum's deviation is at most 60 times its bound here, and its own result at most 300."""
    computation = federated_computation(ONE)(program)
    with Context(insecure=True), pytest.warns(InsecureWarning):
        exact = computation(XS)
    context = Context(
        population=N, delta=1e-4, noise_multiplier=2.0, secure=IDEAL, entropy=RunEntropy.seeded(3)
    )
    report = computation.privacy(context)
    noised = context.run(computation, XS)
    assert report.statements.readers.epsilon == noised.statements.readers.epsilon > 0
    spread = 6 * max(stddev for event in report.events for stddev in event.stddev)
    assert flat(noised.value) == pytest.approx(flat(exact), abs=spread)
    assert flat(noised.value) != flat(exact)


class Recorder(Local):
    """A backend that keeps each stage's integers before the noise, and replays what an earlier one released."""

    def __init__(self, silent=None, replay=None):
        self.silent, self.replay = silent, replay
        self.totals, self.single, self.released = [], [], []

    def sum_round(self, plan, work, *, clients, number, entropy, **_):
        integers = {}
        for client in clients:
            values = plan.zeros() if client == self.silent else work(client)
            integers[client] = plan.encoding.encode(values, entropy.keystream("noise", number, client))
        total = sum(integers.values())
        self.totals.append((plan, total))
        self.single.append(integers)
        if self.replay is None:
            noise = plan.mechanism.one_draw(entropy.keystream("sum", number), len(clients))
            self.released.append(plan.encoding.read(total + noise))
        else:
            self.released.append(self.replay[len(self.released)])
        return RoundSum(self.released[-1], len(clients), 0)


def measured_shift(computation, arguments, silent, *, population, **settings):
    """Distance of the stage sums with and without one client, in deviations of their noise, given the same releases."""

    def run(backend):
        context = Context(
            population=population,
            delta=1e-3,
            noise_multiplier=1.5,
            secure=SecureAggregation.ideal(dropout=0.0, corruption=0.0),
            entropy=RunEntropy.seeded(11),
            backend=backend,
            **settings,
        )
        context.run(computation, *arguments)
        return context.privacy(computation), backend

    report, with_it = run(Recorder())
    _, without = run(Recorder(silent, with_it.released))
    squared = 0.0
    for (plan, one), (_, other) in zip(with_it.totals, without.totals, strict=True):
        assert plan.mechanism.sensitivity == plan.encoding.sensitivity
        sigma = plan.mechanism.noise_multiplier * plan.encoding.sensitivity
        squared += float(np.linalg.norm((one - other).astype(float)) / sigma) ** 2
    return math.sqrt(squared), 1 / report.noise_multiplier


FUNCTIONS = [
    lambda v: v * 1000.0,
    lambda v: -v,
    np.sqrt,
    np.square,
    lambda v: 1.0 / v,
    lambda v: v if v < 5 else np.zeros(3),  # another shape
    lambda v: float("nan") if v > 3 else v,
    lambda v: [][int(v) + 5],  # raises for most
    np.tanh,
    np.cos,
    np.abs,
    lambda v: 3.0 - v,
]
USUAL = st.floats(-1e3, 1e3)
VALUES = st.one_of(
    USUAL, USUAL, USUAL, st.sampled_from([0.0, 1e30, -1e300, float("inf"), float("nan"), "text", None])
)


OPERATIONS = [0, 1, 3, 4, 5, 7, 8] * 4 + [2, 6, 6, 9]  # mostly what type-checks


@st.composite
def programs(draw):
    """A random tree of everything the layer has, bounds put in or forgotten."""
    choices = draw(st.lists(st.sampled_from(OPERATIONS), min_size=3, max_size=10))
    bounds = st.sampled_from([0.01, 1.0, 37.5, 1e6])
    functions = [draw(st.sampled_from(FUNCTIONS)) for _ in choices]
    limits = [draw(bounds) for _ in choices]
    multipliers = [draw(st.sampled_from([None, None, 4.0])) for _ in choices]

    def program(x, s):
        clients, server, out = [x], [s], []
        for i, choice in enumerate(choices):
            value, known = clients[-1], server[-1]
            local = local_computation(returns=np.float64)(functions[i])
            bounded = federated_clip(value, l2=limits[i])
            noise = Noise(multiplier=multipliers[i])
            if choice == 0:
                clients.append(federated_map(local, value))
            elif choice == 1:
                clients.append(bounded)
            elif choice == 2:
                out.append(federated_sum(value, noise=noise))
            elif choice == 3:
                out.append(federated_sum(bounded, noise=noise))
            elif choice == 4:
                server.append(federated_mean(bounded, noise=noise))
            elif choice == 5:
                clients.append(federated_map(lambda v, c: v - c, (value, federated_broadcast(known))))
            elif choice == 6:
                clients.append(federated_filter(value, lambda v: bool(v > 0)))
            elif choice == 7:
                out.append(federated_mean(bounded, federated_clip(clients[0], l2=limits[i]), noise=noise))
            elif choice == 8:
                out.append(federated_sum((bounded, federated_clip(clients[0], l2=3.0)), noise=noise))
            else:
                out.append(value if limits[i] == 1e6 else federated_broadcast(known))
        return (*out, server[-1])

    return program


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(programs(), st.lists(VALUES, min_size=6, max_size=6), st.integers(0, 5))
def test_whatever_type_checks_has_at_most_its_static_sensitivity(program, data, silent):
    try:
        computation = federated_computation(ONE, at_server(np.float64))(program)
    except PrivacyTypeError:
        return
    if not computation.asks_clients:
        return
    shift, stated = measured_shift(computation, (data, 0.5), silent, population=6)
    assert shift <= stated * (1 + 1e-6)


def test_the_static_sensitivity_is_reached_and_not_by_chance():
    """One client at its bound in every aggregation of three stages moves the sums by all that is stated, or nearly."""

    @federated_computation(ONE)
    def program(x):
        first = federated_sum(federated_clip(x, l2=1.0))
        again = federated_map(lambda v, _: v, (x, federated_broadcast(first)))
        second = federated_sum((federated_clip(again, l2=5.0), federated_clip(x, l2=2.0)))
        third = federated_map(lambda v, _: v, (x, federated_broadcast(second)))
        return federated_mean(federated_clip(third, l2=7.0), noise=Noise(weight=3.0))

    shift, stated = measured_shift(program, ([100.0] + [0.0] * 9,), 0, population=10)
    assert 0.97 * stated < shift <= stated * (1 + 1e-6)


def test_rule_3_what_a_client_sends_has_one_form_whatever_it_holds():
    """The transcript of a masked run: every client sends every message, of the same sizes, whatever its data does."""

    @local_computation(returns=within((np.float64, (3,)), l2=1.0))
    def fragile(v):
        if v > 8:
            raise ValueError("too much")
        return np.full(4 if v > 6 else 3, np.nan if v > 4 else v)

    @federated_computation(ONE)
    def program(x):
        return federated_sum(federated_map(fragile, federated_filter(x, lambda v: bool(v != 3))))

    def transcript(data):
        seen = []
        context = Context(
            population=len(data),
            delta=1e-3,
            noise_multiplier=2.0,
            secure=SecureAggregation(dropout=0.2, corruption=0.0),
            record=lambda stage, sender, message: seen.append((stage, sender, len(message))),
        )
        context.run(program, data)
        return sorted(seen)

    well = transcript([0.1] * 10)
    assert well
    assert transcript([0.1, 9.0, 7.0, 5.0, 3.0, "text", None, [1.0], 1e400, 0.2]) == well


class Wordless(Exception):
    def __str__(self):
        raise ValueError("not even this")


class Abrupt(BaseException):
    pass


class Hostile:
    def __array__(self, *_, **__):
        raise Abrupt

    __iter__ = __len__ = __getitem__ = __array__


def misbehave(items):
    kind = int(items[0]) if items else 0
    if kind == 1:
        raise Wordless
    if kind == 2:
        raise Abrupt
    if kind == 3:
        raise SystemExit(3)
    return {4: Hostile(), 5: [[1.0], [1.0, 2.0]], 6: "text", 7: np.zeros(2, object), 8: 1j}.get(kind, 0.5)


def test_rule_3_no_error_gets_out_of_a_client_whatever_it_is():
    @federated_computation(at_clients(SequenceType(TensorType("float64"))))
    def program(x):
        return federated_sum(
            federated_clip(federated_map(local_computation(returns=float)(misbehave), x), l2=1.0)
        )

    recorder = Recorder()
    data = [[k] for k in range(9)] + [None, 3, Hostile(), ["text"], [None], [[1.0]]]
    context = Context(
        population=len(data), delta=1e-3, noise_multiplier=2.0, backend=recorder,
        secure=SecureAggregation.ideal(dropout=0.0, corruption=0.0),
    )  # fmt: skip
    context.run(program, data)
    assert [client for client, integers in recorder.single[0].items() if integers.any()] == [0]


def test_rule_3_zeros_take_the_place_of_what_fails_or_is_left_out():
    @federated_computation(ONE)
    def program(x):
        kept = federated_filter(x, lambda v: bool(v < 2))
        return federated_sum(
            federated_clip(federated_map(local_computation(returns=float)(np.sqrt), kept), l2=5.0)
        )

    recorder = Recorder()
    context = Context(
        population=4, delta=1e-3, noise_multiplier=2.0, backend=recorder,
        secure=SecureAggregation.ideal(dropout=0.0, corruption=0.0),
    )  # fmt: skip
    context.run(program, [1.0, 3.0, -1.0, "text"])
    sent = {client: integers.any() for client, integers in recorder.single[0].items()}
    assert sent == {0: True, 1: False, 2: False, 3: False}


def test_rule_5_aggregations_under_one_draw_are_one_sampled_event():
    """Two sums at noise multiplier z each, under one draw at rate 0.1: as one event of z / sqrt(2); as two events of
    z, amplified one by one, they would seem cheaper than they are. Side by side and one after the other alike."""

    def beside(x):
        one = Noise(multiplier=3.0)
        return (
            federated_sum(federated_clip(x, l2=1.0), noise=one),
            federated_sum(federated_clip(x, l2=2.0), noise=one),
        )

    def after(x):
        one = Noise(multiplier=3.0)
        first = federated_sum(federated_clip(x, l2=1.0), noise=one)
        moved = federated_map(lambda v, s: v - s / 1000, (x, federated_broadcast(first)))
        return federated_sum(federated_clip(moved, l2=2.0), noise=one)

    sampler = dp.PaddedPoisson(population=3000, expected=300)
    settings = {"population": 3000, "cohort_size": 300, "delta": 1e-5, "rounds": 50}
    for program in (beside, after):
        report = federated_computation(ONE)(program).privacy(
            Context(noise_multiplier=3.0 / math.sqrt(2), **settings)
        )
        assert report.noise_multiplier == pytest.approx(3.0 / math.sqrt(2), rel=1e-6)
        single = report.statements.readers.epsilon
        promise = dp.Privacy(delta=1e-5, l2_clip_norm=1.0, noise_multiplier=1.0)
        apart = dp.RunAccountant(
            dp.DistributedDiscreteGaussian(
                noise_multiplier=3.0, sensitivity=1e4, dimension=1, honest_survivors=100
            ),
            sampler,
            promise,
            100,
        ).epsilons(100)
        assert single > 1.05 * apart.readers
        assert [event.noise_multiplier for event in report.events] == pytest.approx([3.0, 3.0])


def test_rule_5_all_stages_of_a_run_have_one_draw():
    @federated_computation(ONE)
    def program(x):
        first = federated_sum(federated_clip(x, l2=1.0))
        moved = federated_map(lambda v, s: v + 0 * s, (x, federated_broadcast(first)))
        return federated_sum(federated_clip(moved, l2=1.0))

    recorder = Recorder()
    context = Context(
        population=60, cohort_size=20, delta=1e-3, noise_multiplier=2.0, backend=recorder,
        secure=SecureAggregation.ideal(dropout=0.0, corruption=0.0),
    )  # fmt: skip
    context.run(program, [1.0] * 60)
    first, second = ({c for c, v in stage.items() if v.any()} for stage in recorder.single)
    assert first == second
    assert 2 < len(first) < 45 <= len(recorder.single[0])
    assert context.ledger(program).charged == 1


def test_a_sequence_is_summed_after_it_was_mapped_to_a_fixed_shape():
    @federated_computation(at_clients(SequenceType(TensorType("float64"))))
    def program(x):
        return federated_sum(federated_clip(federated_map(lambda items: np.float64(len(items)), x), l2=10.0))

    with Context(insecure=True), pytest.warns(InsecureWarning):
        assert program([[1.0, 2.0], [], [3.0]]) == 3.0


@pytest.mark.parametrize("keep", [lambda v: int(v > 0), lambda v: v, lambda v: np.array([v > 0])])
def test_a_filter_that_gives_no_truth_value_is_refused_before_it_leaves_everybody_out(keep):
    with pytest.raises(TypeMismatch, match=r"one truth value.*and returns .*make it bool"):
        federated_computation(at_clients(float))(
            lambda x: federated_sum(federated_clip(federated_filter(x, keep), l2=1.0))
        )
