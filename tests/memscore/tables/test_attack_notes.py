"""The table of attacks says where noise is not at one half, and why an attack is undefined."""

import numpy as np
import pytest

from memscore.pipeline.scoring import score_arm
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.subsets.designs import Arm, draw_membership
from memscore.tables.attack_notes import build_attack_notes
from tests.fixtures.banks import examples, manifest

N = 40


def score(folder, arm, indices, scale=1.0):
    bank = Store.create(folder / "bank", manifest(split_sizes=(N, 0, 1)), examples(N + 1))
    clusters = np.arange(N) // (3 if arm.models_per_block > 4 else 1)
    bank.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    rng = np.random.default_rng(0)
    member = np.zeros((len(indices), N + 1), bool)
    member[:, :N] = draw_membership(arm, indices, N, clusters)
    for row, index in enumerate(indices):
        columns = {"row": np.arange(N + 1, dtype=np.int32), "member": member[row], "correct": member[row]}
        phi = (1 + scale * rng.normal(size=N + 1)).astype(np.float32)
        signals = dict.fromkeys(("logit_confidence", "gap", "top_gap"), phi)
        bank.write_shard(format_model_name(arm.name, index), arm.name, columns | signals)
    return score_arm(bank, arm.name, bank.find_valid_shards(arm.name))


@pytest.mark.parametrize(
    ("arm", "indices", "words"),
    [
        (Arm(block=8), range(8), ["one block of an orthogonal design", "--models 16"]),
        (Arm(block=8), [*range(8), 9, 10], ["one block of an orthogonal design"]),
        (Arm(block=8), range(16), []),
        (Arm(block=8), [i for i in range(24) if i % 8], []),
        (Arm(design="exact", block=8), range(8), []),
        (Arm(design="iid"), range(8), []),
        (Arm(design="iid"), range(2), ["lira, lira_offline undefined with 2 models", "use --models 4"]),
        (Arm(design="exact", keep=0.75, block=4), range(4), ["undefined with 4 models", "use --models 8"]),
        (Arm(keep=0.75, block=4), range(4), ["one block", "undefined with 4 models", "use --models 12"]),
    ],
)
def test_each_arm_is_told_what_limits_its_attacks(tmp_path, arm, indices, words):
    lines = build_attack_notes(score(tmp_path, arm, list(indices)))
    assert len(lines) == (2 if words[:1] == ["one block"] else bool(words))
    assert all(word in " ".join(lines) for word in words)


def test_models_that_all_give_the_same_are_no_evidence_of_privacy(tmp_path):
    [line] = build_attack_notes(score(tmp_path, Arm(design="iid"), range(8), scale=0.0))
    assert "nothing was measured" in line
