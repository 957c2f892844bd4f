"""Factors of difficulty against cases computed by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from unlearn.difficulty.density import compute_bandwidth, compute_log_density
from unlearn.difficulty.forget_shift import compute_forget_shift
from unlearn.difficulty.fp_score import compute_fp_score, compute_kept, compute_printed_fp_score
from unlearn.difficulty.last_layer import compute_boundary_distance, compute_printed_boundary_distance
from unlearn.difficulty.membership import attack_example, find_threshold
from unlearn.difficulty.parameter_shift import compute_layer_shifts, compute_parameter_shifts
from unlearn.difficulty.performance_shift import Answers, compute_performance_shift


def test_kept_counts_what_fell_and_nothing_that_rose():
    assert compute_kept(np.array([0.9, 0.5]), np.array([0.7, 0.8])) == pytest.approx(0.9)
    assert compute_kept(np.array([0.2]), np.array([0.9])) == 1


def test_fp_score_is_a_harmonic_mean_with_one_weight_for_all_instances():
    before, after, kept = np.array([1.0, 1.0]), np.array([0.2, 0.6]), np.array([0.9, 0.3])
    # F = .8 and .4, their mean .6; mean U = .6; lambda = 1
    expected = [2 * 0.9 * 0.8 / 1.7, 2 * 0.3 * 0.4 / 0.7]
    np.testing.assert_allclose(compute_fp_score(before, after, kept), expected)
    # half of the forgetting: lambda = 1/2, which all instances share
    halved = compute_fp_score(before, np.array([0.6, 0.8]), kept)
    np.testing.assert_allclose(halved, [value / 2 for value in expected])


def test_an_instance_that_was_not_forgotten_scores_0_and_one_that_diverged_nothing():
    scores = compute_fp_score(np.array([0.5, 0.5, 0.5]), np.array([0.9, 0.1, np.nan]), np.array([1.0, 1.0, np.nan]))
    assert scores[0] == 0
    assert scores[1] > 0
    assert math.isnan(scores[2])
    assert compute_fp_score(np.array([0.5]), np.array([0.5]), np.array([0.0])) == [0]


def test_the_printed_score_is_half_of_a_rise_and_undefined_for_what_was_forgotten():
    printed = compute_printed_fp_score(
        np.array([0.4, 0.9]), np.array([0.6, 0.1]), np.array([0.8, 0.8]), np.array([0.7, 0.7])
    )
    assert printed[0] == pytest.approx(0.1)
    assert math.isnan(printed[1])


def test_distance_by_the_last_layer_is_to_where_two_logits_are_equal():
    weight, bias = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), np.array([0.0, 0.0, 0.5])
    phi = np.array([[3.0, 1.0], [0.0, 2.0]])
    # of (3, 1): to class 1 |3 - 1| / sqrt 2, to class 2 2.5 + 3 over 2; of (0, 2): 2 and 1.5 / sqrt 2
    np.testing.assert_allclose(compute_boundary_distance(phi, weight, bias), [2 / math.sqrt(2), 1.5 / math.sqrt(2)])
    np.testing.assert_allclose(compute_printed_boundary_distance(phi, weight, bias), [-2.5, 0.0])


def test_classes_of_equal_weights_have_no_boundary():
    assert math.isnan(compute_boundary_distance(np.ones((1, 2)), np.ones((3, 2)), np.array([0.0, 1.0, 2.0]))[0])


def test_density_is_the_log_mean_of_kernels_and_leaves_an_example_out_of_its_own():
    others = np.array([[0.0], [1.0], [3.0]])
    t = others.std(ddof=1) * 3 ** (-1 / 5)
    assert compute_bandwidth(others) == pytest.approx(t)
    kernel = [math.exp(-(d**2) / (2 * t**2)) for d in (1.0, 2.0)]
    [own] = compute_log_density(np.array([[1.0]]), others, np.array([1]))
    assert own == pytest.approx(math.log(sum(kernel) / 2))
    [foreign] = compute_log_density(np.array([[1.0]]), others)
    assert foreign == pytest.approx(math.log((sum(kernel) + 1) / 3))


def test_density_keeps_ranks_far_away():
    near, far = compute_log_density(np.array([[1e3], [1e4]]), np.array([[0.0], [1.0]]))
    assert far < near < -1000


def test_the_attack_takes_the_threshold_with_the_highest_balanced_accuracy():
    members, others = np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.6, 0.75, 0.2])
    # at .7 it finds 3 of 3 and refuses 3 of 4; at .8 2 of 3 and 4 of 4
    assert find_threshold(members, others) == 0.7
    assert [attack_example(p, members, others) for p in (0.69, 0.7)] == [1, 0]


def test_an_attack_that_is_no_better_than_chance_calls_nothing_a_member():
    assert find_threshold(np.array([0.5]), np.array([0.5])) == math.inf


def test_performance_and_forget_shifts():
    before = Answers(log_p=np.log([0.5, 0.8]), correct=np.array([True, True]))
    after = Answers(log_p=np.log([0.25, 0.8]), correct=np.array([False, True]))
    shift = compute_performance_shift(before, after, "test")
    assert shift["test_accuracy"] == -0.5
    assert shift["test_probability"] == pytest.approx(-0.125)
    assert shift["test_loss"] == pytest.approx(math.log(2) / 2)
    found = compute_forget_shift(0.9, 0.3, math.log(0.9), math.log(0.3))
    assert found == {"forget_probability": pytest.approx(0.6), "forget_loss": pytest.approx(math.log(3))}


def test_parameter_shifts_by_layer_and_in_all():
    theta_o, theta_u = nn.Linear(2, 1), nn.Linear(2, 1)
    with torch.no_grad():
        theta_o.weight[:], theta_o.bias[:] = torch.tensor([[0.0, 1.0]]), 0.0
        theta_u.weight[:], theta_u.bias[:] = torch.tensor([[0.5, 1.0]]), -1.0
    assert compute_layer_shifts(theta_o, theta_u) == {"weight": 0.25, "bias": 1.0}
    shifts = compute_parameter_shifts(theta_o, theta_u)
    assert shifts["parameter_shift"] == 1.5
    assert shifts["parameter_shift_layers"] == 0.625
    p, q = (np.exp(values) / np.exp(values).sum() for values in (np.array([0.0, 0.0, 1.0]), np.array([-1.0, 0.5, 1.0])))
    assert shifts["parameter_kl"] == pytest.approx(float((p * np.log(p / q)).sum()))
