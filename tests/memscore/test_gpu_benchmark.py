"""The GPU benchmark runs through on a CPU, part by part, without Ray or tyro; what it says there measures nothing."""

import json
import sys

import numpy as np
import pytest

from benchmarks import gpu_cases, gpu_training


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Run one part on data of the right shape; gives its exit code and its results."""
    rng = np.random.default_rng(0)
    file = tmp_path / "made.npz"
    sizes = {"train": 120, "test": 64}
    arrays = {f"{name}_images": rng.integers(0, 256, (n, 1, 28, 28), dtype=np.uint8) for name, n in sizes.items()}
    np.savez(file, **arrays, **{f"{name}_labels": np.arange(n) % 10 for name, n in sizes.items()})
    for module in ("ray", "tyro"):
        monkeypatch.setitem(sys.modules, module, None)

    def run(part, *more):
        code = gpu_training.main([
            part,
            "--tiny",
            "--device",
            "cpu",
            "--file",
            str(file),
            "--folder",
            str(tmp_path),
            *more,
        ])
        return code, json.loads((tmp_path / f"gpu_{part}_tiny.json").read_text())

    return run


def test_speed_has_a_time_for_every_engine(tiny, monkeypatch):
    code, results = tiny("speed")
    runs = [key for key, cell in results["measured"].items() if isinstance(cell, dict) and "s_a_model" in cell]
    assert code == 0
    assert results["complete"]
    assert len(runs) == 8 + 2 + 8  # eight engines in both cases, and two whole runs of the long one
    assert all(results["measured"][key]["share_of_bf16_ceiling"] > 0 for key in runs)


def test_accuracy_goes_on_where_it_stopped(tiny):
    code, results = tiny("accuracy", "--minutes", "-1")
    assert (code, results["complete"], results["each"]) == (3, False, {})
    code, results = tiny("accuracy")
    assert (code, results["complete"], len(results["each"])) == (0, True, 8)
    case = results["cases"]["cifar-stem"]
    each = [[results["each"][f"cifar-stem {kind} {seed}"] for seed in (0, 1)] for kind in ("captured", "plain")]
    se = np.sqrt(sum(np.var(values, ddof=1) / 2 for values in each))
    assert case["difference"] == pytest.approx(np.mean(each[0]) - np.mean(each[1]))
    assert case["difference_se"] == pytest.approx(se)
    assert case["within_2_se"] == (abs(case["difference"]) <= 2 * se)
    assert tiny("accuracy")[1]["each"] == results["each"]


def test_scores_of_two_engines_are_compared_between_halves(tiny):
    _, results = tiny("scores")
    assert results["models"] == 8
    # in float32 and without a graph the other engine's models are all but these, so which engine makes no difference
    assert results["ratio"] == pytest.approx(1, abs=0.05)
    assert results["same_subsets_all_models"] < results["within_one_engine"] / 2


def test_a_bank_grows_over_two_commands_and_is_scored(tiny):
    _, first = tiny("bank", "--models", "4")
    code, second = tiny("bank", "--models", "10")
    assert (first["models"], second["models"], second["scored"]["models"]) == (4, 10, 10)
    assert code == 0
    assert second["commands"] == 2
    assert "memorization_k0.700" in second["scored"]["scores"]


def test_padding_makes_three_gray_channels_of_32_pixels(tmp_path):
    file = tmp_path / "made.npz"
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 28, 28), dtype=np.uint8)
    np.savez(file, train_images=images, train_labels=np.arange(3), test_images=images[:1], test_labels=np.arange(1))
    train, labels, test, _ = gpu_cases.padded(file)
    assert train.shape == (3, 3, 32, 32)
    assert labels.tolist() == [0, 1, 2]
    assert test.shape == (1, 3, 32, 32)
    assert all((train[:, channel, 2:30, 2:30] == images[:, 0]).all() for channel in range(3))
    assert train.sum() == 3 * images.sum(dtype=np.int64)
