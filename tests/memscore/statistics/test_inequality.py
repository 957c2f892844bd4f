"""Gini coefficient and Lorenz curve against closed forms."""

import numpy as np
import pytest

from memscore.statistics.inequality import compute_min_shift, gini, gini_interval, lorenz


def naive(x):
    """Half the mean absolute difference of all pairs over the mean."""
    pairs = [abs(a - b) for a in x for b in x]
    return sum(pairs) / len(pairs) / (2 * sum(x) / len(x))


def test_it_equals_the_mean_difference_of_all_pairs():
    x = np.random.default_rng(0).gamma(0.5, 1, 60)
    x[:5] = x[5]
    assert gini(x) == pytest.approx(naive(x), rel=1e-10)


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_one_holder_of_all_has_1_less_1_in_n(n):
    assert gini(np.eye(n)[0] * 7) == pytest.approx((n - 1) / n, rel=1e-10)


def test_equal_shares_have_0():
    assert gini(np.full(50, 0.3)) == pytest.approx(0, abs=1e-12)  # rounding of .3 fifty times


@pytest.mark.parametrize(
    ("quantile", "coefficient"),
    [(lambda u: u, 1 / 3), (lambda u: -np.log1p(-u), 1 / 2), (lambda u: (1 - u) ** -0.25, 1 / 7)],
    ids=["uniform", "exponential", "pareto 4"],
)
def test_distributions_have_their_closed_forms(quantile, coefficient):
    """At mid-point quantiles; Pareto with exponent a has 1 / (2 a - 1)."""
    n = 200_000
    # the mid-point rule misses the last 1/n of the tail: under 1e-4 for these three
    assert gini(quantile((np.arange(n) + 0.5) / n)) == pytest.approx(coefficient, abs=1e-4)


def test_1_to_n_has_its_exact_value():
    assert gini(np.arange(1.0, 8)) == pytest.approx(6 / (3 * 7), rel=1e-10)  # (n - 1) / (3 n)


def test_order_and_scale_do_not_matter():
    x = np.random.default_rng(1).random(99)
    assert gini(np.random.default_rng(2).permutation(x) * 40) == pytest.approx(gini(x), rel=1e-10)


def test_the_coefficient_is_1_less_twice_the_area_under_the_curve():
    x = np.random.default_rng(3).gamma(2, 1, 321)
    examples, held = lorenz(x)
    assert gini(x) == pytest.approx(1 - 2 * np.trapezoid(held, examples), rel=1e-10)
    assert (examples[0], held[0], examples[-1]) == (0, 0, 1)
    assert held[-1] == pytest.approx(1, rel=1e-10)
    assert (np.diff(held, 2) >= -1e-15).all()  # convex, to rounding


def test_the_curve_of_four_by_hand():
    examples, held = lorenz(np.array([3.0, 1.0, 0.0, 4.0]))
    assert examples.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert held.tolist() == [0, 0, 0.125, 0.5, 1]


def test_undefined_examples_are_left_out():
    x = np.array([1.0, np.nan, 2.0, 5.0])
    assert gini(x) == gini(np.array([1.0, 2.0, 5.0]))
    assert len(lorenz(x)[0]) == 4


def test_a_score_below_0_has_its_least_value_taken_off():
    x = np.array([-0.5, 0.0, 1.5])
    assert gini(x) == gini(np.array([0.0, 0.5, 2.0]))
    assert gini(x) == gini(x, shift=0.5)
    assert compute_min_shift(np.array([0.2, 0.7])) == 0


def test_steps_of_unlearning_compare_by_one_shift():
    """The trap: each step shifted by its own least value, the same numbers get another coefficient beside a new one."""
    before, after = np.array([-0.4, 0.1, 0.2, 0.9]), np.array([0.1, 0.2, 0.9])
    shift = compute_min_shift(before, after)
    assert shift == 0.4
    assert gini(after, shift) == gini(after + 0.4)
    assert gini(after, shift) < gini(after)


def test_a_shift_that_leaves_values_below_0_is_refused():
    with pytest.raises(ValueError, match=r"needs values of 0 or more, got -0\.5 after the shift 0\.25"):
        gini(np.array([-0.75, 1.0]), shift=0.25)


def test_nothing_to_share_is_undefined():
    assert np.isnan(gini(np.zeros(4)))
    assert np.isnan(gini(np.array([])))
    assert np.isnan(gini(np.full(3, np.nan)))
    assert np.isnan(lorenz(np.zeros(3))[1]).all()
    assert len(lorenz(np.array([]))[0]) == 0
    assert np.isnan(gini_interval(np.zeros(4), np.random.default_rng(0)).lo)
    assert np.isnan(gini_interval(np.ones(1), np.random.default_rng(0)).hi)


def test_the_interval_covers_the_coefficient_of_the_population():
    """Exponential, n = 200: nominal .95. 200 samples, 4 s.e. = .062; percentiles of skewed draws give up some .01."""
    rng = np.random.default_rng(4)
    ends = [gini_interval(rng.exponential(size=200), rng, draws=200) for _ in range(200)]
    covered = np.mean([end.lo <= 0.5 <= end.hi for end in ends])
    assert covered > 0.95 - 0.062 - 0.01
    # the coefficient of n exponentials has a standard deviation of 1 / sqrt(12 n); 10 % for 200 draws a quantile
    assert np.mean([end.hi - end.lo for end in ends]) == pytest.approx(2 * 1.96 / np.sqrt(12 * 200), rel=0.1)


def test_the_interval_holds_the_value_and_stays_in_0_to_1():
    for x in (np.eye(30)[0], np.full(30, 2.0), np.arange(30.0)):
        interval = gini_interval(x, np.random.default_rng(5), draws=100)
        assert 0 <= interval.lo <= interval.value + 1e-12  # equal shares have 1e-17 instead of 0
        assert interval.value - 1e-12 <= interval.hi <= 1
