"""Attacks by name: each against its estimator on the whole bank, what they refuse, and what a new run renews."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from memscore.estimators.lira_variants import LIRA_VARIANTS, lira_variant_scores
from memscore.estimators.rmia import RmiaConfig, rmia, rmia_population, rmia_ratio
from memscore.pipeline import attack_repeats
from memscore.pipeline.attack_decisions import name_decision_score
from memscore.pipeline.attack_runs import find_stored_attacks, fit_attack, run_attack
from memscore.pipeline.attacks import ATTACKS, build_attack_contexts, check_attacks
from memscore.pipeline.scoring import score_arm
from memscore.score_registry import SCORES
from memscore.statistics.roc import auc
from memscore.store.block_reader import MAX_CELLS
from memscore.store.shards import SHARD_COLUMNS, format_model_name
from memscore.store.store import Store
from memscore.subsets.designs import Arm, draw_membership
from tests.fixtures.banks import examples, manifest
from tests.fixtures.whole_banks import fit_shadow_prior, fit_shared_std, lira_offline, lira_online

TRAIN, VALIDATION, TEST = 300, 20, 5
N, M = TRAIN + VALIDATION + TEST, 16
ARM = Arm(design="exact", keep=0.5, block=16)


@pytest.fixture(scope="module")
def signals():
    """Member, and three statistics of it [M, N]; members stand out by 1.5 standard deviations."""
    rng = np.random.default_rng(0)
    member = np.zeros((M, N), bool)
    member[:, :TRAIN] = draw_membership(ARM, range(M), TRAIN)
    numbers = {
        name: (rng.normal(size=(M, N)) + 1.5 * member).astype(np.float32)
        for name in ("logit_confidence", "gap", "top_gap")
    }
    return {"member": member, **numbers}


@pytest.fixture
def store(tmp_path, signals):
    bank = Store.create(tmp_path / "bank", manifest(split_sizes=(TRAIN, VALIDATION, TEST)), examples(N))
    bank.add_arm({"name": ARM.name, "design": "exact", "keep": 0.5, "block": 16, "clusters": None})
    for m in range(M):
        columns = {
            "row": np.arange(N, dtype=np.int32),
            "member": signals["member"][m],
            "correct": signals["gap"][m] > 0,
        }
        columns |= {name: signals[name][m] for name in ("logit_confidence", "gap", "top_gap")}
        bank.write_shard(format_model_name(ARM.name, m), ARM.name, columns)
    return bank


def scores_by_hand(name, signals):
    """What an attack's estimators say of the whole bank at once."""
    member, phi = signals["member"][:, :TRAIN], signals[ATTACKS[name].signal][:, :TRAIN]
    if name.startswith("rmia"):
        config = RmiaConfig(kind="offline" if name.endswith("offline") else "online")
        population = rmia_population(signals["logit_confidence"][:, TRAIN : TRAIN + VALIDATION], config)
        return [rmia(phi, member, population, 0.5, config), rmia_ratio(phi, member, 0.5, config)]
    form = LIRA_VARIANTS.get(name.removeprefix("lira-"))
    if form:
        return lira_variant_scores(phi, member, form, fit_shared_std([(phi, member)], 0.5, form))
    pool = fit_shadow_prior([(phi, member)])
    return [lira_online(phi, member, pool), lira_offline(phi, member, pool)]


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_its_estimator_over_the_whole_bank(store, signals, name):
    attack = ATTACKS[name]
    tables, curves, success, _ = run_attack(store, ARM.name, list(range(M)), attack)
    member = signals["member"][:, :TRAIN]
    by_hand = dict(zip(attack.scores, scores_by_hand(name, signals), strict=True))
    agreement = name_decision_score(attack.scores[0])
    assert set(tables) == {*by_hand, attack.success, attack.soft_success, agreement}
    for score, expected in by_hand.items():
        inside = np.where(member, expected, 0).sum(0) / member.sum(0)
        np.testing.assert_allclose(tables[score]["value"], inside, rtol=1e-9)
    for score, ordering in attack.curves.items():
        areas = [auc(by_hand[ordering][m], member[m]) for m in range(M)]
        np.testing.assert_allclose(curves[score].measures["auc"].value, np.mean(areas), rtol=1e-6)
        # the released offline score is two-sided: far below its out-models counts as a member too
        assert curves[score].measures["auc"].value > (0.55 if "released" in score or "advanced" in score else 0.75)
    threshold = 1 if attack.is_ratio else 0
    hits = ((by_hand[attack.evidence] > threshold) == member).mean(0)
    np.testing.assert_allclose(tables[attack.success]["value"], hits)
    assert success[attack.success].mean == pytest.approx(hits.mean())
    odds = by_hand[attack.evidence] if attack.is_ratio else np.exp(by_hand[attack.evidence])
    posterior = np.where(member, odds / (1 + odds), 1 / (1 + odds)).mean(0)
    np.testing.assert_allclose(tables[attack.soft_success]["value"], posterior)


@pytest.mark.parametrize(
    "name", [name for name, attack in ATTACKS.items() if attack.accumulate and not attack.population]
)
def test_the_first_pass_holds_as_little_of_a_block_with_many_pieces(tmp_path, name, monkeypatch):
    """With a part for each piece, ImageNet's came to 1.2 GB. LiRA's histograms of variances are 24 KiB of 16 models."""
    monkeypatch.setattr(attack_repeats, "MAX_PAIRS", 1)
    n, held = 3 * MAX_CELLS // M, []
    bank = Store.create(tmp_path / "bank", manifest(split_sizes=(n, 0, 1)), examples(n + 1))
    bank.add_arm({"name": ARM.name, "design": "exact", "keep": 0.5, "block": 16, "clusters": None})
    rng = np.random.default_rng(0)
    for m in range(M):
        member, phi = rng.random(n + 1) < 0.5, rng.normal(size=n + 1).astype(np.float32)
        columns = {"row": np.arange(n + 1, dtype=np.int32), "member": member, "correct": member}
        bank.write_shard(
            format_model_name(ARM.name, m),
            ARM.name,
            columns | dict.fromkeys(("logit_confidence", "gap", "top_gap"), phi),
        )
    attack = replace(ATTACKS[name], finalize=lambda parts, _: held.append(parts))
    halves = attack_repeats.plan_repeats(bank, ARM.name, list(range(M))).halves
    contexts = build_attack_contexts(bank, ARM.name, attack, range(M), [np.arange(M), *halves, np.arange(M)])
    fit_attack(bank, ARM.name, list(range(M)), attack, contexts, None)
    # of the bank, of its two halves, and without information
    assert [len(parts) for parts in held] == [1, 1, 1, 1]
    assert len(pickle.dumps(held)) < 2**17


def test_every_score_of_an_attack_names_its_source():
    for attack in ATTACKS.values():
        for score in (*attack.scores, attack.success):
            assert score is None or SCORES[score][2] == 1


def test_a_later_run_computes_again_the_attacks_of_an_earlier_one(store):
    shards = store.find_valid_shards(ARM.name)
    first = score_arm(store, ARM.name, shards, ("lira", "rmia"))
    assert find_stored_attacks(store, "k0.500") == ["lira", "rmia"]
    again = score_arm(store, ARM.name, shards)
    assert again.names == first.names
    assert set(again.attacks) == {"lira", "lira_offline", "rmia"}


def test_impossible_attacks_are_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"unknown attack 'rmai'; did you mean 'rmia'"):
        check_attacks(["rmai"], SHARD_COLUMNS, 10)
    with pytest.raises(ValueError, match=r"--attacks rmia-offline.*--validation 0\.1"):
        check_attacks(["lira", "rmia-offline"], SHARD_COLUMNS, 0)
    with pytest.raises(ValueError, match=r"reads logit_confidence.*; use lira-gap$"):
        check_attacks(["lira"], ["member", "correct", "gap"], 10)
    with pytest.raises(ValueError, match=r"; use lira, lira-paper, [a-z, -]*-fixed$"):
        check_attacks(["lira-gap"], ["member", "correct", "logit_confidence"], 0)
    check_attacks(["lira"], SHARD_COLUMNS, 0)
    check_attacks(list(ATTACKS), SHARD_COLUMNS, 1)


def test_a_bank_without_validation_is_not_scored_with_rmia(tmp_path, signals):
    bank = Store.create(tmp_path / "bank", manifest(split_sizes=(TRAIN, 0, TEST)), examples(TRAIN + TEST))
    bank.add_arm({"name": ARM.name, "design": "exact", "keep": 0.5, "block": 16, "clusters": None})
    for m in range(2):
        whole = {name: values[m, : TRAIN + TEST] for name, values in signals.items()}
        columns = {"row": np.arange(TRAIN + TEST, dtype=np.int32), "member": whole.pop("member")}
        bank.write_shard(format_model_name(ARM.name, m), ARM.name, columns | {"correct": whole["gap"] > 0} | whole)
    with pytest.raises(ValueError, match="and this bank has none"):
        score_arm(bank, ARM.name, bank.find_valid_shards(ARM.name), ("rmia",))
    assert bank.folder.names("scores") == []
