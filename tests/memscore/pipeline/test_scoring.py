"""From shards whose answer is known to the score files: values, nulls, names, directions, digests."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from memscore.data.splits import Dataset, Splits, build_examples_table
from memscore.estimators.memorization import memorization
from memscore.estimators.memorization_blend import estimate_blend
from memscore.estimators.registry import STATISTICS
from memscore.estimators.statistic import (
    Statistic,
    compute_table,
    compute_weighted_values,
    count_set_weights,
    subtract_means,
    take_signal,
)
from memscore.pipeline.bank_reports import build_arm_summary, build_rate_counts
from memscore.pipeline.scoring import score_arm, score_fractions, select_columns
from memscore.pipeline.tables import compute_noise_detection, write_scores_table
from memscore.proxies.scores import score_bank_events, score_originals
from memscore.score_registry import ScoreInfo
from memscore.statistics.correlation import draw_bootstrap_samples
from memscore.statistics.reliability import draw_arm_halves
from memscore.statistics.roc import tpr_at_fpr
from memscore.store.manifest import Manifest
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.subsets.designs import Arm, draw_membership

N, TEST, K = 40, 10, 3


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, N + TEST)
    true = labels.copy()
    true[:4] = (true[:4] + 1) % K

    def part(split, rows):
        names = np.array([f"{split}/{i:05d}" for i in range(len(labels[rows]))])
        images = np.zeros((len(labels[rows]), 1, 2, 2), np.uint8)
        return Dataset(images=images, labels=labels[rows], labels_true=true[rows], ids=names)

    none = part("validation", slice(0, 0))
    splits = Splits(
        name="toy", n_classes=K, train=part("train", slice(0, N)), validation=none, test=part("test", slice(N, None)),
        mean=(0.0,), std=(1.0,),
    )  # fmt: skip
    manifest = Manifest(
        fingerprint=splits.fingerprint, data="toy", split_sizes=(N, 0, TEST), n_classes=K, input_shape=(1, 2, 2),
        mean=(0.0,), std=(1.0,), label_changes={"label_noise": 0.1}, architecture="mlp", recipe={"epochs": 1},
        precision="float32", seed=0,
    )  # fmt: skip
    return Store.create(str(tmp_path / "s"), manifest, build_examples_table(splits))


def fill(store, arm, models, correct_of):
    store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    member = draw_membership(arm, models, N)
    rng = np.random.default_rng(1)
    for m, inside in zip(models, member, strict=True):
        everyone = np.concatenate([inside, np.zeros(TEST, bool)])
        correct = np.concatenate([correct_of(inside), np.ones(TEST, bool)])
        numbers = (np.where(correct, 2.0, -2.0) + rng.normal(size=N + TEST) * 0.1).astype(np.float32)
        columns = {"row": np.arange(N + TEST, dtype=np.int32), "member": everyone, "correct": correct}
        columns |= dict.fromkeys(("logit_confidence", "gap"), numbers) | {"top_gap": np.abs(numbers)}
        store.write_shard(format_model_name(arm.name, m), arm.name, columns)
    return member, store.find_valid_shards(arm.name)


def test_a_learner_that_knows_its_members_only_memorizes_everything(store):
    arm = Arm(design="exact", keep=0.5, block=16)
    _, shards = fill(store, arm, range(16), lambda inside: inside)
    result = score_arm(store, arm.name, shards)
    table = {name: store.read_score(f"{name}_k0.500") for name in ("memorization", "cscore", "attack_success")}
    assert (table["memorization"]["memorization_k0.500"].to_numpy() == 1).all()
    assert (table["cscore"]["cscore_k0.500"].to_numpy() == 0).all()
    assert (table["attack_success"]["attack_success_k0.500"].to_numpy() == 1).all()
    assert (table["memorization"]["memorization_k0.500_n_in"].to_numpy() == 8).all()
    assert result.rmse == 0
    assert result.attacks["lira"].measures["auc"].value == 1
    assert (table["memorization"]["memorization_k0.500_se"].to_numpy() > 0).all()


def test_the_summary_has_the_counts_of_a_rate_or_why_there_is_none(store):
    """N examples, half of them others of each target: too few for .1 %, and for 1 % only if there are 100."""
    arm = Arm(design="exact", keep=0.5, block=16)
    member, shards = fill(store, arm, range(16), lambda inside: inside)
    attack = build_arm_summary(score_arm(store, arm.name, shards))["attacks"]["lira"]
    others = int((~member).sum())
    for key, fpr in (("tpr_at_0.001", 0.001), ("tpr_at_0.01", 0.01)):
        counts, fewest = attack[f"{key}_counts"], int((~member).sum(1).min())
        assert (counts["fpr"], counts["negatives"], counts["positives"]) == (fpr, others, int(member.sum()))
        assert counts["reason"] == (None if fewest * fpr >= 1 else f"finer than 1/{fewest}")
        assert np.isnan(attack[key]).all() == (counts["reason"] is not None)
        assert counts["realised_fpr"] == counts["false_positives"] / others <= fpr
    rate = build_rate_counts(tpr_at_fpr(np.arange(300.0), np.arange(300) >= 200, 0.01))
    assert (rate["reason"], rate["false_positives"], rate["negatives"], rate["realised_fpr"]) == (None, 2, 200, 0.01)


def test_what_is_undefined_is_null_and_counted(store):
    arm = Arm(design="iid", keep=0.7)
    member, shards = fill(store, arm, range(4), lambda inside: inside)
    never_out = member.all(0) | ~member.any(0)
    assert never_out.any()
    result = score_arm(store, arm.name, shards)
    column = store.read_score("memorization_k0.700")["memorization_k0.700"]
    assert (np.array([value.as_py() is None for value in column]) == never_out).all()
    assert result.undefined == never_out.sum()
    assert (store.read_score("memorization_k0.700")["memorization_k0.700_n_out"].to_numpy() == (~member).sum(0)).all()


def test_a_score_points_up_where_memorization_does(store):
    arm = Arm(design="exact", keep=0.5, block=16)
    _, shards = fill(store, arm, range(16), lambda inside: inside | (np.arange(N) > 20))
    score_arm(store, arm.name, shards)
    for name in ("memorization_k0.500", "cscore_k0.500", "attack_success_k0.500", "lira_k0.500"):
        _, values = store.score(name)
        assert values[:21].mean() > values[21:].mean()
    assert store.score("cscore_k0.500")[1].max() <= 0


def test_a_score_is_stale_once_the_bank_has_grown(store):
    arm = Arm(design="exact", keep=0.5, block=8)
    _, shards = fill(store, arm, range(8), lambda inside: inside)
    score_arm(store, arm.name, shards)
    store.score("memorization_k0.500")
    fill(store, arm, range(8, 16), lambda inside: inside)
    with pytest.raises(ValueError, match=r"stale.*python -m memscore.estimate"):
        store.score("memorization_k0.500")


def test_between_block_errors_come_from_whole_blocks_only(store):
    arm = Arm(design="orthogonal", keep=0.5, block=4)
    store.write_clusters(np.arange(N, dtype=np.int32) // 3)
    record = {"name": arm.name, "design": "orthogonal", "keep": 0.5, "block": 4, "clusters": "c" * 64}
    store.add_arm(record)
    member = draw_membership(arm, range(16), N, store.clusters())
    rng = np.random.default_rng(2)
    right = rng.random((16, N + TEST)) < 0.5
    for m in range(16):
        numbers = rng.normal(size=N + TEST).astype(np.float32)
        columns = {"row": np.arange(N + TEST, dtype=np.int32)}
        columns |= {"member": np.concatenate([member[m], np.zeros(TEST, bool)]), "correct": right[m]}
        columns |= {"logit_confidence": numbers, "gap": numbers, "top_gap": np.abs(numbers)}
        if m != 13:
            store.write_shard(format_model_name(arm.name, m), arm.name, columns)
    result = score_arm(store, arm.name, store.find_valid_shards(arm.name))
    expected = {}
    for block in (0, 4, 8):
        shards = store.read_blocks(arm.name, range(block, block + 4), ["member", "correct", "logit_confidence", "gap"])
        columns = next(shards).columns
        inside = columns["member"]
        for stem, values in {
            "memorization": memorization(columns["correct"], inside),
            "cscore": np.where(inside, 0, columns["correct"]).sum(0) / 2,
            **{
                statistic: compute_table(STATISTICS[statistic], columns[STATISTICS[statistic].signal], inside)["value"]
                for statistic in ("memorization_probability", "memorization_probit")
            },
        }.items():
            expected.setdefault(stem, []).append(values)
        weight = result.blend.weight
        values = weight * expected["memorization"][-1] + (1 - weight) * expected["memorization_probit"][-1]
        expected.setdefault("memorization_blend", []).append(values)
    for stem, each in expected.items():
        column = f"{stem}_{result.suffix}_se_block"
        got = store.read_score(f"{stem}_{result.suffix}")[column].to_numpy()
        np.testing.assert_allclose(got, np.std(each, axis=0, ddof=1) / np.sqrt(3), atol=2e-6, err_msg=stem)
    errors = store.read_score(f"memorization_{result.suffix}")[f"memorization_{result.suffix}_se_block"].to_numpy()
    assert result.rmse_block == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-12)
    assert (result.models, result.unfinished) == (15, 3)


@pytest.mark.parametrize(("models", "block"), [(32, 1), (32, 16), (32, 32), (24, 16)])
def test_the_blend_is_fitted_between_halves_of_the_models(store, models, block):
    """Halves are whole blocks of models where there are two or more, else models of the one block."""
    arm = Arm(design="exact" if block > 1 else "iid", keep=0.5, block=block)
    member, shards = fill(store, arm, range(models), lambda inside: inside | (np.arange(N) > 30))
    result = score_arm(store, arm.name, shards)
    columns = next(store.read_blocks(arm.name, range(models), ["correct", "gap", "member"])).columns
    groups = np.arange(models) // (16 if (models, block) == (32, 16) else 1)
    table, fit = estimate_blend(
        columns["correct"], columns["gap"], member, draw_arm_halves(store.manifest.seed, arm.name, groups)
    )
    assert 0 <= fit.weight <= 1
    assert (result.blend.weight, result.blend.rmse) == pytest.approx((fit.weight, fit.rmse), rel=1e-6)
    score = f"memorization_blend_{result.suffix}"
    stored = store.read_score(score)
    assert stored.column_names == [
        "row",
        "id",
        score,
        *(f"{score}_{end}" for end in ("se", "lo", "hi", "n_in", "n_out")),
    ]
    for end in ("value", "se", "lo", "hi", "n_in", "n_out"):
        column = stored[score if end == "value" else f"{score}_{end}"].to_numpy()
        np.testing.assert_allclose(column, table[end], rtol=1e-5, atol=1e-6)
    probit = store.read_score(f"memorization_probit_{result.suffix}").column_names
    assert not any("covariance" in name for name in probit)
    assert result.reliability["memorization_blend"].halves == result.reliability["memorization"].halves
    assert build_arm_summary(result)["blend"]["weight"] == result.blend.weight


def test_a_new_row_of_the_table_gets_values_errors_reliability_and_bootstrap(store, monkeypatch):
    """A statistic is one function of sums: nothing but the row names it."""

    def compute_errors(inside, outside, terms, member):
        spread = [terms[0].std(0, where=side, ddof=1) ** 2 / side.sum(0) for side in (member, ~member)]
        return {"se": np.sqrt(sum(spread))}

    toy = Statistic(
        info=ScoreInfo("mean logit confidence in minus out", "nat", 1),
        signal="logit_confidence",
        terms=take_signal,
        value=subtract_means,
        errors=compute_errors,
    )
    monkeypatch.setitem(STATISTICS, "mean_confidence", toy)
    arm = Arm(design="exact", keep=0.5, block=4)
    inside, shards = fill(store, arm, range(16), lambda inside: inside | (np.arange(N) > 20))
    result = score_arm(store, arm.name, shards)
    score = f"mean_confidence_{result.suffix}"
    assert score in result.names
    assert store.score(score)[1][:21].min() > 3 > 1 > store.score(score)[1][21:].max()  # +2 and -2 against +2 and +2
    table = store.read_score(score)
    assert table.column_names == ["row", "id", score, *(f"{score}_{end}" for end in ("se", "n_in", "n_out"))]
    columns = next(store.read_blocks(arm.name, range(16), select_columns(store, arm.name, range(16)))).columns
    phi = columns["logit_confidence"].astype(float)
    pairs = [(phi[inside[:, i], i], phi[~inside[:, i], i]) for i in range(N)]
    for end, expected in {
        "": [a.mean() - b.mean() for a, b in pairs],
        "_se": [np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)) for a, b in pairs],
    }.items():
        np.testing.assert_allclose(table[score + end].to_numpy(), expected, rtol=1e-6)
    assert result.reliability["mean_confidence"].halves == 10
    assert result.reliability["mean_confidence"].pearson > 0.9
    samples = draw_bootstrap_samples([np.array([m]) for m in range(16)], np.random.default_rng(0), 5)
    drawn = compute_weighted_values(STATISTICS, count_set_weights(samples, 16), columns)["mean_confidence"]
    assert drawn.shape == (5, N)
    assert np.nanmin(drawn[:, :21]) > 3


def test_two_blocks_have_no_error_between_them(store):
    arm = Arm(design="exact", keep=0.5, block=8)
    _, shards = fill(store, arm, range(16), lambda inside: inside)
    result = score_arm(store, arm.name, shards)
    assert np.isnan(result.rmse_block)
    assert result.unfinished == 0


def test_fractions_are_averaged_and_never_pooled(store):
    result = []
    for keep, right in ((0.25, False), (0.5, True)):
        arm = Arm(design="exact", keep=keep, block=8)
        _, shards = fill(store, arm, range(8), lambda inside, right=right: np.full(N, right))
        result.append(score_arm(store, arm.name, shards))
    assert score_fractions(store, result[:1]) == []
    assert score_fractions(store, result) == ["cscore"]
    assert (store.read_score("cscore")["cscore"].to_numpy() == 0.5).all()


def test_the_wide_table_has_a_row_for_each_training_example(store):
    arm = Arm(design="exact", keep=0.5, block=8)
    _, shards = fill(store, arm, range(8), lambda inside: inside)
    result = score_arm(store, arm.name, shards)
    table = write_scores_table(store, result.names)
    assert table.num_rows == N
    assert table["id"][0].as_py() == "train/00000"
    on_disk = pq.read_table(store.folder.path("scores.parquet"))
    assert on_disk.equals(table)
    assert on_disk.schema.field("memorization_k0.500").metadata[b"direction"] == b"1"
    assert on_disk.schema.field("memorization_k0.500_se").metadata[b"direction"] == b"0"


def test_changed_labels_are_found_by_a_score_that_knows_them(store):
    arm = Arm(design="exact", keep=0.5, block=16)
    _, shards = fill(store, arm, range(16), lambda inside: inside | (np.arange(N) >= 4))
    result = score_arm(store, arm.name, shards)
    area = compute_noise_detection(store, result.names)
    assert area["memorization_k0.500"].value == 1
    assert area["memorization_k0.500"].lo < 1


def test_bank_events_are_averaged_over_the_models_that_saw_an_example(store):
    arm = Arm(design="exact", keep=0.5, block=8)
    member, shards = fill(store, arm, range(8), lambda inside: inside)
    for m in range(8):
        seen = member[m]
        columns = {"row": np.arange(N, dtype=np.int32), "visits": seen.astype(np.int32)}
        for name in ("confidence", "max_confidence", "entropy", "accuracy", "forgetting"):
            columns[name] = np.where(seen, m, np.nan).astype(np.float32)
        store.write_events(format_model_name(arm.name, m), columns)
    names = score_bank_events(store, arm.name, sorted(shards))
    assert len(names) == 5
    score = store.read_score("events_bank_k0.500_confidence")
    expected = (np.arange(8)[:, None] * member).sum(0) / member.sum(0)
    np.testing.assert_allclose(score["events_bank_k0.500_confidence"].to_numpy(), expected)
    assert (score["events_bank_k0.500_confidence_n"].to_numpy() == 4).all()


def test_final_loss_is_the_cross_entropy_of_the_originals(store):
    rng = np.random.default_rng(3)
    labels = store.examples()["label"].to_numpy()
    losses = []
    for key in ("a" * 64, "b" * 64):
        logits = rng.normal(size=(N + TEST, K)).astype(np.float32)
        store.write_outputs(key, logits, np.zeros((N + TEST, 2), np.float32))
        p = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
        losses.append(-np.log(p[np.arange(N), labels[:N]]))
    assert score_originals(store, ["a" * 64, "b" * 64]) == ["final_loss"]
    np.testing.assert_allclose(store.score("final_loss")[1], np.mean(losses, 0), rtol=1e-10)
