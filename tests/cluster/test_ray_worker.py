"""The worker of a pool without its process."""

import logging
from types import SimpleNamespace

import cloudpickle
import pytest

from tests.cluster.test_device_errors import BREAKS, NEITHER, SHORTAGES
from tests.fixtures import jobs, objectives


@pytest.fixture
def ray_worker(monkeypatch):
    from cluster import ray_worker

    context = SimpleNamespace(get_node_id=lambda: "node", get_accelerator_ids=lambda: {"GPU": ["1", "0"]})
    monkeypatch.setattr(
        ray_worker, "ray", SimpleNamespace(cloudpickle=cloudpickle, get_runtime_context=lambda: context)
    )
    return ray_worker


@pytest.mark.parametrize("error", [*SHORTAGES, *BREAKS, *NEITHER], ids=str)
def test_the_driver_is_told_whether_memory_ran_out_or_the_gpu_is_lost(ray_worker, error):
    reported = ray_worker.make_remote_error(error)
    assert (reported.gpu_memory, reported.broken_gpu) == (error in SHORTAGES, error in BREAKS)
    assert reported.error.startswith(type(error).__name__)


@pytest.mark.parametrize(
    ("gpus", "gpu_variables"), [(0, {"CUDA_VISIBLE_DEVICES": ""}), (1, {}), (0.25, {"MEMSCORE_GPU_SHARE": "0.25"})]
)
def test_a_worker_uses_one_cpu_and_its_gpus_only(ray_worker, gpus, gpu_variables):
    assert ray_worker.make_worker_environment(gpus) == gpu_variables | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }


def test_a_worker_that_serves_several_runs_sends_each_warning_once(ray_worker):
    sent = []
    buffer = SimpleNamespace(put=SimpleNamespace(remote=lambda kind, text: sent.append(text)))
    worker = ray_worker.Worker("w", cloudpickle.dumps(jobs.double), None, buffer)
    logger = logging.getLogger("tests")
    try:
        info = worker.start()
        worker.start()
        worker.switch_run(cloudpickle.dumps(objectives.square), None)
        logger.warning("cannot write")
    finally:
        logger.removeHandler(worker.handler)
    assert len(sent) == 1
    assert (info.node, info.gpus) == ("node", ("0", "1"))
    assert info.label.startswith("w on host ")
    assert info.label.endswith(", GPU 0, 1,")
