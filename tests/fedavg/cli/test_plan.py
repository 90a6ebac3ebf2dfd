"""`veilsum budget plan`: plans agree with runs, with known figures, and with the promise they were asked to keep."""

from __future__ import annotations

import json

import numpy as np
import pytest

import dp
import fedavg
from fedavg.cli.plan import Asked, Mechanism, plan

DEMO = ("--population", 3000, "--cohort", 300, "--rounds", 50, "--delta", 1e-5)


def planned(veilsum, *arguments):
    ran = veilsum("budget", "plan", *arguments, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_known_figures_of_the_demo(veilsum):
    """Central Gaussian and distributed discrete Gaussian, z = 1.5, q = .1, T = 50: 2.530; ten participations: 10.67."""
    ours = planned(veilsum, *DEMO, "--noise-multiplier", 1.5, "--max-participations", 10)
    assert ours["epsilon"]["readers"] == pytest.approx(2.530, abs=5e-4)
    assert ours["epsilon"]["server"] == pytest.approx(10.67, abs=5e-3)
    assert (ours["cohort"], ours["expected"], ours["min_survivors"]) == (416, 300, 375)
    central = planned(veilsum, *DEMO, "--noise-multiplier", 1.5, "--mechanism", "gaussian")
    assert central["epsilon"]["server"] is None
    assert central["epsilon"]["readers"] == pytest.approx(ours["epsilon"]["readers"], abs=1e-5)
    assert central["min_survivors"] is None


def test_without_a_cap_a_client_may_be_drawn_every_time(veilsum):
    free = planned(veilsum, *DEMO, "--noise-multiplier", 1.5)
    capped = planned(veilsum, *DEMO, "--noise-multiplier", 1.5, "--max-participations", 50)
    assert free["max_participations"] == 50
    assert free["epsilon"] == capped["epsilon"]


@pytest.mark.parametrize("mechanism", ["gaussian", "discrete_gaussian", "skellam"])
def test_the_noise_found_keeps_readers_epsilon_and_hardly_less_does_not(veilsum, mechanism):
    sizes = (*DEMO, "--mechanism", mechanism)
    found = planned(veilsum, *sizes, "--epsilon-readers", 2.0)
    assert 1.99 < found["epsilon"]["readers"] <= 2.0
    again = planned(veilsum, *sizes, "--noise-multiplier", found["noise_multiplier"])
    assert again["epsilon"] == found["epsilon"]
    less = planned(veilsum, *sizes, "--noise-multiplier", 0.998 * found["noise_multiplier"])
    assert less["epsilon"]["readers"] > 2.0


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
def test_the_stricter_epsilon_decides(veilsum, mechanism):
    sizes = (*DEMO, "--mechanism", mechanism, "--max-participations", 10)
    both = planned(veilsum, *sizes, "--epsilon-readers", 2.0, "--epsilon-server", 5.0)
    assert both["epsilon"]["readers"] <= 2.0
    assert 4.98 < both["epsilon"]["server"] <= 5.0


def test_skellam_costs_more_than_the_discrete_gaussian(veilsum):
    costs = {
        name: planned(veilsum, *DEMO, "--noise-multiplier", 1.5, "--mechanism", name)["epsilon"]
        for name in ("skellam", "discrete_gaussian")
    }
    for observer in ("readers", "server"):
        assert costs["skellam"][observer] > costs["discrete_gaussian"][observer]


def test_a_plan_a_run_and_its_ledger_agree_to_the_last_digit(veilsum, tmp_path):
    sizes = (
        "--population",
        60,
        "--cohort",
        10,
        "--rounds",
        2,
        "--noise-multiplier",
        1.1,
        "--max-participations",
        2,
    )
    run = json.loads(veilsum("simulate", "digits", *sizes, "--output", tmp_path / "run", "--json").out)
    plan = planned(veilsum, *sizes, "--delta", 1e-5, "--parameters", 650)
    for name in ("epsilon", "noise_multiplier", "delta", "population", "cohort", "min_survivors"):
        assert plan[name] == run[name]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), "noise_multiplier, epsilon are left out"),
        (("--noise-multiplier", 1, "--epsilon-readers", 2), "nothing is left out"),
        (("--noise-multiplier", 0), "noise_multiplier is 0"),
        (("--epsilon-readers", -1), "readers_epsilon is -1"),
        (("--noise-multiplier", 1, "--delta", 2), "delta is 2"),
        (("--noise-multiplier", 1, "--rounds", 0), "rounds is 0"),
        (("--noise-multiplier", 1, "--cohort", 4000), "4000"),
        (("--noise-multiplier", 1, "--parameters", 0), "parameters is 0"),
        (("--noise-multiplier", 1, "--clip", 0), "clip is 0"),
        (("--noise-multiplier", 1, "--update-norm", 1), "give clip too"),
        (("--noise-multiplier", "1,2", "--plot", "p.png"), "--plot draws one plan"),
        (("--mechanism", "gaussian", "--epsilon-server", 3), "trusts the server"),
        (("--mechanism", "skellam", "--epsilon-readers", 1e-12), "raise epsilon"),
        (("--noise-multiplier", 1, "--tolerance", 0.6, "--corruption", 0.5), "honest survivors"),
    ],
)
def test_plans_that_make_no_sense_are_one_sentence(veilsum, arguments, names):
    ran = veilsum("budget", "plan", *DEMO, *arguments)
    assert (ran.code, ran.out) == (2, ""), ran
    (line,) = ran.err.splitlines()
    assert names in line


def test_a_large_delta_is_warned_about(veilsum):
    ran = veilsum("budget", "plan", *DEMO, "--delta", 0.01, "--noise-multiplier", 1)
    assert ran.code == 0
    assert "not below 1/population" in " ".join(ran.err.split())


@pytest.mark.parametrize(
    ("left_out", "found"),
    [("population", 2924), ("cohort", 307), ("rounds", 53), ("delta", 6.79e-6)],
)
def test_any_figure_may_be_left_out(veilsum, left_out, found):
    figures = {"population": 3000, "cohort": 300, "rounds": 50, "delta": 1e-5, "epsilon_readers": 2.6}
    figures["noise_multiplier"] = 1.5
    del figures[left_out]
    options = [part for name, value in figures.items() for part in (f"--{name.replace('_', '-')}", value)]
    answer = planned(veilsum, *options)
    assert answer["solved_for"] == left_out
    assert answer[{"cohort": "expected"}.get(left_out, left_out)] == pytest.approx(found, rel=1e-3)
    assert answer["epsilon"]["readers"] <= 2.6


def test_a_list_of_choices_makes_a_table(veilsum):
    options = ("--population", 3000, "--cohort", 300, "--delta", 1e-5, "--rounds", "25,50")
    both = planned(veilsum, *options, "--epsilon-readers", "2,4")["plans"]
    assert [(one["rounds"], one["epsilon"]["readers"] > 2) for one in both] == [
        (25, False), (25, True), (50, False), (50, True)
    ]  # fmt: skip
    shown = veilsum("budget", "plan", *options, "--epsilon-readers", "2,4").out.splitlines()
    assert len(shown) == 5
    assert shown[0].split()[:3] == ["rounds", "noise", "z"]
    assert max(map(len, shown)) <= 80


def test_bytes_are_those_of_a_real_round():
    """One round under masks, nobody dropping out: the client that sends most sends what the plan says."""
    made = plan(Asked(population=60, cohort=10, rounds=2, delta=1e-3, noise_multiplier=1.0, parameters=50))
    result = fedavg.train(
        lambda weights, data: weights,
        [0.0] * 60,
        weights=np.zeros(50, np.float32),
        rounds=1,
        cohort_size=10,
        privacy=dp.Privacy(noise_multiplier=1.0, delta=1e-3, l2_clip_norm=1.0),
    )
    assert made.cost.bytes_up_per_client == result.rounds[0].bytes_up_per_client
    assert made.aggregation.modulus_bits == result.plan.modulus_bits


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
def test_the_noise_on_the_average_is_that_of_a_sum(mechanism):
    """20,000 coordinates of nobody's data: the deviation is within 3% (six standard errors) of the plan's."""
    made = plan(
        Asked(
            population=60, cohort=10, rounds=2, delta=1e-3, noise_multiplier=1.0, parameters=20_000, clip=0.5,
            update_norm=0.25, mechanism=Mechanism(mechanism),
        )
    )  # fmt: skip
    rounds = made.aggregation
    total = rounds.sum_round(
        lambda client: rounds.zeros(),
        clients=range(rounds.cohort),
        number=1,
        model_hash=bytes(32),
        dropouts={},
        entropy=fedavg.RunEntropy.seeded(1),
    ).sums["update"]
    assert np.std(total) / 10 == pytest.approx(made.noise.per_coordinate, rel=0.03)
    assert made.noise.share_of_update == pytest.approx(made.noise.per_coordinate * np.sqrt(20_000) / 0.25)


def test_words_say_what_was_found_and_for_whom(veilsum):
    ran = veilsum("budget", "plan", *DEMO, "--epsilon-readers", 2, "--clip", 0.3, "--max-participations", 10)
    text = " ".join(ran.out.split())
    assert ran.code == 0
    for part in (
        "(solved for)",
        "for the server, over the 10 rounds of a client at its cap",
        "bits a value",
        "CPU, about",
        "times the norm of a typical update",
    ):
        assert part in text
    assert max(map(len, ran.out.splitlines())) <= 80


def test_the_picture_is_drawn(veilsum, tmp_path):
    pytest.importorskip("matplotlib")
    ran = veilsum("budget", "plan", *DEMO, "--noise-multiplier", 1.5, "--plot", tmp_path / "plan.png")
    assert ran.code == 0, ran.err
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    ran = veilsum("budget", "plan", *DEMO, "--noise-multiplier", 1.5, "--plot", tmp_path / "no" / "plan.png")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
