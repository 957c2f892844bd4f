"""Decisions of an audit: rates on the models of a bank are those of fresh models of the same kind."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from memscore import bank
from memscore.analysis.calibration import assess_decisions, encode_decisions
from memscore.analysis.shadow_targets import attack_shadow_models
from memscore.estimators.lira import external_lira_scores, fit_external_prior
from memscore.estimators.shadow_models import ShadowModels
from memscore.store.store import Store
from memscore.tables.decision_table import print_audit_decisions

M, N = 48, 400
ARM = "imported-iid-k0.500"


def draw_models(rng, models):
    """Confidences of models that differ by a shift, on examples whose effects of membership differ."""
    effects = np.random.default_rng(0).exponential(1.0, N)
    member = rng.random((models, N)) < 0.5
    return rng.normal(2 + effects * member) + 0.2 * rng.normal(size=(models, 1)), member


@pytest.fixture(scope="module")
def shadows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shadows")
    confidence, member = draw_models(np.random.default_rng(1), M)
    confidence[7] *= 30
    np.save(folder / "wild.npy", confidence)
    confidence[7] /= 30
    files = {"member": member, "calm": confidence, "labels": np.arange(N) % 4}
    for name, values in files.items():
        np.save(folder / f"{name}.npy", values)
    for name in ("calm", "wild"):
        words = ["--member", "member.npy", "--gap", f"{name}.npy", "--logit-confidence", f"{name}.npy", "--labels"]
        paths = [str(folder / word) if word.endswith(".npy") else word for word in [*words, "labels.npy"]]
        assert bank.main(["import", str(folder / f"{name}-bank"), *paths, "--keep", "0.5"]) == 0
    prior = fit_external_prior([(confidence, member)], ShadowModels.from_sample(confidence, 0.5))
    targets, held = draw_models(np.random.default_rng(2), 60)
    scores = np.stack([external_lira_scores(target, confidence, member, prior)[0] for target in targets])
    return folder, scores, held


def assess(store, scores, threshold, member):
    targets = attack_shadow_models(store, ARM, range(M))
    return assess_decisions(store, ARM, range(M), targets, scores, threshold, member)


def test_expected_rates_are_those_of_fresh_models(shadows):
    folder, scores, held = shadows
    for threshold in (0.0, 0.5):
        decisions = assess(Store.open(folder / "calm-bank"), scores[0], threshold, held[0])
        for each in decisions.thresholds[:2]:
            rates = [(s[~h] > each.threshold).mean() for s, h in zip(scores, held, strict=True)]
            error = np.std(rates) / np.sqrt(60) + each.expected.fpr_sd / np.sqrt(M)
            assert np.mean(rates) == pytest.approx(each.expected.fpr.value, abs=4 * error)
            hits = [(s[h] > each.threshold).mean() for s, h in zip(scores, held, strict=True)]
            assert np.mean(hits) == pytest.approx(each.expected.tpr.value, rel=0.15)
        assert [each.nominal_fpr for each in decisions.thresholds] == [None, 0.01, 0.001]


def test_what_is_flagged_here_is_counted_and_groups_need_the_truth(shadows):
    folder, scores, held = shadows
    store = Store.open(folder / "calm-bank")
    given = assess(store, scores[0], 0.0, held[0]).thresholds[0]
    assert given.flagged == (scores[0] > 0).sum()
    assert given.realised_fpr.value == pytest.approx((scores[0][~held[0]] > 0).mean())
    known = assess(store, scores[0], 0.0, held[0])
    assert {leak.group for leak in known.groups["class"]} == {0, 1, 2, 3}
    blind = assess(store, scores[0], 0.0, None)
    assert blind.groups == {}
    assert blind.thresholds[0].realised_fpr is None
    assert blind.thresholds[0].flagged == given.flagged
    assert blind.outlying == {}


def test_an_audit_names_a_wild_shadow_model_and_its_record_is_json(shadows):
    folder, scores, held = shadows
    decisions = assess(Store.open(folder / "wild-bank"), scores[0], 0.0, held[0])
    assert list(decisions.outlying) == [f"{ARM}-00007"]
    record = json.loads(encode_decisions(decisions))
    assert record["thresholds"][0]["expected"]["targets"] == M - 1  # the wild model is no target
    text = io.StringIO()
    print_audit_decisions(Console(width=160, file=text), decisions)
    assert f"{ARM}-00007" in text.getvalue()
    assert "expected FPR" in text.getvalue()
    assert "AUC within each class, the largest of 4" in text.getvalue()
