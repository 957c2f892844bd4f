"""--until-rmse through the command: no more than needed, the same after a stop, continued for a smaller error."""

import json
import re
import shutil

import numpy as np
import pytest

from memscore.estimators.memorization_blend import estimate_blend
from memscore.pipeline import train_bank
from memscore.statistics.reliability import draw_arm_halves
from memscore.store.store import Store
from tests.fixtures.command import RAY, SERIAL, contents, here, receipts, refused, shards

pytestmark = pytest.mark.usefixtures("home")

ARM = "exact-k0.500-b8"
FLAGS = f"--train-limit 200 --epochs 2 --design exact --block 8 --originals 0 {SERIAL}"


def fit(folder, models):
    """The blend of the bank's first models, measured between halves of its blocks."""
    columns = next(Store.open(folder).read_blocks(ARM, range(models), ["correct", "gap", "member"])).columns
    halves = draw_arm_halves(0, ARM, np.arange(models) // 8)
    return estimate_blend(columns["correct"], columns["gap"], columns["member"], halves, has_blocks=True)[1]


def measured(folder, models):
    """The bank's error from its first models."""
    return fit(folder, models).rmse


@pytest.fixture(scope="module")
def reached(tmp_path_factory):
    """A bank that stopped by itself; read only."""
    from memscore.estimate import main

    store = tmp_path_factory.mktemp("until") / "s"
    assert main(f"{FLAGS} --until-rmse 0.07 --store {store}".split()) == 0
    return store


def test_it_stops_where_the_measured_error_is_small_enough_and_not_a_step_later(reached):
    models = len(shards(reached))
    assert models % 32 == 0
    assert models > 32
    assert measured(reached, models) <= 0.07 < measured(reached, models - 32)
    [planned] = json.loads((reached / "reports" / "summary.json").read_text())["planned"]
    assert planned["rmse"] == pytest.approx(measured(reached, models), rel=1e-10)
    assert planned["planned_from"] == 32
    assert planned["more"] is None
    assert planned["rmse_predicted"] == pytest.approx(fit(reached, 32).predict_rmse(32 / models), rel=1e-6)
    assert (planned["score"], planned["planned_score"]) == ("memorization_blend", "memorization_blend")


def test_the_same_again_trains_nothing_and_a_smaller_error_continues(reached, tmp_path, capsys):
    store = tmp_path / "s"
    flags = f"{FLAGS} --store {store}"
    assert here(f"{flags} --until-rmse 0.1", capsys)[0] == 0
    early = shards(store)
    assert 32 < len(early) < len(shards(reached))
    assert here(f"{flags} --until-rmse 0.07", capsys)[0] == 0
    assert contents(store) == contents(reached)
    receipts_before = receipts(store)
    code, output = here(f"{flags} --until-rmse 0.07", capsys)
    assert code == 0
    assert receipts(store) == receipts_before
    assert "an hour" not in output


def test_after_a_stop_it_ends_where_it_would_have(reached, tmp_path, monkeypatch, capsys):
    flags = f"{FLAGS} --until-rmse 0.07 --store {tmp_path / 's'}"
    run_job, done = train_bank.run_job, []

    def stop_at_third(job, shared):
        done.append(job)
        if len(done) == 3:
            raise KeyboardInterrupt
        return run_job(job, shared)

    monkeypatch.setattr(train_bank, "choose_models_per_job", lambda store, device: 20)  # two blocks of 8 a job
    with monkeypatch.context() as patch:
        patch.setattr(train_bank, "run_job", stop_at_third)
        assert here(flags, capsys)[0] == 130
    assert [job.models for job in done] == [tuple(range(16)), tuple(range(16, 32)), tuple(range(32, 48))]
    assert len(shards(tmp_path / "s")) == 32
    assert here(flags, capsys)[0] == 0
    assert contents(tmp_path / "s") == contents(reached)


def test_a_maximum_holds_and_the_models_needed_are_printed(tmp_path, capsys):
    code, output = here(f"{FLAGS} --until-rmse 0.01 --models 40 --store {tmp_path / 's'}", capsys)
    assert code == 1
    assert len(shards(tmp_path / "s")) == 40
    assert (tmp_path / "s" / "scores.parquet").exists()
    output = " ".join(output.split())
    assert "until the RMSE of memorization_blend is 0.01, at most 40 models" in output
    blend = fit(tmp_path / "s", 40)
    match = re.search(
        rf"not reached --until-rmse 0\.01: RMSE of memorization_blend \(between blocks\) {blend.rmse:.4f} with 40 "
        r"models; about (\d+) are needed; give --models \1 or leave it out\. .* exit code is 1",
        output,
    )
    more = int(match[1])
    assert blend.predict_rmse(40 / more) <= 0.01 < blend.predict_rmse(40 / (more - 8))


def test_without_a_target_default_errors_are_forecast_and_checked(tmp_path, capsys):
    code, output = here(f"{FLAGS} --models 48 --store {tmp_path / 's'}", capsys)
    assert code == 0
    first, error = fit(tmp_path / "s", 32), measured(tmp_path / "s", 48)
    name = "RMSE of memorization_blend (between blocks)"
    assert f"{ARM}: {name} {first.rmse:.4f} with 32 models; others with 1 worker" in output
    for target in (0.05, 0.03, 0.02):
        match = re.search(rf"{target} +(\d+) +[0-9.]+ [a-z]+ +([0-9.]+) (k|M)B", output)
        models, disk = int(match[1]), float(match[2]) / (1000 if match[3] == "k" else 1)
        assert first.predict_rmse(32 / models) <= target < first.predict_rmse(32 / (models - 8))
        of_48 = sum(path.stat().st_size for path in (tmp_path / "s" / "shards").iterdir()) / 1e6
        assert disk == pytest.approx(of_48 * models / 48, rel=0.05)  # shards differ a little in size
    predicted = f"RMSE of memorization_blend (forecast from 32 models) {first.predict_rmse(32 / 48):.4f}"
    assert f"forecast k0.500, 48 models: {predicted}; measured: {name} {error:.4f}" in " ".join(output.split())
    code, output = here(f"{FLAGS} --models 8 --store {tmp_path / 's'}", capsys)
    assert "the forecast from" not in output  # fewer models than a forecast needs


def test_a_block_that_lost_a_model_is_shown_as_unfinished(tmp_path, capsys):
    flags = f"{FLAGS} --store {tmp_path / 's'}"
    assert here(f"{flags} --models 24", capsys)[0] == 0
    (tmp_path / "s" / "shards" / f"{ARM}-00020.parquet").unlink()
    code, output = here(f"{flags} --models 16", capsys)
    assert code == 0
    assert "7 of them in unfinished blocks, which help less" in " ".join(output.split())


def test_models_that_cannot_be_trained_end_it(tmp_path, capsys):
    line = refused(*here(f"{FLAGS} --until-rmse 0.01 --lr 1e30 --store {tmp_path / 's'}", capsys))
    assert "every model diverged" in line
    assert len(receipts(tmp_path / "s")) == 32


@pytest.mark.ray
def test_every_run_of_the_pool_has_the_same_workers(reached, ray_cluster, tmp_path, capsys):
    flags = FLAGS.replace(SERIAL, RAY).replace("--workers 2", "--workers 1")
    assert here(f"{flags} --until-rmse 0.07 --store {tmp_path / 's'}", capsys)[0] == 0
    assert contents(tmp_path / "s") == contents(reached)
    assert len({json.loads(text)["worker"] for text in receipts(tmp_path / "s").values()}) == 1


@pytest.mark.parametrize(("flags", "line"), [
    ("--models 100000 --until-rmse 0.1", r"--models must be at most 99999, got 100000"),
    ("--until-rmse 1e-200", r"--until-rmse must lie between 0\.0001 and 1, got 1e-200"),
    ("--until-rmse 0", r"--until-rmse must lie between 0\.0001 and 1, got 0\.0"),
    ("--until-rmse 0.02 --preset cscore", r"trains one arm, and --preset cscore has 9; give a --keep"),
    ("--until-rmse 0.02 --models 12", r"whole blocks of 8 models, got 12"),
])  # fmt: skip
def test_an_impossible_option_is_one_line(flags, line, tmp_path, capsys):
    base_flags = FLAGS.replace("--design exact --block 8", "") if "cscore" in flags else FLAGS
    assert re.search(line, refused(*here(f"{base_flags} {flags} --store {tmp_path / 's'}", capsys)))


def test_a_dry_run_is_of_the_first_models(tmp_path, capsys):
    code, output = here(f"{FLAGS} --until-rmse 0.01 --dry-run --store {tmp_path / 's'}", capsys)
    assert code == 0
    assert "32 of 32 models" in output
    assert "what the requested RMSE takes is known after these first models" in output


def test_a_dry_run_on_a_bank_with_its_first_models_is_of_the_forecast(reached, tmp_path, capsys):
    store = tmp_path / "s"
    shutil.copytree(reached, store)
    code, output = here(f"{FLAGS} --until-rmse 0.02 --dry-run --store {store}", capsys)
    assert code == 0
    assert "known after these first models" not in output
    [todo] = re.findall(r"to do +(\d+) of (\d+) models", output)
    assert int(todo[1]) > 32


def test_an_undefined_error_is_shown_as_not_reached(tmp_path, capsys):
    flags = FLAGS.replace("--design exact --block 8", "--design iid")
    code, output = here(f"{flags} --models 3 --until-rmse 0.1 --store {tmp_path / 's'}", capsys)
    assert code == 1
    line = "not reached --until-rmse 0.1: RMSE of memorization (independent models) undefined with 3 models; no example"
    assert line in " ".join(output.split())
