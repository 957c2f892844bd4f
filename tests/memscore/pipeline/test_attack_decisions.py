"""Decisions of an attack on a bank: its records and tables, groups, and banks too small for a threshold."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from memscore import bank
from memscore.pipeline.attack_decisions import build_group_table, compute_decisions, name_decision_score, read_groups
from memscore.pipeline.attacks import ATTACKS
from memscore.score_registry import SCORES
from memscore.store.store import Store
from memscore.store.verify import verify


def test_every_attack_has_a_name_for_its_decisions():
    names = [name_decision_score(attack.scores[0]) for attack in ATTACKS.values()]
    assert len(set(names)) == len(names)
    assert set(names) <= set(SCORES)


def test_the_table_of_groups_has_a_row_for_each_attack_kind_and_group():
    rng = np.random.default_rng(0)
    member = rng.random((8, 120)) < 0.5
    groups = {"class": np.arange(120) % 3, "cluster": np.arange(120) % 2}
    decisions, table = compute_decisions(rng.normal(size=(8, 120)) + member, member, groups)
    rows = build_group_table([("lira", decisions), ("rmia", decisions)])
    assert rows.num_rows == 2 * (3 + 2)
    assert set(rows["kind"].to_pylist()) == {"class", "cluster"}
    assert rows["auc"][0].as_py() == max(leak.auc.value for leak in decisions.groups["class"])
    assert len(table["value"]) == 120
    assert build_group_table([]) is None


def test_few_non_members_leave_thresholds_undefined_and_decide_at_0():
    rng = np.random.default_rng(0)
    member = rng.random((2, 20)) < 0.5
    decisions, _ = compute_decisions(rng.normal(size=(2, 20)), member, {}, given=0.5)
    assert [np.isnan(each.threshold) for each in decisions.thresholds] == [True, True]
    assert decisions.decided_at == 0
    assert decisions.given.targets == 2


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """16 models of 300 examples of 3 classes; only those of class 1 leak."""
    folder, rng = tmp_path_factory.mktemp("imported"), np.random.default_rng(0)
    member, labels = rng.random((16, 300)) < 0.5, np.arange(300) % 3
    np.save(folder / "member.npy", member)
    np.save(folder / "gap.npy", rng.normal(1 + 2.0 * member * (labels == 1)))
    np.save(folder / "labels.npy", labels)
    files = [word for name in ("member", "gap", "labels") for word in (f"--{name}", str(folder / f"{name}.npy"))]
    assert bank.main(["import", str(folder / "bank"), *files, "--keep", "0.5"]) == 0
    return Store.open(folder / "bank")


def test_a_bank_has_decisions_in_its_summary_its_scores_and_a_table_of_groups(imported):
    [arm] = json.loads(imported.folder.read("reports/summary.json"))["arms"]
    attack = arm["attacks"]["lira_gap"]
    loose, fine = attack["thresholds"]
    assert loose["expected_fpr"][1] < 0.01 < loose["expected_fpr"][2]
    assert loose["precision_at_prior"]["0.01"][0] < loose["precision_at_prior"]["0.5"][0]
    assert fine["threshold"] > loose["threshold"] == attack["decided_at"]
    assert attack["decisions"]["flagged_again"] > attack["decisions"]["wrongly_again"]
    _, agreement = imported.score("decision_agreement_gap_k0.500")
    assert agreement[1::3].mean() > 0.55 > 0.52 > agreement[0::3].mean()
    columns = imported.read_table("scores.parquet").column_names
    assert {f"decision_agreement_gap_k0.500{end}" for end in ("", "_in", "_out", "_n_in", "_n_out")} <= set(columns)
    rows = pq.read_table(imported.folder.path("reports/groups_k0.500.parquet")).to_pylist()
    assert arm["groups"] == len(rows) == 3
    assert (rows[0]["group"], rows[0]["kind"]) == (1, "class")
    assert rows[0]["auc_lo"] > 0.6 > rows[1]["auc"]


def test_a_lost_table_of_groups_is_named(imported):
    assert verify(imported).missing == {}
    content = imported.folder.read("reports/groups_k0.500.parquet")
    imported.folder.remove("reports/groups_k0.500.parquet")
    assert list(verify(imported).missing) == ["reports/groups_k0.500.parquet"]
    imported.folder.replace("reports/groups_k0.500.parquet", content)


def test_groups_are_of_known_labels_only(imported):
    groups = read_groups(imported)
    assert list(groups) == ["class"]
    assert np.bincount(groups["class"]).tolist() == [100, 100, 100]
