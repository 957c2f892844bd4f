"""Halves of a bank and the bank without information: what an attack repeated on them says of attack success."""

import numpy as np
import pytest

from memscore.pipeline import attack_repeats
from memscore.pipeline.attack_repeats import plan_repeats
from memscore.pipeline.attack_runs import run_attack
from memscore.pipeline.attacks import ATTACKS
from memscore.pipeline.bank_reports import build_arm_summary
from memscore.pipeline.scoring import score_arm
from memscore.score_registry import SCORES
from memscore.statistics.correlation import spearman
from memscore.store.block_reader import Block
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.subsets.designs import Arm, draw_membership
from tests.fixtures.banks import examples, manifest

TRAIN, VALIDATION = 300, 20
NAMES = ("lira", "lira-paper", "rmia", "rmia-offline")


def make_bank(folder, arm, models, own=2.0):
    """Confidences of which each example's own membership decides between 0 and `own` standard deviations."""
    n, rng = TRAIN + VALIDATION, np.random.default_rng(0)
    bank = Store.create(folder, manifest(split_sizes=(TRAIN, VALIDATION, 0)), examples(n))
    bank.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    member = np.zeros((models, n), bool)
    member[:, :TRAIN] = draw_membership(arm, range(models), TRAIN)
    phi = rng.normal(size=member.shape) + np.linspace(0, own, n) * member
    for m in range(models):
        columns = {"row": np.arange(n, dtype=np.int32), "member": member[m], "correct": phi[m] > 0}
        columns |= dict.fromkeys(("logit_confidence", "gap", "top_gap"), phi[m].astype(np.float32))
        bank.write_shard(format_model_name(arm.name, m), arm.name, columns)
    return bank


@pytest.fixture(scope="module")
def leaking(tmp_path_factory):
    return make_bank(tmp_path_factory.mktemp("bank") / "bank", Arm(design="exact", block=8), 32)


@pytest.mark.parametrize("name", NAMES)
def test_a_half_is_a_bank_of_its_own_whose_targets_have_no_other_shadows(leaking, name):
    attack, arm = ATTACKS[name], "exact-k0.500-b8"
    result = run_attack(leaking, arm, list(range(32)), attack)
    first, second = plan_repeats(leaking, arm, list(range(32))).halves[:2]
    assert sorted([*first, *second]) == list(range(32))
    assert all(np.array_equal(np.bincount(half // 8, minlength=4) % 8, np.zeros(4)) for half in (first, second))
    of_halves = [run_attack(leaking, arm, half.tolist(), attack).tables for half in (first, second)]
    for stem in (attack.success, attack.soft_success):
        reliability = result.success[stem].reliability
        assert reliability.halves == attack_repeats.MAX_PAIRS
        with_one_pair = spearman(*(tables[stem]["value"] for tables in of_halves))
        assert reliability.spearman == pytest.approx(with_one_pair, abs=0.15)
        assert reliability.spearman_full > reliability.spearman > 0.3


def test_the_pair_of_halves_is_scored_exactly_as_two_banks(leaking, monkeypatch):
    monkeypatch.setattr(attack_repeats, "MAX_PAIRS", 1)
    for name in NAMES:
        attack, arm = ATTACKS[name], "exact-k0.500-b8"
        result = run_attack(leaking, arm, list(range(32)), attack)
        halves = plan_repeats(leaking, arm, list(range(32))).halves
        values = [run_attack(leaking, arm, half.tolist(), attack).tables[attack.success]["value"] for half in halves]
        assert result.success[attack.success].reliability.spearman == pytest.approx(spearman(*values), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_without_information_the_same_attack_guesses(leaking, name):
    attack = ATTACKS[name]
    success = run_attack(leaking, "exact-k0.500-b8", list(range(32)), attack).success[attack.success]
    assert success.mean > 0.6
    # 300 examples x 32 targets: one standard error is some .006
    assert success.no_information == pytest.approx(0.5, abs=0.025)


@pytest.mark.parametrize("models", [8, 32])
def test_in_a_bank_that_leaks_nothing_the_value_without_information_is_its_own(tmp_path, models):
    """At keep 0.75 it is not one half, and depends on the number of models."""
    arm = Arm(design="exact", keep=0.75, block=8)
    bank, values = make_bank(tmp_path / "bank", arm, models, own=0.0), []
    for name in ("lira", "rmia", "rmia-offline"):  # lira-paper has too few shadows for a variance
        success = run_attack(bank, arm.name, list(range(models)), ATTACKS[name]).success
        for each in success.values():
            # 300 examples: one standard error of the mean is .016 with 8 models, .009 with 32
            assert each.no_information == pytest.approx(each.mean, abs=0.14 / np.sqrt(models))
        if name == "lira":
            values.append(success["attack_success"].no_information)
    assert values[0] > 0.51


def test_permuted_confidences_are_the_same_however_examples_are_cut(leaking):
    repeats = plan_repeats(leaking, "exact-k0.500-b8", list(range(32)))
    rng = np.random.default_rng(0)
    columns = {
        "member": rng.random((32, 60)) < 0.5,
        "phi": rng.normal(size=(32, 60)),
        "phi_q1": rng.normal(size=(32, 60)),
    }
    whole = repeats.take_permuted(Block(rows=slice(100, 160), columns=columns)).columns
    cut = [
        repeats.take_permuted(Block(rows=slice(100 + a, 100 + b), columns={k: v[:, a:b] for k, v in columns.items()}))
        for a, b in ((0, 7), (7, 60))
    ]
    for name in columns:
        np.testing.assert_array_equal(np.concatenate([part.columns[name] for part in cut], axis=1), whole[name])
    copies = repeats.copies
    assert copies > 1
    np.testing.assert_array_equal(whole["member"], np.repeat(columns["member"], copies, axis=1))
    np.testing.assert_array_equal(np.sort(whole["phi"], 0), np.repeat(np.sort(columns["phi"], 0), copies, axis=1))
    # each copy in an order of its own, and one order for all queries of a copy
    orders = np.argsort(np.argsort(whole["phi"][:, 3 * copies : 4 * copies], axis=0), axis=0)
    assert len(np.unique(orders, axis=1).T) == copies
    rows = [int(np.flatnonzero(columns["phi"][:, 3] == value)[0]) for value in whole["phi"][:, 3 * copies]]
    np.testing.assert_array_equal(whole["phi_q1"][:, 3 * copies], columns["phi_q1"][rows, 3])


def test_a_large_bank_permutes_some_of_its_examples(leaking, monkeypatch):
    monkeypatch.setattr(attack_repeats, "PERMUTED_CELLS", 0)
    monkeypatch.setattr(attack_repeats, "MIN_PERMUTED", 100)
    repeats = plan_repeats(leaking, "exact-k0.500-b8", list(range(32)))
    assert repeats.stride == 3
    columns = {"member": np.ones((32, 2), bool), "phi": np.zeros((32, 2))}
    assert repeats.take_permuted(Block(rows=slice(4, 6), columns=columns)) is None
    success = run_attack(leaking, "exact-k0.500-b8", list(range(32)), ATTACKS["lira"]).success
    assert success["attack_success"].no_information == pytest.approx(0.5, abs=0.04)


def test_one_block_has_intervals_and_no_reliability(tmp_path):
    arm = Arm(design="exact", block=16)
    result = run_attack(make_bank(tmp_path / "bank", arm, 16), arm.name, list(range(16)), ATTACKS["lira"])
    assert result.success["soft_attack_success"].reliability is None
    table = result.tables["soft_attack_success"]
    assert (table["lo"] < table["value"]).all()
    assert (table["value"] < table["hi"]).all()


def test_both_are_stored_with_source_reliability_and_the_value_without_information(leaking):
    arm = score_arm(leaking, "exact-k0.500-b8", leaking.find_valid_shards("exact-k0.500-b8"), ("lira", "rmia"))
    for stem in ("attack_success", "soft_attack_success", "attack_success_rmia", "soft_attack_success_rmia"):
        column = f"{stem}_k0.500"
        table = leaking.read_score(column)
        assert table.column_names[2:] == [column, *(f"{column}_{end}" for end in ("se", "lo", "hi", "n"))]
        assert table.schema.field(column).metadata[b"source"].decode() == SCORES[stem].source
        assert leaking.score(column)[1].mean() == pytest.approx(arm.success[stem].mean, abs=1e-6)
        assert arm.reliability[stem].halves > 0
        numbers = build_arm_summary(arm)["attack_success"][stem]
        assert numbers == {"mean": arm.success[stem].mean, "no_information": arm.success[stem].no_information}
    assert "rmia_ratio" not in arm.attacks
    ratio = leaking.score("rmia_ratio_k0.500")[1]
    assert spearman(ratio, leaking.score("rmia_k0.500")[1]) > 0.9
    assert 1 < ratio.max() <= 2
