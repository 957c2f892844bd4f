"""Correlations, bootstrap intervals over models, and reliability."""

import numpy as np
import pytest
from scipy import stats

from memscore.estimators.memorization import memorization
from memscore.statistics.correlation import pearson, rmse, spearman, top_overlap, undo_attenuation
from memscore.statistics.reliability import draw_random_halves, extrapolate_correlation, spearman_brown
from memscore.subsets.designs import Arm, draw_membership
from tests.fixtures.whole_banks import bootstrap_over_models, split_half


def with_ties(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 6, n) / 5, rng.normal(size=n).round(1)


def bank(models, n, seed, sd=3.0):
    """A true score [N] and what each of M models says of it: truth + independent noise; the mean has error sd^2 / M."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    return truth, truth + sd * rng.normal(size=(models, n))


def naive_spearman(x, y):
    """Ranks by counting."""
    ranks = [[sum(b < a for b in v) + (sum(b == a for b in v) + 1) / 2 for a in v] for v in (x, y)]
    return np.corrcoef(ranks)[0, 1]


def test_spearman_equals_ranks_by_counting():
    x, y = with_ties(40)
    assert spearman(x, y) == pytest.approx(naive_spearman(x.tolist(), y.tolist()), rel=1e-10)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0], rel=1e-10)


def test_pearson_equals_its_definition():
    x, y = with_ties(40, seed=1)
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-10)
    assert pearson(x.astype(np.float32) + 1000, x) == pytest.approx(1, abs=1e-7)  # float32 near 1000: 6e-5 / sqrt(40)


def test_monotone_scores_agree_wholly_in_rank_only():
    x = np.linspace(0, 5, 50)
    assert spearman(x, np.exp(x)) == pytest.approx(1, rel=1e-10)
    assert spearman(x, -np.exp(x)) == pytest.approx(-1, rel=1e-10)
    assert pearson(x, np.exp(x)) < 0.9


def test_examples_without_both_scores_are_left_out():
    x, y = with_ties(30)
    x[3], y[7] = np.nan, np.nan
    both = np.delete(np.arange(30), [3, 7])
    for measure in (spearman, pearson, rmse, top_overlap):
        assert measure(x, y) == measure(x[both], y[both])


@pytest.mark.parametrize("measure", [spearman, pearson])
def test_a_constant_score_and_a_single_example_have_no_correlation(measure):
    assert np.isnan(measure(np.ones(5), np.arange(5.0)))
    assert np.isnan(measure(np.arange(5.0), np.ones(5)))
    assert np.isnan(measure(np.ones(1), np.ones(1)))


def test_scores_of_other_examples_are_refused():
    with pytest.raises(ValueError, match=r"got \(3,\) and \(4,\)"):
        pearson(np.ones(3), np.ones(4))


def test_rmse_of_known_differences():
    assert rmse(np.array([1.0, 2.0, np.nan]), np.array([4.0, -2.0, 0.0])) == pytest.approx(np.sqrt(12.5), rel=1e-10)
    assert np.isnan(rmse(np.full(2, np.nan), np.ones(2)))


def test_tops_without_ties_overlap_by_counting():
    x, y = np.random.default_rng(2).normal(size=(2, 60))
    for share in (0.01, 0.1, 0.5, 1.0):
        k = max(round(share * 60), 1)
        tops = [set(sorted(range(60), key=lambda i: -v[i])[:k]) for v in (x, y)]
        assert top_overlap(x, y, share) == pytest.approx(len(tops[0] & tops[1]) / k, rel=1e-10)
    assert top_overlap(x, x, 0.1) == 1
    assert top_overlap(x, -x, 0.1) == 0


def test_ties_overlap_as_if_broken_at_random():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 4, (2, 40)).astype(float)
    drawn = []
    for _ in range(4000):
        tops = [set(np.lexsort((rng.random(40), -v))[:10]) for v in (x, y)]
        drawn.append(len(tops[0] & tops[1]) / 10)
    assert abs(top_overlap(x, y, 0.25) - np.mean(drawn)) < 4 * np.std(drawn) / np.sqrt(4000)


def test_ties_are_not_broken_by_position():
    """The trap: a stable sort puts the same examples into both tops, so scores that say nothing agree wholly."""
    x, y = np.zeros(100), np.zeros(100)
    by_position = set(np.argsort(-x, kind="stable")[:10]) & set(np.argsort(-y, kind="stable")[:10])
    assert len(by_position) == 10
    assert top_overlap(x, y, 0.1) == pytest.approx(0.1, rel=1e-10)


def test_a_top_of_nobody_is_refused():
    with pytest.raises(ValueError, match="above 0 and at most 1, got 0"):
        top_overlap(np.ones(3), np.ones(3), 0)
    assert np.isnan(top_overlap(np.full(3, np.nan), np.ones(3)))


def test_the_interval_covers_what_other_models_would_give():
    """40 models, 150 examples: in 200 banks the interval holds the mean correlation over banks, 4 s.e. of .95.

    The trap beside it: plain percentiles of the resampled correlations, which are lower since a resample is noisier.
    """
    rng = np.random.default_rng(4)
    truth = rng.normal(size=150)
    proxy = truth + 0.3 * rng.normal(size=150)
    values, ends, plain = [], [], []
    for _ in range(200):
        models = truth + 6 * rng.normal(size=(40, 150))

        def measure(models_drawn, models=models):
            return pearson(models[models_drawn].mean(0), proxy)

        interval = bootstrap_over_models(measure, np.arange(40), rng, draws=100)
        values.append(interval.value)
        ends.append((interval.lo, interval.hi))
        drawn = [measure(rng.integers(0, 40, 40)) for _ in range(100)]
        plain.append(np.quantile(drawn, [0.025, 0.975]))

    def covered(intervals):
        return np.mean([lo <= np.mean(values) <= hi for lo, hi in intervals])

    assert abs(covered(ends) - 0.95) < 0.062
    assert covered(plain) < 0.5


@pytest.mark.parametrize(("mean", "factor"), [(0.3, 4 / 3), (0.5, 1), (0.1, np.sqrt(2)), (-0.2, 1)])
def test_draws_vary_as_the_correlation_when_their_mean_is_restored(mean, factor):
    """The factor is that of the means, within what doubled noise can do."""
    draws = np.array([mean - 0.1, np.nan, mean + 0.1])
    np.testing.assert_allclose(undo_attenuation(0.4, draws), factor * draws, rtol=1e-12)
    np.testing.assert_allclose(undo_attenuation(-0.4, -draws), -factor * draws, rtol=1e-12)
    assert np.isnan(undo_attenuation(0.4, np.full(3, np.nan))).all()
    assert undo_attenuation(np.nan, np.array([0.1])).tolist() == [0.1]
    assert not len(undo_attenuation(0.4, np.array([])))


def test_whole_blocks_are_drawn_together():
    """Models of one block say the same, so only blocks are news: drawn apart, the interval is too narrow."""
    truth, models = bank(12, 400, seed=5)
    copies = np.repeat(models, 8, axis=0)

    def width(blocks):
        interval = bootstrap_over_models(
            lambda models_drawn: pearson(copies[models_drawn].mean(0), truth), blocks, np.random.default_rng(6)
        )
        return interval.hi - interval.lo

    assert width(np.arange(96)) < 0.5 * width(np.repeat(np.arange(12), 8))


def test_the_models_drawn_are_whole_blocks_with_repeats():
    blocks, samples = np.array([0, 0, 1, 1, 1, 4]), []

    def measure(models_drawn):
        samples.append(models_drawn)
        return 0.5

    bootstrap_over_models(measure, blocks, np.random.default_rng(0), draws=20)
    assert samples[0].tolist() == [0, 1, 2, 3, 4, 5]
    for models_drawn in samples[1:]:
        times = np.bincount(models_drawn, minlength=6)
        assert times[0] == times[1]
        assert times[2] == times[3] == times[4]
        assert times[0] + times[2] + times[5] == 3
    assert any(np.bincount(models_drawn).max() > 1 for models_drawn in samples[1:])


def test_no_interval_from_two_blocks_nor_for_a_perfect_correlation():
    truth, models = bank(4, 50, seed=7)

    def measure(models_drawn):
        return pearson(models[models_drawn].mean(0), truth)

    two = bootstrap_over_models(measure, np.array([0, 0, 1, 1]), np.random.default_rng(0))
    assert two.value == measure(np.arange(4))
    assert np.isnan(two.lo)
    assert np.isnan(two.hi)
    assert np.isnan(bootstrap_over_models(lambda _: 1.0, np.arange(9), np.random.default_rng(0)).lo)
    assert np.isnan(bootstrap_over_models(lambda _: np.nan, np.arange(9), np.random.default_rng(0)).lo)


def test_split_half_finds_the_reliability_of_a_mean():
    """Truth of variance 1, a mean of 32 with error 9 / 32: reliability 1 / (1 + 9 / 32), halves 1 / (1 + 9 / 16)."""
    truth, models = bank(32, 4000, seed=8)
    result = split_half(lambda models_drawn: models[models_drawn].mean(0), np.arange(32), np.random.default_rng(9))
    se = 4 / np.sqrt(4000)  # 4 s.e. of a correlation of 4,000 examples, at most
    assert abs(result.pearson - 1 / (1 + 9 / 16)) < se
    assert abs(result.pearson_full - 1 / (1 + 9 / 32)) < se
    assert abs(result.rmse - np.sqrt(9 / 32)) < 4 * np.sqrt(9 / 32) / np.sqrt(2 * 4000)
    assert abs(result.rmse - rmse(models.mean(0), truth)) < 4 * np.sqrt(9 / 32) / np.sqrt(4000)
    # of normal scores Spearman's is 6 / pi arcsin(r / 2)
    assert abs(result.spearman - 6 / np.pi * np.arcsin(1 / (1 + 9 / 16) / 2)) < se
    assert result.spearman_full == spearman_brown(result.spearman)
    assert result.halves == 10


def test_halves_are_disjoint_whole_blocks_of_one_number():
    samples = []

    def estimate(models_drawn):
        samples.append(models_drawn)
        return np.arange(5.0)

    split_half(estimate, np.repeat(np.arange(5), 4), np.random.default_rng(0), halves=6)
    pairs = list(zip(samples[::2], samples[1::2], strict=True))
    assert len(pairs) == 6
    for first, other in pairs:
        assert len(first) == len(other) == 8
        assert not set(first) & set(other)
        assert all((np.bincount(half // 4, minlength=5) % 4 == 0).all() for half in (first, other))
        assert first.tolist() == sorted(first)
    assert len({tuple(first) for first, _ in pairs}) > 1


def test_halves_that_cut_a_block_share_their_noise():
    """The trap: halves made of the one and the other model of complementary pairs.

    An example is right when its neighbour is in, so memorization is 0 and its estimate the chance correlation of two
    memberships. Of two complements that is the same: cut pairs agree wholly on noise. Whole pairs do not.
    """
    member = draw_membership(Arm(design="exact", block=2), range(64), 4000)
    correct = np.roll(member, 1, axis=1)
    first, other = (memorization(correct[part], member[part]) for part in (slice(0, 64, 2), slice(1, 64, 2)))
    assert pearson(first, other) == pytest.approx(1, rel=1e-10)
    whole = split_half(
        lambda models: memorization(correct[models], member[models]), np.arange(64) // 2, np.random.default_rng(11)
    )
    assert abs(whole.pearson) < 4 / np.sqrt(4000)  # 4 s.e. of one correlation of 4,000


def test_one_block_has_no_halves():
    result = split_half(lambda models_drawn: models_drawn * 1.0, np.zeros(64, int), np.random.default_rng(0))
    assert np.isnan([
        result.spearman,
        result.spearman_full,
        result.pearson,
        result.pearson_full,
        result.rmse,
        result.top,
    ]).all()


def test_stepping_up_is_undefined_below_0():
    assert spearman_brown(0.0) == 0
    assert spearman_brown(1.0) == 1
    assert np.isnan(spearman_brown(-0.1))
    assert np.isnan(spearman_brown(float("nan")))


def measure_from_halves(models, proxy, rng):
    """Correlations of a proxy with the mean of all models, and the mean correlation with that of their halves."""
    halves = [half for pair in draw_random_halves(np.arange(len(models)), rng) for half in pair]
    return pearson(models.mean(0), proxy), np.mean([pearson(models[half].mean(0), proxy) for half in halves])


def test_extrapolating_to_more_models_gives_back_the_correlation_with_the_truth():
    """Models of noise 3: their mean correlates less with a proxy than the truth does; extrapolated, as much."""
    truth, models = bank(16, 20_000, seed=12)
    proxy = truth + 0.75 * np.random.default_rng(13).normal(size=20_000)
    raw, halves = measure_from_halves(models, proxy, np.random.default_rng(14))
    true = 1 / np.sqrt(1 + 0.75**2)
    assert true - raw > 0.1
    # 4 s.e. of a correlation of 20,000, and as much again for the halves'
    assert abs(extrapolate_correlation(raw, halves) - true) < 8 / np.sqrt(20_000)
    assert extrapolate_correlation(-raw, -halves) == -extrapolate_correlation(raw, halves)


def test_spearmans_correction_of_counts_overshoots_and_the_extrapolation_less():
    """The trap: r / sqrt(reliability). 16 models a side, and examples most of which are always right."""
    rng, measured = np.random.default_rng(15), []
    p_in, p_out = 1 / (1 + np.exp(-rng.normal([[2.5], [1.5]], [[2.0], [2.5]], (2, 3000))))
    p_in = np.maximum(p_in, p_out)
    proxy = p_in - p_out + 0.4 * rng.normal(size=3000)
    truth = spearman(p_in - p_out, proxy)
    for _ in range(10):
        right_in, right_out = (rng.random((16, 3000)) < p for p in (p_in, p_out))
        pairs = [
            [right_in[half].mean(0) - right_out[half].mean(0) for half in pair]
            for pair in draw_random_halves(np.arange(16), rng)
        ]
        raw = spearman(right_in.mean(0) - right_out.mean(0), proxy)
        halves = np.mean([spearman(score, proxy) for pair in pairs for score in pair])
        reliability = spearman_brown(np.mean([spearman(*pair) for pair in pairs]))
        measured.append((raw, extrapolate_correlation(raw, halves), raw / np.sqrt(reliability)))
    raw, extrapolated, corrected = np.mean(measured, axis=0)
    assert raw < truth - 0.02
    assert corrected > truth + 0.01
    assert abs(extrapolated - truth) < 0.8 * (corrected - truth)


def test_an_extrapolation_is_cut_at_1_and_undefined_without_a_limit():
    assert extrapolate_correlation(0.99, 0.8) == 1
    for r, halves in ((0.3, 0.2), (0.3, -0.1), (0.0, 0.0), (np.nan, 0.2), (0.3, np.nan)):
        assert np.isnan(extrapolate_correlation(r, halves))
