"""Pairs expected by chance: against loops, on banks of planted influences, and on banks without any."""

import numpy as np
import pytest

from memscore.estimators.influence import influence, pack_targets
from memscore.estimators.influence_null import STEPS, PairCounts, count_pairs, find_step
from memscore.subsets.designs import Arm, draw_membership


def seeded(count, seed=0):
    return [np.random.default_rng((seed, k)) for k in range(count)]


def count(member, correct, rngs, blocks=None, counted=None, own_target=None):
    blocks = np.full(len(member), -1) if blocks is None else blocks
    return count_pairs(np.packbits(member, axis=0), pack_targets([(correct, counted)]), blocks, rngs, own_target)


def plant(models, n_true, seed, design="iid", common=0.0):
    """60 examples, 80 targets of their own difficulty; n_true pairs of influence .4, half of them negative."""
    rng, shape = np.random.default_rng(seed), (60, 80)
    member = draw_membership(Arm(design=design), range(models), 60, seed=seed)
    truth = np.zeros(shape)
    truth.flat[rng.choice(truth.size, n_true, replace=False)] = rng.choice([1, -1], n_true)
    chance = rng.uniform(0.3, 0.9, 80) + common * rng.normal(size=(models, 1)) + 0.4 * (member - 0.5) @ truth
    return member, rng.random(chance.shape) < np.clip(chance, 0.02, 0.98), truth


def find(member, correct, blocks=None, seed=0):
    """Pairs at or above the chosen least influence."""
    counts = count(member, correct, seeded(10, seed), blocks)
    return influence(member, correct) >= counts.choose_least(0.1, 10**6)


@pytest.mark.parametrize("held_out", [False, True])
def test_counts_are_those_of_loops_over_pairs(held_out):
    member, correct, _ = plant(24, 5, 0)
    correct, own = correct[:, :60], np.arange(60)
    counts = count(member, correct, seeded(1), counted=~member if held_out else None, own_target=own)
    permuted = member[seeded(1)[0].permutation(24)]
    for who, at_least, at_most in (
        (member, counts.found, None),
        (permuted, counts.by_chance, counts.opposite_by_chance),
    ):
        value = influence(who, correct, ~member if held_out else None)
        value = value[~np.eye(60, dtype=bool) & ~np.isnan(value)]
        for least in (-1.0, -0.25, 0.0, 0.1, 0.25, 0.5, 1.0):
            step = find_step(np.array(least))
            assert at_least[step] == (value >= least - 1e-9).sum()
            if at_most is not None:
                assert at_most[step] == (value <= 1e-9 - least).sum()


def test_a_share_is_the_least_of_all_weaker_pairs():
    found = np.zeros(2 * STEPS + 1, np.int64)
    by_chance = np.zeros(2 * STEPS + 1)
    for least, pairs, chance in ((-1.0, 100, 100.0), (0.1, 20, 5.8), (0.2, 10, 0.8), (0.3, 4, 0.8), (0.4, 2, 0.0)):
        found[find_step(np.array(least)) :], by_chance[find_step(np.array(least)) :] = pairs, chance
    found[find_step(np.array(0.5)) :] = 0
    counts = PairCounts(found=found, by_chance=by_chance, opposite_by_chance=by_chance, permutations=5)
    # (5.8 + 1/5) / 20 = .3, (.8 + .2) / 10 = .1, then .25 and (0 + .2) / 2 = .1, neither below .1
    q = counts.compute_q(np.array([-0.5, 0.1, 0.2, 0.3, 0.45, 1.0, np.nan]))
    np.testing.assert_allclose(q, [1, 0.3, 0.1, 0.1, 0.1, 0.1, np.nan])
    assert counts.choose_least(0.1, 100) == 0.2
    assert counts.choose_least(0.1, 5) == 0.3
    assert counts.choose_least(0.5, 100) == 0.1
    assert counts.choose_least(0.09, 100) == np.inf
    assert counts.expect_by_chance(0.25) == (0.8, 0.8)
    assert counts.expect_by_chance(np.inf) == (0, 0)


@pytest.mark.parametrize(("design", "common"), [("iid", 0.0), ("iid", 0.2), ("exact", 0.0)])
def test_of_planted_pairs_a_tenth_of_those_found_is_false_and_most_are_found(design, common):
    """Pairs of negative influence count as false. Banks whose models differ in accuracy are included."""
    false, power = [], []
    for seed in range(16):
        member, correct, truth = plant(192, 40, seed, design, common)
        found = find(member, correct, np.arange(192) // 64 if design == "exact" else None, seed)
        false.append((found & (truth != 1)).sum() / max(found.sum(), 1))
        power.append(found[truth == 1].mean())
    assert np.mean(false) < 0.1 + 4 * np.std(false) / 4
    assert np.mean(power) > 0.8


def test_trap_a_fixed_least_influence_finds_mostly_noise():
    """Bug: .15, the threshold of a bank of 2,000 models, with 192."""
    member, correct, truth = plant(192, 40, 0)
    found = influence(member, correct) >= 0.15
    assert (found & (truth != 1)).sum() > 0.7 * found.sum()


def test_banks_without_influence_give_a_pair_seldom():
    """The largest of 11 exchangeable sets is the bank's own with probability 1/11; of 40 banks 11 is 4 s.e. more."""
    assert sum(find(*plant(48, 0, seed)[:2], seed=seed).any() for seed in range(40)) < 11


def test_twins_are_found_in_both_directions_and_no_example_with_itself():
    """Without the one, its twin decides: train-held-out; each is left out as its own target."""
    rng = np.random.default_rng(0)
    member, correct = rng.random((128, 40)) < 0.5, rng.random((128, 40)) < 0.5
    correct |= member
    correct[:, [3, 7]] = member[:, [3]] | member[:, [7]]
    counts = count(member, correct, seeded(10), counted=~member, own_target=np.arange(40))
    found = influence(member, correct, ~member) >= counts.choose_least(0.05, 100)
    assert sorted(zip(*np.nonzero(found), strict=True)) == [(3, 7), (7, 3)]
    assert counts.found[0] == 40 * 39


def test_memberships_are_permuted_within_blocks():
    """Each block has its own answer and its own example, so nothing else could be permuted into an influence of 1."""
    blocks = np.repeat([0, 1], 8)
    member, correct = (blocks == 0)[:, None], (blocks == 0)[:, None]
    assert count(member, correct, seeded(3), blocks).by_chance[-1] == 1
    assert count(member, correct, seeded(3)).by_chance[-1] < 1


def test_a_bank_of_one_model_compares_nothing():
    counts = count(np.array([[True, False]]), np.array([[True]]), seeded(2))
    assert counts.found.sum() == 0
    assert counts.choose_least(0.1, 10) == np.inf
    assert np.isnan(counts.compute_q(np.array([np.nan]))).all()
