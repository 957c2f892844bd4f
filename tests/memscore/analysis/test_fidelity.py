"""Memorization proxies: known properties of a synthetic bank are recovered, with correct intervals and costs."""

import numpy as np
import pytest

from memscore.analysis.fidelity import compare_proxies, read_candidates
from memscore.pipeline.scoring import score_arm
from memscore.statistics.claims import judge_interval
from memscore.statistics.correlation import spearman
from memscore.statistics.intervals import Interval
from memscore.store.shards import format_model_name, hash_shards
from memscore.store.store import Store
from memscore.subsets.designs import Arm, draw_membership
from tests.fixtures.banks import examples, manifest, receipt

N, M, TEST = 400, 64, 5
ARM = Arm(design="exact", keep=0.5, block=16)


@pytest.fixture(scope="module")
def truth():
    """P[right | out] of each example; members are always right, so 1 - p is the memorization."""
    return np.random.default_rng(0).beta(2, 1, N)


@pytest.fixture(scope="module")
def bank(tmp_path_factory, truth):
    store = Store.create(
        tmp_path_factory.mktemp("fidelity") / "bank", manifest(split_sizes=(N, 0, TEST)), examples(N + TEST)
    )
    store.add_arm({"name": ARM.name, "design": "exact", "keep": 0.5, "block": 16, "clusters": None})
    rng = np.random.default_rng(1)
    member = np.zeros((M, N + TEST), bool)
    member[:, :N] = draw_membership(ARM, range(M), N)
    for m in range(M):
        right = np.concatenate([member[m, :N] | (rng.random(N) < truth), np.ones(TEST, bool)])
        number = np.where(right, 1.0, -1.0).astype(np.float32) * (1 + rng.random(N + TEST).astype(np.float32))
        columns = {"row": np.arange(N + TEST, dtype=np.int32), "member": member[m], "correct": right}
        columns |= {"logit_confidence": number, "gap": number, "top_gap": np.abs(number)}
        store.write_shard(format_model_name(ARM.name, m), ARM.name, columns)
        store.write_receipt(name := format_model_name(ARM.name, m), receipt(name, 2.0))
    for index, seconds in enumerate((9.0, 11.0, 10.0)):
        store.write_receipt(name := f"original-{index:05d}", receipt(name, seconds, key=str(index) * 64))
    score_arm(store, ARM.name, store.find_valid_shards(ARM.name))
    noise = np.random.default_rng(2).normal(size=N)
    write_proxy(store, "events_confidence", truth, -1)
    write_proxy(store, "holdout", -truth + 0.3 * noise, 1)
    write_proxy(store, "events_entropy", noise, 1)
    return store


def write_proxy(store, name, values, direction):
    field = {"source": "synthetic", "unit": "1", "direction": direction}
    store.write_score(name, {name: values}, {name: field}, {"models_of": "originals"}, hash_shards("originals", {}))


@pytest.fixture(scope="module")
def comparison(bank):
    return compare_proxies(bank, ARM.name, {"holdout": 4.0}, draws=200)


def test_the_reliability_is_the_one_that_estimate_reports(comparison, bank):
    """Both halve the models alike, and counts are exact."""
    assert (
        comparison.reliability
        == score_arm(bank, ARM.name, bank.find_valid_shards(ARM.name)).reliability["memorization"]
    )


def get_row(comparison, name):
    return next(row for row in comparison.rows if row.score == name)


def test_the_truth_correlates_as_far_as_the_noise_allows_and_fully_without_it(comparison, bank, truth):
    confidence = get_row(comparison, "events_confidence")
    assert -0.97 < confidence.spearman.value < -0.8
    assert confidence.corrected == pytest.approx(-1, abs=0.03)
    assert confidence.spearman.lo < confidence.spearman.value < confidence.spearman.hi < 0
    assert comparison.reliability.spearman_full == pytest.approx(confidence.spearman.value**2, abs=0.04)


def test_other_models_give_correlations_that_the_interval_covers(comparison, truth):
    """The interval is over models: of 100 other banks of the same truth, nearly all lie in it (95 % were aimed at)."""
    rng = np.random.default_rng(7)
    others = []
    for _ in range(100):
        right_out = rng.binomial(M // 2, truth) / (M // 2)
        others.append(spearman(truth, 1 - right_out))
    ends = get_row(comparison, "events_confidence").spearman
    # the interval's own centre is one bank's value, so its cover of other banks is that of a difference: 95 % -> 83 %
    assert np.mean([(ends.lo <= r) & (r <= ends.hi) for r in others]) > 0.6


def test_scores_of_the_same_models_are_marked_and_get_no_interval_and_no_correction(comparison):
    cscore = get_row(comparison, "cscore_k0.500")
    assert cscore.shares_models
    assert np.isnan([cscore.spearman.lo, cscore.corrected]).all()
    assert not get_row(comparison, "holdout").shares_models


def test_costs_are_shares_of_the_bank_and_of_one_training(comparison):
    assert comparison.bank_s == 2.0 * M
    assert comparison.training_s == 10
    holdout = get_row(comparison, "holdout")
    assert (holdout.seconds, holdout.of_bank, holdout.of_training) == (4, 4 / 128, 0.4)
    assert np.isnan(get_row(comparison, "events_confidence").seconds)


def test_trends_hold_fail_or_stay_open_by_their_interval(comparison):
    verdicts = {trend.claim: trend.verdict for trend in comparison.trends}
    assert verdicts["confidence falls with memorization"] == "holds"
    assert verdicts["holdout rises with memorization"] == "holds"
    assert verdicts["entropy rises with memorization"] == "undecided"
    assert verdicts["|confidence| > |holdout|"] == "holds"
    assert verdicts["|entropy| > |holdout|"] == "fails"


def test_verdicts():
    undefined = Interval(value=0.3, lo=float("nan"), hi=float("nan"))
    assert judge_interval(undefined) == "undecided"
    assert judge_interval(Interval(value=-0.2, lo=-0.3, hi=-0.1)) == "fails"


def test_scores_of_other_arms_are_not_compared(bank):
    digest = hash_shards(ARM.name, bank.find_valid_shards(ARM.name))
    names = [candidate.score for candidate in read_candidates(bank, ARM.name, "memorization_k0.500", digest)]
    assert "memorization_k0.500" not in names
    assert {"cscore_k0.500", "lira_k0.500", "holdout"} <= set(names)
    others = [
        (candidate.score, candidate.shares_models)
        for candidate in read_candidates(bank, "another", "memorization_k0.700", digest)
    ]
    assert others == [(name, False) for name in ("events_confidence", "events_entropy", "holdout")]
