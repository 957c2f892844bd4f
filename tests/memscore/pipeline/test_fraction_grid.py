"""The C-score's grid: every fraction is an arm, trained in one run and averaged plainly."""

import numpy as np
import pytest

from cluster.launch import PoolOptions
from memscore import estimate
from memscore.pipeline.cards import CardOptions
from memscore.pipeline.config import BankConfig, build_designs
from memscore.store.store import Store

FRACTIONS = [tenth / 10 for tenth in range(1, 10)]


def test_the_preset_is_the_references_grid():
    arms, count = build_designs(BankConfig(preset="cscore"))
    assert [arm.keep for arm in arms] == FRACTIONS
    assert count == 200
    assert {(arm.design, arm.block) for arm in arms} == {("exact", 20)}


def test_options_change_it():
    arms, count = build_designs(BankConfig(preset="cscore", design="iid", models=7))
    assert [(arm.design, arm.block) for arm in arms] == [("iid", 1)] * 9
    assert count == 7
    assert [arm.keep for arm in build_designs(BankConfig(preset="cscore", keep=0.3))[0]] == [0.3]
    with pytest.raises(ValueError, match="use 20 or 40"):
        build_designs(BankConfig(preset="cscore", models=30))


def test_a_grid_is_trained_resumed_and_averaged(tmp_path, capsys):
    few = {"design": "iid", "models": 4, "train_limit": 300, "batch": 16, "epochs": 2, "originals": 0}
    plan = BankConfig(preset="cscore", store=str(tmp_path / "s"), **few)
    assert estimate.estimate_bank(plan, PoolOptions(pool="serial"), CardOptions()) == 0
    out = capsys.readouterr().out
    assert "36 models in" in out
    assert "columns of scores.parquet end in _k0.100" in " ".join(out.split())
    store = Store.open(tmp_path / "s")
    parts = [store.read_score(f"cscore_k{keep:.3f}")[f"cscore_k{keep:.3f}"].to_numpy() for keep in FRACTIONS]
    whole = store.read_score("cscore")
    np.testing.assert_allclose(whole["cscore"].to_numpy(), np.mean(parts, axis=0), atol=1e-12)
    assert (np.isnan(np.sum(parts, axis=0)) == np.isnan(whole["cscore"].to_numpy())).all()
    errors = [store.read_score(f"cscore_k{keep:.3f}")[f"cscore_k{keep:.3f}_se"].to_numpy() for keep in FRACTIONS]
    np.testing.assert_allclose(whole["cscore_se"].to_numpy(), np.sqrt(np.sum(np.square(errors), 0)) / 9, rtol=1e-9)
    assert np.nanmean(parts[7]) > np.nanmean(parts[0])
    shard = next((tmp_path / "s" / "shards").glob("iid-k0.400*3.parquet"))
    shard.unlink()
    assert estimate.estimate_bank(plan, PoolOptions(pool="serial"), CardOptions()) == 0
    assert "1 model in" in capsys.readouterr().out
    assert shard.exists()
