"""KLOM: two histograms by hand, its null value, and growth with distance."""

import math

import numpy as np
import pytest

from tests.fixtures.populations import make_population
from unlearn.measures.klom import MIN_PROBABILITY, compute_divergences, held_out_klom, klom


def test_two_histograms_by_hand():
    ours, theirs = np.array([[0.0], [0.0], [0.0], [20.0]]), np.array([[0.0], [20.0], [20.0], [20.0]])
    assert compute_divergences(ours, theirs) == pytest.approx([0.75 * math.log(3) + 0.25 * math.log(1 / 3)])


def test_where_oracles_never_are_the_floor_speaks():
    ours, theirs = np.full((5, 1), 10.0), np.zeros((5, 1))
    assert compute_divergences(ours, theirs) == pytest.approx([math.log((1 + MIN_PROBABILITY) / MIN_PROBABILITY)])


def compute_with_lost_maximum(ours, theirs):
    """The bug in the benchmark's code: the largest value of all falls past the last bin."""
    edges = np.linspace(min(ours.min(), theirs.min()), max(ours.max(), theirs.max()), 21)
    counts = [np.bincount(np.digitize(side, edges), minlength=22)[1:21] for side in (ours, theirs)]
    p, q = (count / count.sum() for count in counts)
    q = np.where(p > 0, np.maximum(q, MIN_PROBABILITY), q)
    return float((p[p > 0] * np.log(p[p > 0] / (q / q.sum())[p > 0])).sum())


def test_the_largest_margin_counts():
    ours, theirs = np.array([0.0, 0.0, 20.0, 20.0]), np.array([0.0, 0.0, 0.0, 20.0])
    truth = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert compute_with_lost_maximum(ours, theirs) == pytest.approx(0)
    assert compute_divergences(ours[:, None], theirs[:, None]) == pytest.approx([truth])


def test_equal_models_are_zero_apart_and_equal_distributions_what_chance_gives():
    models = make_population(models=(64, 64))
    assert (compute_divergences(models.unlearned, models.unlearned) == 0).all()
    values = klom(models) | held_out_klom(models)
    for name in ("klom_forget", "klom_retain", "klom"):
        assert values[f"{name}_mean"] == pytest.approx(values[f"{name}_null_mean"], rel=0.15)
        assert values[f"{name}_mean"] > 0.2  # few models are far from nothing
        assert values[f"{name}_p95"] > values[f"{name}_mean"]


def test_it_grows_where_models_differ_and_only_there():
    near, far = (klom(make_population(difference, models=(64, 64))) for difference in (1.0, 3.0))
    assert near["klom_forget_null_mean"] < near["klom_forget_mean"] < far["klom_forget_mean"]
    assert far["klom_retain_mean"] == pytest.approx(far["klom_retain_null_mean"], rel=0.15)
    assert far["klom_n"] == 64.0


def test_blocks_of_points_change_nothing_and_no_point_is_no_number(monkeypatch):
    models = make_population()
    whole = compute_divergences(models.unlearned, models.retrained)
    monkeypatch.setattr("unlearn.measures.klom.BLOCK", 7)
    np.testing.assert_array_equal(compute_divergences(models.unlearned, models.retrained), whole)
    assert np.isnan(klom(make_population(models=(1, 9)))["klom_forget_mean"])
    assert np.isnan(held_out_klom(make_population(held_out=np.arange(0)))["klom_mean"])
