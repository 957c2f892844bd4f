"""RSU's comparisons on a synthetic bank whose risk is known."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import ttest_ind

from memscore.analysis.risk_signals import (
    compute_difference,
    compute_mean_interval,
    compute_original_signals,
    compute_risk_signals,
)
from memscore.store.shards import hash_shards
from memscore.store.store import Store
from tests.fixtures.banks import manifest

N, K = 500, 4


@pytest.fixture
def bank(tmp_path):
    """Loss is low for all but a tenth of the examples; attack success rises with it."""
    import pyarrow as pa

    rng = np.random.default_rng(0)
    labels = np.arange(N) % K
    table = pa.table({
        "row": pa.array(range(N), pa.int32()),
        "id": [f"train/{i:05d}" for i in range(N)],
        "label": labels.astype(np.int64),
    })
    store = Store.create(tmp_path / "bank", manifest(split_sizes=(N, 0, 0), n_classes=K), table)
    logit = np.where(np.arange(N) % 10 == 3, rng.normal(1, 0.5, N), rng.normal(7, 0.5, N))
    logits = np.zeros((N, K), np.float32)
    logits[np.arange(N), labels] = logit
    store.write_outputs("a" * 64, logits, np.zeros((N, 2)))
    success = np.clip(0.9 - 0.06 * logit + rng.normal(0, 0.02, N), 0, 1)
    field = {"source": "synthetic", "unit": "1", "direction": 1}
    for name, values in (("attack_success_k0.500", success), ("inversion_psnr", rng.normal(size=N))):
        store.write_score(name, {name: values}, {name: field}, {}, hash_shards("x", {}))
    return store, logits, labels, success


def test_signals_are_those_of_the_logits(bank):
    store, logits, labels, _ = bank
    signals = compute_original_signals(store, ["a" * 64], labels)
    p = softmax(logits.astype(float), axis=1)
    np.testing.assert_allclose(signals["probability"], p[np.arange(N), labels], rtol=1e-9)
    np.testing.assert_allclose(signals["loss"], -np.log(p[np.arange(N), labels]), rtol=1e-7)
    np.testing.assert_allclose(signals["entropy"], -(p * np.log(p)).sum(1), rtol=1e-7)


def test_success_rises_over_the_tenths_of_the_loss_and_the_riskiest_lie_in_the_tail(bank):
    store, _, _, success = bank
    signals = compute_risk_signals(store, "attack_success_k0.500", ["a" * 64], "attack_success_k0.500")
    means = [group.success.value for group in signals.groups]
    assert len(means) == 10
    assert means[-1] > means[0] + 0.3
    assert signals.groups[0].most <= signals.groups[1].least
    assert sum(means) / 10 == pytest.approx(success.mean(), abs=1e-9)
    assert all(trend.verdict == "holds" for trend in signals.trends)
    assert len(signals.tails) == K
    assert all(tail.risky < tail.twin for tail in signals.tails)
    assert signals.spearman.lo > 0


def test_a_risk_of_pure_noise_decides_nothing(bank):
    store, *_ = bank
    signals = compute_risk_signals(store, "inversion_psnr", ["a" * 64], "attack_success_k0.500")
    claims = [trend.claim for trend in signals.trends]
    assert any("more attack success" in claim for claim in claims)
    # five claims of pure noise, each decided with probability .05: two or more of them by chance .02
    assert sum(trend.verdict != "undecided" for trend in signals.trends) <= 1


def test_examples_without_a_risk_are_left_out(bank):
    store, _, _, success = bank
    values = np.full(N, np.nan)
    values[:40] = success[:40]
    field = {"source": "synthetic", "unit": "1", "direction": 1}
    store.write_score("inversion_psnr", {"inversion_psnr": values}, {"inversion_psnr": field}, {}, "x")
    signals = compute_risk_signals(store, "inversion_psnr", ["a" * 64], "attack_success_k0.500")
    assert "20 riskiest by inversion_psnr: more loss" in [t.claim for t in signals.trends]


def test_welch_is_scipys():
    rng = np.random.default_rng(3)
    x, y = rng.normal(1, 2, 30), rng.normal(0, 1, 50)
    interval, expected = compute_difference(x, y), ttest_ind(x, y, equal_var=False).confidence_interval()
    np.testing.assert_allclose([interval.lo, interval.hi], [expected.low, expected.high])
    assert np.isnan(compute_difference(np.ones(5), np.ones(5)).lo)
    assert np.isnan(compute_mean_interval(np.ones(1)).lo)
