"""U-LiRA: half right where there is nothing to tell, whatever the number of models."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from tests.fixtures.populations import FORGET, make_population
from unlearn.measures.u_lira import u_lira, u_lira_scores


@pytest.mark.parametrize("models", [(3, 3), (5, 5), (16, 16), (8, 20)])
def test_equal_distributions_are_told_apart_half_of_the_time(models):
    results = [u_lira(make_population(models=models, seed=seed)) for seed in range(40)]
    # one false positive of 120 is allowed: above the second highest of 120 others lie 2 of 121
    for column, chance_level in (("u_lira_accuracy", 0.5), ("u_lira_auc", 0.5), ("u_lira_tpr_at_0.01", 2 / 121)):
        samples = np.array([values[column] for values in results])
        margin = 4 * samples.std(ddof=1) / np.sqrt(len(samples))
        assert samples.mean() == pytest.approx(chance_level, abs=margin)
        assert margin < 0.015


def test_a_model_that_knows_the_forget_set_is_recognised_and_less_so_if_nearer():
    near, far = (u_lira(make_population(difference)) for difference in (1.0, 6.0))
    assert 0.6 < near["u_lira_accuracy"] < far["u_lira_accuracy"]
    assert far["u_lira_accuracy"] > 0.98
    assert far["u_lira_auc"] > 0.99
    assert near["u_lira_tpr_at_0.01"] < far["u_lira_tpr_at_0.01"]
    assert far["u_lira_n"] == 16.0


def test_forgetting_too_much_is_recognised_too():
    assert u_lira(make_population(-6.0))["u_lira_accuracy"] > 0.98


def test_a_score_is_the_ratio_of_two_normal_densities_without_the_pair():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(1, 2, (6, 3)), rng.normal(0, 1, (6, 3))
    scores = u_lira_scores(ours, theirs)
    for pair in range(6):
        a, b = (np.delete(side, pair, 0) for side in (ours, theirs))
        densities = [norm(side.mean(0), side.std(0, ddof=1)) for side in (a, b)]
        for kind, target in enumerate((ours[pair], theirs[pair])):
            ratio = densities[0].logpdf(target) - densities[1].logpdf(target)
            np.testing.assert_allclose(scores[kind, pair], ratio, rtol=1e-9)


def fit_gaussians_to_answers(correct_a, correct_b, answer):
    """The bug: no floor under the standard deviations of right-or-wrong."""
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        in_a, in_b = (norm.pdf(answer, side.mean(0), side.std(0)) for side in (correct_a, correct_b))
        return in_a / (in_a + in_b)


def test_bug_19_answers_that_never_vary_are_no_division_by_zero():
    rng = np.random.default_rng(0)
    answers = (rng.random((2, 8, 120)) < 0.9).astype(float)
    answers[:, :, :60] = 1.0  # always right, on both sides
    assert np.isnan(fit_gaussians_to_answers(answers[0], answers[1], answers[0, 0])).any()
    scores = u_lira_scores(*answers)
    assert np.isfinite(scores).all()
    assert (scores[:, :, :60] == 0).all()
    assert np.isfinite(u_lira_scores(np.ones((4, 5)), np.ones((4, 5)))).all()


def test_two_pairs_have_no_number_and_few_examples_no_rate():
    assert np.isnan(u_lira(make_population(models=(2, 9)))["u_lira_accuracy"])
    few = u_lira(replace(make_population(), forget=FORGET[:99]))
    assert np.isnan(few["u_lira_tpr_at_0.01"])
    assert few["u_lira_auc"] == pytest.approx(0.5, abs=0.1)


def test_an_outlying_number_or_a_nan_changes_no_other_example():
    rng = np.random.default_rng(0)
    unlearned, retrained = rng.normal(size=(2, 16, 300)) * rng.gamma(1, size=300)
    before = u_lira_scores(unlearned, retrained)
    for number in (1e6, 1e30, np.nan):
        unlearned[3, 7] = number
        after = u_lira_scores(unlearned, retrained)
        # the floor of a few narrow examples rises a little
        others = np.delete(after - before, 7, axis=2)
        assert (abs(others) < 1e-9).mean() > 0.8
        assert abs(np.tanh(np.delete(after, 7, axis=2)) - np.tanh(np.delete(before, 7, axis=2))).mean() < 0.01
