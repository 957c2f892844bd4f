"""Subset designs: shares, independence, blocks and seeds; and the clustering function."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memscore.estimators.memorization import memorization
from memscore.subsets.clustering import cluster_images
from memscore.subsets.designs import (
    Arm,
    compute_min_subset_size,
    count_whole_blocks,
    draw_membership,
    get_max_cluster_size,
    round_up_to_blocks,
)
from tests.oracles import nearest_neighbour_correct, nearest_neighbour_memorization_bernoulli

ARMS = [
    Arm(design="iid", keep=0.7),
    Arm(design="iid", keep=0.5),
    Arm(design="exact", keep=0.5, block=2),
    Arm(design="exact", keep=0.75, block=8),
    Arm(keep=0.5, block=8),
    Arm(keep=0.5),
    Arm(keep=0.75, block=16),
]
ORTHOGONAL = [Arm(keep=0.5, block=8), Arm(keep=0.5), Arm(keep=0.75, block=16), Arm(keep=0.75)]
BALANCED = [arm for arm in ARMS if arm.design != "iid"]


def name(arm):
    return arm.name


def groups_of(n, size):
    """Clusters of neighbours in data-set order, the last one smaller."""
    return np.arange(n) // size


def test_an_arm_is_named_by_design_keep_and_unusual_block():
    assert [name(arm) for arm in ARMS[2:6]] == [
        "exact-k0.500-b2",
        "exact-k0.750-b8",
        "orthogonal-k0.500-b8",
        "orthogonal-k0.500",
    ]
    assert Arm(block=64).name == Arm().name
    assert Arm(design="exact") == Arm(design="exact", block=64)


@pytest.mark.parametrize("arm", ARMS, ids=name)
@settings(max_examples=15, derandomize=True, deadline=None)
@given(models=st.lists(st.integers(0, 200), min_size=1, max_size=6), cut=st.integers(0, 6), seed=st.integers(0, 3))
def test_a_model_has_the_same_members_whichever_models_are_requested_with_it(arm, models, cut, seed):
    clusters = groups_of(50, 5)
    whole = draw_membership(arm, models, 50, clusters, seed=seed)
    parts = [draw_membership(arm, part, 50, clusters, seed=seed) for part in (models[:cut], models[cut:])]
    alone = [draw_membership(arm, [m], 50, clusters, seed=seed)[0] for m in models]
    assert (whole == np.concatenate(parts)).all()
    assert (whole == np.array(alone)).all()


@pytest.mark.parametrize("arm", ARMS, ids=name)
def test_seeds_blocks_and_arms_have_streams_of_their_own(arm):
    clusters, n = groups_of(2000, 5), 2000
    first = draw_membership(arm, [0], n, clusters, seed=0)[0]
    others = [
        draw_membership(arm, [0], n, clusters, seed=1)[0],
        draw_membership(arm, [arm.models_per_block], n, clusters)[0],
        draw_membership(Arm(design="exact", keep=arm.keep, block=40), [0], n)[0],
    ]
    for other in others:  # agreement of independent sets, within 4 s.e.
        agree = arm.keep**2 + (1 - arm.keep) ** 2
        assert abs((first == other).mean() - agree) < 4 * np.sqrt(agree * (1 - agree) / n)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.7])
def test_every_iid_model_has_exactly_its_share(keep):
    assert (draw_membership(Arm(design="iid", keep=keep), range(20), 333).sum(1) == round(keep * 333)).all()


@pytest.mark.parametrize("arm", BALANCED, ids=name)
def test_every_example_is_in_exactly_its_share_of_each_block(arm):
    block = arm.models_per_block
    member = draw_membership(arm, range(3 * block), 997, groups_of(997, 5))
    assert (member.reshape(3, block, -1).sum(1) == arm.keep * block).all()


@pytest.mark.parametrize("arm", ORTHOGONAL, ids=name)
def test_two_examples_of_a_full_cluster_are_included_independently_exactly(arm):
    block, size = arm.models_per_block, get_max_cluster_size(arm)
    member = draw_membership(arm, range(block), 4 * size, groups_of(4 * size, size)).astype(int)
    for start in range(0, 4 * size, size):
        x = member[:, start : start + size]
        both = x.T @ x
        other_pairs = both[~np.eye(size, dtype=bool)]
        assert (other_pairs == arm.keep**2 * block).all()  # and so all four cells, by the balance of each column


@pytest.mark.parametrize("arm", ORTHOGONAL, ids=name)
def test_examples_of_different_clusters_are_included_independently_on_average(arm):
    """Over many blocks the share of models that hold both is keep^2 within 4 s.e., for each of 190 pairs at once."""
    member = draw_membership(arm, range(60 * arm.models_per_block), 20, np.arange(20)).astype(float)
    both = (member.T @ member / len(member))[np.triu_indices(20, 1)]
    error = np.sqrt(arm.keep**2 * (1 - arm.keep**2) / len(member))  # larger than the true one: margins are fixed
    assert abs(both - arm.keep**2).max() < 4 * error


@pytest.mark.parametrize("arm", ORTHOGONAL, ids=name)
def test_one_orthogonal_model_alone_is_a_bernoulli_sample(arm):
    """Sizes of the first model over seeds: mean n keep and variance n keep (1 - keep), within 4 s.e."""
    n, seeds = 105, 600
    sizes = np.array([draw_membership(arm, [0], n, groups_of(n, 5), seed=s).sum() for s in range(seeds)])
    variance = n * arm.keep * (1 - arm.keep)
    assert abs(sizes.mean() - n * arm.keep) < 4 * np.sqrt(variance / seeds)
    assert abs(sizes.var(ddof=1) / variance - 1) < 4 * np.sqrt(2 / seeds)


@pytest.mark.parametrize(("keep", "block"), [(0.5, 16), (0.75, 16)])
def test_orthogonal_subsets_do_not_bias_memorization(keep, block):
    """1-nearest-neighbour, clusters of true neighbours: the mean over 500 blocks is the count under plain coins."""
    rng = np.random.default_rng(3)
    points = np.repeat(rng.normal(size=(8, 2)), 5, axis=0) + rng.normal(size=(40, 2)) / 20
    labels = rng.integers(0, 2, 40)
    arm = Arm(keep=keep, block=block)
    member = draw_membership(arm, range(500 * block), 40, groups_of(40, 5))
    correct = nearest_neighbour_correct(points, labels, member)
    each = np.array([memorization(correct[i : i + block], member[i : i + block]) for i in range(0, len(member), block)])
    error = each.mean(0) - nearest_neighbour_memorization_bernoulli(points, labels, keep)
    # 4 s.e. of the blocks' own spread; .002 where all 500 agree but a case rarer than 1 in 500 blocks exists
    assert (abs(error) < 4 * each.std(0, ddof=1) / np.sqrt(500) + 0.002).all()


def test_exact_chunks_do_not_depend_on_what_follows():
    arm = Arm(design="exact")
    assert (draw_membership(arm, range(4), 4096) == draw_membership(arm, range(4), 9000)[:, :4096]).all()


@pytest.mark.parametrize("arm", [Arm(design="exact", block=1024), Arm(block=1024)], ids=name)
def test_one_model_of_a_block_does_not_cost_the_whole_block_in_memory(arm):
    n = 50_000
    clusters = groups_of(n, 50)
    draw_membership(arm, [0], 100, clusters[:100])  # the cached array is not counted
    tracemalloc.start()
    draw_membership(arm, [5], n, clusters)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1024 * n / 10  # the whole block is 1024 n bytes


@pytest.mark.parametrize("arm", ARMS, ids=name)
def test_the_smallest_subset_is_the_smallest_row_sum(arm):
    clusters, models = groups_of(60, 5), [0, 3, 77, 130]
    rows = draw_membership(arm, models, 60, clusters, seed=4)
    assert compute_min_subset_size(arm, models, 60, clusters, 4) == rows.sum(1).min()


def test_no_models_have_no_rows():
    assert draw_membership(Arm(design="iid"), [], 10).shape == (0, 10)


@pytest.mark.parametrize(
    ("arm", "n_models", "blocks"), [(Arm(), 192, 3), (Arm(design="iid"), 7, 7), (Arm(design="exact", block=2), 8, 4)]
)
def test_whole_blocks_are_counted(arm, n_models, blocks):
    assert count_whole_blocks(n_models, arm) == blocks


@pytest.mark.parametrize(
    ("arm", "n_models", "near"), [(Arm(), 100, "64 or 128"), (Arm(), 0, "64 or 128"), (Arm(design="iid"), 0, "1 or 2")]
)
def test_a_broken_block_is_refused_naming_the_two_nearest_counts(arm, n_models, near):
    with pytest.raises(ValueError, match=f"got {n_models}; use {near}"):
        count_whole_blocks(n_models, arm)


@pytest.mark.parametrize(
    ("arm", "n_models", "rounded"),
    [(Arm(), 250, 256), (Arm(), 256, 256), (Arm(), 4000, 4032), (Arm(design="exact", block=10), 25, 30)],
)
def test_a_count_near_whole_blocks_is_rounded_up(arm, n_models, rounded):
    assert round_up_to_blocks(n_models, arm) == rounded


def test_a_count_is_refused_where_more_than_a_fifth_would_be_added():
    arm = Arm(design="exact", block=10)
    with pytest.raises(ValueError, match="got 24; use 20 or 30"):
        round_up_to_blocks(24, arm)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"design": "exakt"}, "did you mean 'exact'"),
        ({"keep": 1.0}, "between 0 and 1, got 1.0"),
        ({"keep": float("nan")}, "between 0 and 1, got nan"),
        ({"design": "iid", "block": 4}, "one by one, got blocks of 4"),
        ({"design": "exact", "block": 10, "keep": 0.55}, "got 0.55 \\* 10; the nearest valid keep is 0.5 or 0.6"),
        ({"design": "exact", "block": 10, "keep": 0.99}, "the nearest valid keep is 0.9"),
        ({"design": "exact", "block": 1}, "2 models or more, got 1"),
        ({"keep": 0.7}, "keep 0.5 or 0.75, got 0.7"),
        ({"block": 48}, "power of 2, got 48"),
        ({"block": 0}, "power of 2, got 0"),
        ({"keep": 0.75, "block": 32}, "power of 4, got 32"),
    ],
)
def test_an_impossible_arm_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Arm(**fields)


@pytest.mark.parametrize(
    ("arm", "models", "clusters", "message"),
    [
        (Arm(), [0], None, "needs clusters"),
        (Arm(), [0], np.zeros(99, int), "100 numbers >= 0"),
        (Arm(), [0], np.full(100, -1), "100 numbers >= 0"),
        (Arm(), [0], np.zeros(100, int), "cluster 0 has 100 examples, but orthogonal-k0.500 has 63 columns"),
        (Arm(design="exact"), [-1], None, "0 or more, got -1"),
        (Arm(design="iid", keep=0.001), [0], None, "0 of 100 examples"),
    ],
)
def test_impossible_members_are_refused(arm, models, clusters, message):
    with pytest.raises(ValueError, match=message):
        draw_membership(arm, models, 100, clusters)


def test_only_orthogonal_arms_have_a_largest_cluster():
    assert [get_max_cluster_size(arm) for arm in ORTHOGONAL] == [7, 63, 5, 21]
    with pytest.raises(ValueError, match="has no clusters"):
        get_max_cluster_size(Arm(design="exact"))


@settings(max_examples=25, derandomize=True, deadline=None)
@given(n=st.integers(1, 120), cap=st.integers(1, 40), values=st.integers(1, 256), seed=st.integers(0, 5))
def test_clusters_are_within_the_cap_numbered_by_first_member_and_repeatable(n, cap, values, seed):
    images = np.random.default_rng(seed).integers(0, values, (n, 1, 3, 3)).astype(np.uint8)
    result = cluster_images(images, cap, seed)
    assert result.dtype == np.int32
    assert np.bincount(result).max() <= cap
    assert (np.unique(result, return_index=True)[1] == np.sort(np.unique(result, return_index=True)[1])).all()
    assert (np.unique(result) == np.arange(result.max() + 1)).all()
    assert (result == cluster_images(images, cap, seed)).all()


def test_well_separated_groups_are_found_however_they_are_mixed():
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(8), 15))
    centres = rng.integers(0, 2, (8, 100)) * 200 + 20
    images = (centres[group] + rng.integers(0, 20, (120, 100))).astype(np.uint8).reshape(120, 1, 10, 10)
    result = cluster_images(images, 15, 0)
    pairs = {(int(g), int(f)) for g, f in zip(group, result, strict=True)}
    assert len(pairs) == 8
    assert result.max() == 7


def test_equal_images_are_cut_into_equal_parts():
    sizes = np.bincount(cluster_images(np.full((1000, 1, 4, 4), 9, np.uint8), 63, 0))
    assert sizes.sum() == 1000
    assert sizes.min() >= 62 // 2
    assert sizes.max() <= 63


def test_outliers_do_not_make_the_cutting_slow():
    """One distance dwarfs the next: peeling points off one by one would take n / 2 cuts of n points each."""
    images = np.zeros((20_000, 1, 1, 4), np.uint8)
    images[:40, 0, 0, 0] = np.arange(40) * 6
    assert np.bincount(cluster_images(images, 63, 0)).mean() > 20


def test_clusters_of_no_examples_are_refused():
    with pytest.raises(ValueError, match="1 example or more, got 0"):
        cluster_images(np.zeros((3, 1, 2, 2), np.uint8), 0, 0)
