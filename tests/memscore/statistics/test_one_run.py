"""Bounds from right guesses about one model, against loops, linear programs and mechanisms whose loss is known."""

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.special import expit, logit, ndtr
from scipy.stats import binom

from memscore.statistics.epsilon_bound import clopper_pearson
from memscore.statistics.one_run import fdp_epsilon, fdp_mu, one_run_epsilon, one_run_p_value


def test_the_papers_own_example():
    """Steinke et al., appendix D: 75 of 100 guesses right, 1,000 examples, delta 1e-4, error .05."""
    assert round(one_run_epsilon(1000, 100, 75, 0.95, 1e-4), 3) == 0.673


@pytest.mark.parametrize(("guesses", "correct"), [(12, 0), (12, 7), (12, 12), (1, 1), (40, 25)])
@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.2])
def test_the_p_value_equals_a_loop_over_counts(guesses, correct, delta):
    weights = binom.pmf(np.arange(guesses + 1), guesses, expit(0.7))
    alpha = max((sum(weights[correct - i : correct]) / i for i in range(1, correct + 1)), default=0.0)
    expected = min(1.0, sum(weights[correct:]) + 2 * 50 * delta * alpha)
    assert one_run_p_value(0.7, delta, 50, guesses, correct) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("guesses", "correct"), [(30, 22), (30, 30), (500, 300)])
def test_at_delta_0_it_is_clopper_and_pearsons_bound_of_the_share(guesses, correct):
    lo, _ = clopper_pearson(np.array(correct), np.array(guesses), 0.05)
    assert one_run_epsilon(1000, guesses, correct, 0.95) == pytest.approx(logit(lo), abs=1e-7)


def compute_largest_probability(epsilon, delta, m, guesses, correct):
    """The largest P[V >= correct] that the constraints of the trade-off function allow, by a linear program."""
    counts = np.arange(guesses + 1)
    lines, limits = [], []
    for j in range(1, guesses + 1):
        hit = np.where(counts >= j, counts, 0) / m
        miss = np.where(counts >= j - 1, guesses - counts, 0) / m
        grow = np.exp(epsilon)
        # 1 - f is the smaller of two lines, delta + e^epsilon x and 1 - (1 - delta - x) / e^epsilon
        lines += [hit - grow * miss, hit - miss / grow]
        limits += [delta, 1 - (1 - delta) / grow]
    found = linprog(
        -(counts >= correct).astype(float), A_ub=lines, b_ub=limits, A_eq=[np.ones(guesses + 1)], b_eq=[1],
    )  # fmt: skip
    return -found.fun


@pytest.mark.parametrize(("m", "guesses", "correct"), [(6, 6, 6), (12, 8, 8), (20, 20, 16)])
@pytest.mark.parametrize("delta", [0.0, 0.02])
def test_the_recursion_is_the_worst_distribution_of_a_linear_program(m, guesses, correct, delta):
    epsilon = fdp_epsilon(m, guesses, correct, 0.95, delta)
    assert epsilon > 0.1
    assert compute_largest_probability(epsilon - 1e-4, delta, m, guesses, correct) < 0.05
    assert compute_largest_probability(epsilon + 1e-4, delta, m, guesses, correct) > 0.05


@pytest.mark.parametrize("guesses", [1, 2, 17, 100, 400])
@pytest.mark.parametrize("truth", [0.0, 0.5, 2.0])
def test_guesses_about_independent_answers_exceed_the_truth_seldom_enough(guesses, truth):
    """Exact, since the number of right guesses is binomial: randomized response, and noise added to each answer."""
    counts = np.arange(guesses + 1)
    answers, noise = (binom.pmf(counts, guesses, chance) for chance in (expit(truth), ndtr(truth / 2)))
    for weights, bound in (
        (answers, lambda v: one_run_epsilon(guesses, guesses, v, 0.95)),
        (answers, lambda v: fdp_epsilon(guesses, guesses, v, 0.95)),
        (noise, lambda v: fdp_mu(guesses, guesses, v, 0.95)),
    ):
        # it rises with v, so those above the truth are the last ones
        low, high = 0, guesses + 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if bound(middle) > truth + 1e-6 else (middle + 1, high)
        assert weights[low:].sum() <= 0.05


@pytest.mark.parametrize("bound", [one_run_epsilon, fdp_epsilon, fdp_mu])
def test_it_rises_with_right_guesses_and_with_the_error_allowed(bound):
    values = [bound(200, 100, correct, 0.95) for correct in range(50, 101, 5)]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert 0 < bound(200, 100, 80, 0.99) < bound(200, 100, 80, 0.9)


def test_delta_lowers_it_and_the_trade_off_function_pays_less_for_it():
    steinke, fdp = (
        [bound(600, 300, 220, 0.95, d) for d in (0.0, 1e-3, 1e-2)] for bound in (one_run_epsilon, fdp_epsilon)
    )
    assert steinke[0] > steinke[1] > steinke[2]
    assert fdp[0] > fdp[1] > fdp[2] > steinke[2]
