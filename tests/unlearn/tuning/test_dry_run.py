"""A dry run of a sweep or an experiment: what is missing, and nothing is written."""

from pathlib import Path

import pytest

from cluster.pool import SerialPool
from cluster.search import SerialSearch
from memscore.pipeline.network_times import NetworkTimes
from memscore.pipeline.work import Work
from tests.fixtures.sweeps import SCORE, make_config
from unlearn import experiment, sweep
from unlearn.tuning import dry_run
from unlearn.tuning.prepare import prepare_sweep

TIMES = NetworkTimes(
    step=Work(core_s=1.0),
    lone_step=Work(core_s=2.0, launches=10.0),
    trained_image=Work(core_s=0.25, flops=1e9),
    predicted_image=Work(core_s=0.0),
    batch=20,
    embedding=10,
    parameters=1000,
)
RUM = {"algorithms": ("finetune",), "variants": ("rum",), "scores": (SCORE,), "seeds": 1, "parts": 2}


def list_files(store):
    return {path.relative_to(store): path.stat().st_mtime_ns for path in Path(store).rglob("*") if path.is_file()}


@pytest.fixture
def fixed_times(monkeypatch):
    monkeypatch.setattr(dry_run, "time_network", lambda *_: TIMES)


def test_what_is_missing_is_what_a_sweep_then_trains_and_runs(store):
    prepared = prepare_sweep(make_config(store, **RUM))
    before, trials = prepared.count(), {path.name for path in Path(store, "trials").glob("*")}
    # of tuning and of the judged original: an original, its oracle, and of tuning that of the first part
    assert (before.originals, before.oracles, before.stored, before.assumed) == (0, 3, 0, True)
    # two configurations of the first part; of the second for each selection; the judged choices, and the references
    assert before.planned == 2 + 2 * 2 + 2 + 2
    prepared.run(SerialPool(), SerialSearch(), "cpu")
    after = prepared.count()
    assert (after.originals, after.oracles, after.assumed) == (0, 0, False)
    assert after.planned == after.stored <= before.planned
    # the references are rows of trials too, and so is doing nothing on the original of tuning
    assert len({path.name for path in Path(store, "trials").glob("*")} - trials) >= after.planned
    # an interrupted search: one of its results is lost
    lost = next(iter(Path(store, "attempts").rglob("*.json")))
    content = lost.read_bytes()
    lost.unlink()
    assert prepared.count().planned - prepared.count().stored >= 1
    lost.write_bytes(content)
    assert prepared.count().stored == after.stored


def test_work_is_counted_from_steps_and_images(store):
    fixed = ("finetune.epochs=3", "finetune.batch=256")
    prepared = prepare_sweep(make_config(store, algorithms=("finetune",), set=fixed, seeds=1, size=20))
    counts = prepared.count()
    cost = dry_run.estimate_sweeps(counts, prepared.context, times=TIMES)
    # all that is retained is one batch of 256, of 3 epochs, for each trial but the two references
    steps, images = 3, 3 * (len(prepared.context.splits.train) - 20)
    runs = counts.planned - 2
    assert cost.trials.flops == pytest.approx(runs * images * 1e9)
    assert cost.trials.launches == pytest.approx(runs * steps * 10)
    seconds = runs * (steps * 2.0 + images * 0.25) + counts.planned * dry_run.TRIAL_S
    assert cost.trials.core_s == pytest.approx(seconds)
    assert cost.models.core_s == pytest.approx(len(counts.models) * cost.model.core_s)
    assert sum(number for _, number, _ in cost.by_algorithm) == counts.planned


@pytest.mark.parametrize("forget", ["random", "canaries"])
def test_a_dry_run_of_a_sweep_writes_nothing(store, capsys, fixed_times, forget):
    before = list_files(store)
    words = [store, "--forget", forget, "--size", "12", "--algorithms", "finetune", "--dry-run", "--gpu", "a100"]
    assert sweep.main([*words, "--price", "2", "--name", f"dry-{forget[:5]}"]) == 0
    output = capsys.readouterr().out
    assert "nothing was trained or written" in output
    assert "A100" in output
    assert "H200" not in output
    assert " hours of A100 80 GB at 2" in output
    assert list_files(store) == before


def test_a_dry_run_of_an_experiment_adds_its_sweeps_and_names_what_is_not_counted(store, capsys, fixed_times):
    before = list_files(store)
    words = ["--size", "12", "--algorithms", "finetune", "salun", "--dry-run", "--seeds", "1", "--tunings", "1"]
    assert experiment.main(["rum", store, *words]) == 0
    output = capsys.readouterr().out
    assert "finetune" in output
    assert "GPU-hours" in output
    assert "not counted" not in output
    assert list_files(store) == before


def test_options_of_a_dry_run_without_one_are_refused(store, capsys):
    assert sweep.main([store, "--price", "2"]) == 2
    assert "error: --price 2.0 is of a dry run, which starts nothing; add --dry-run" in capsys.readouterr().err
    assert sweep.main([store, "--gpu", "h20", "--dry-run"]) == 2
    assert "did you mean 'h200'?" in capsys.readouterr().err
    assert sweep.main([store, "--price", "-1", "--dry-run"]) == 2
    assert "--price must be 0 or more and finite, got -1" in capsys.readouterr().err
