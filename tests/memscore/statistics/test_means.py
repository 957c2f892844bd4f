"""Means with t intervals, over values and over clusters that share an error."""

import math

import numpy as np
import pytest
from scipy.stats import t as student

from memscore.statistics.means import estimate_mean


def test_values_of_their_own_have_students_interval():
    found = estimate_mean([1.0, 2.0, float("nan"), 6.0])
    half = student.ppf(0.975, 2) * np.std([1, 2, 6], ddof=1) / math.sqrt(3)
    assert (found.value, found.lo, found.hi) == pytest.approx((3, 3 - half, 3 + half))
    assert (found.n, found.n_clusters, found.df, found.conditional) == (3, 3, 2, False)
    assert found.se == pytest.approx(half / student.ppf(0.975, 2))


def test_clusters_count_as_one_value_each():
    found = estimate_mean([1.0, 3.0, 5.0, 7.0, float("nan")], ["a", "a", "b", "c", "c"])
    same = estimate_mean([2.0, 5.0, 7.0])
    assert (found.value, found.lo, found.hi) == (same.value, same.lo, same.hi)
    assert (found.n, found.n_clusters) == (4, 3)


def test_one_cluster_has_the_interval_of_its_values_and_says_so():
    found, alone = estimate_mean([1.0, 3.0], ["a", "a"]), estimate_mean([1.0, 3.0])
    assert (found.value, found.lo, found.hi) == (alone.value, alone.lo, alone.hi)
    assert found.conditional
    assert not alone.conditional


@pytest.mark.parametrize(("values", "n"), [([], 0), ([float("nan")], 0), ([2.0], 1)])
def test_fewer_than_two_have_no_interval(values, n):
    found = estimate_mean(values)
    assert found.n == n
    assert math.isnan(found.lo)
    assert math.isnan(found.se)
    assert math.isnan(found.value) == (n == 0)


def test_an_interval_over_clusters_covers_where_one_over_values_does_not():
    rng, covered = np.random.default_rng(0), {"clusters": 0, "values": 0}
    n_clusters, size, repetitions = 3, 3, 2000
    clusters = np.repeat(np.arange(n_clusters), size).tolist()
    for _ in range(repetitions):
        values = (rng.normal(size=(n_clusters, 1)) + 0.5 * rng.normal(size=(n_clusters, size))).ravel()
        for name, found in (("clusters", estimate_mean(values, clusters)), ("values", estimate_mean(values))):
            covered[name] += found.lo <= 0 <= found.hi
    assert covered["clusters"] / repetitions == pytest.approx(0.95, abs=0.015)
    assert covered["values"] / repetitions < 0.75
