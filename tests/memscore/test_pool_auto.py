"""`python -m memscore.estimate` without --pool: a small bank is trained in this process, and Ray is not imported."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from cluster import launch
from cluster.auto_pool import AutoPool
from cluster.session import ClusterLost
from tests.fixtures.command import RAY, ROOT, SERIAL, contents, here, receipts

FLAGS = (
    "--train-limit 100 --epochs 1 --design exact --block 4 --originals 1 --arch cnn-4-8 --recipe digits --device cpu"
)

SMALL_RUN = """
import sys
from memscore.estimate import main
code = main(sys.argv[1:])
print("ray" in sys.modules, code)
"""


@pytest.fixture(autouse=True)
def outside_of_clusters(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def read_workers(store):
    """The process that trained each model."""
    return {name: json.loads(text)["worker"] for name, text in receipts(store).items()}


def switch_at_once(monkeypatch):
    """Let the first job show that the rest takes too long."""
    monkeypatch.setattr(launch, "SWITCH_FACTOR", 0.0)
    monkeypatch.setattr("cluster.auto_pool.START_S", 0.0)


def test_a_small_bank_is_trained_without_ray_and_a_line_says_why(tmp_path):
    arguments = [*FLAGS.split(), "--models", "4", "--store", str(tmp_path / "bank")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", SMALL_RUN, *arguments],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False 0", done.stderr
    assert " s on one core: in this process; --pool ray for workers\n" in done.stderr
    assert len(set(read_workers(tmp_path / "bank").values())) == 1


def build_failing(shape, classes):
    """A network of which batches of more than one image cannot be trained; named as "module:function"."""
    from torch import nn

    class Failing(nn.Sequential):
        def forward(self, images):
            if self.training and len(images) > 1:
                raise ArithmeticError("always bad")
            return super().forward(images)

    return Failing(nn.Flatten(), nn.Linear(64, classes))


def test_a_network_that_cannot_be_trained_has_no_forecast_and_goes_to_workers(tmp_path, capsys, caplog, monkeypatch):
    flags = f"{FLAGS.replace('cnn-4-8', f'{__name__}:build_failing')} --models 4 --store {tmp_path / 'bank'}"
    code, output = here(f"{flags} --dry-run", capsys)
    line = f"timing a few steps of {__name__}:build_failing failed: ArithmeticError: always bad"
    assert code == 2
    assert f"error: {line}\n" in output
    assert caplog.messages == [line]
    opened = []
    monkeypatch.setattr(launch, "open_ray_pool", lambda options: opened.append(options) or no_cluster())
    code, output = here(flags, capsys)
    assert "Ray workers; --pool serial for this process\n" in output
    assert opened
    assert "no workers (ClusterLost: no cluster in this test); going on in this process\n" in output
    assert "always bad" in output


@contextmanager
def no_cluster():
    raise ClusterLost("no cluster in this test")
    yield


def test_a_large_bank_is_planned_for_ray_workers(tmp_path, capsys):
    flags = FLAGS.replace("--epochs 1 ", "--epochs 100000 ")
    code, output = here(f"{flags} --models 4000 --dry-run --store {tmp_path / 'bank'}", capsys)
    assert code == 0
    assert "s or more on one core: in " in output
    assert "Ray workers; --pool serial for this process\n" in output
    assert f"with {os.cpu_count()} workers" in output
    code, output = here(f"{FLAGS} --models 4 --dry-run --store {tmp_path / 'bank'}", capsys)
    assert code == 0
    assert "with 1 worker," in output


def test_where_ray_does_not_start_the_bank_is_finished_in_this_process(tmp_path, monkeypatch, capsys):
    def fail(**options):
        raise ClusterLost("Ray could not start on this machine")

    switch_at_once(monkeypatch)
    monkeypatch.setattr(launch, "connect", fail)
    code, output = here(f"{FLAGS} --models 4 --store {tmp_path / 'bank'}", capsys)
    assert code == 0
    assert "starting Ray workers for them" in output
    assert "no workers (ClusterLost: Ray could not start on this machine); going on in this process" in output
    assert len(set(read_workers(tmp_path / "bank").values())) == 1


@pytest.mark.ray
def test_a_bank_that_began_here_goes_on_in_workers_with_the_same_bytes(tmp_path, monkeypatch, ray_cluster, capsys):
    """Serial alone, switched in the middle, and resumed with Ray after a serial beginning."""
    code, output = here(f"{FLAGS} {SERIAL} --models 12 --store {tmp_path / 'serial'}", capsys)
    assert code == 0, output
    assert here(f"{FLAGS} --models 4 --store {tmp_path / 'resumed'}", capsys)[0] == 0
    assert here(f"{FLAGS} {RAY} --models 12 --store {tmp_path / 'resumed'}", capsys)[0] == 0
    assert len(set(read_workers(tmp_path / "resumed").values())) > 1

    pools = []

    class Watched(AutoPool):
        def __exit__(self, *error):
            pools.append((self.workers, self.busy, dict(self.setbacks)))
            super().__exit__(*error)

    switch_at_once(monkeypatch)
    monkeypatch.setattr(launch, "AutoPool", Watched)
    code, output = here(f"{FLAGS} --models 12 --store {tmp_path / 'switched'}", capsys)
    assert code == 0
    # the original and a model were trained here, the first of each kind
    assert "11 jobs are left and take about" in output
    workers = read_workers(tmp_path / "switched")
    assert sum(worker.endswith(f":{os.getpid()}") for worker in workers.values()) == 2
    assert len(workers) == 14  # with the original and its proxy
    for name in ("resumed", "switched"):
        assert contents(tmp_path / name) == contents(tmp_path / "serial")
    # progress is that of the workers from then on
    assert pools == [(2, 0, {})]
    assert "models 12/12" in output
    assert json.loads((tmp_path / "switched" / "progress.json").read_text())["workers"] == 2
