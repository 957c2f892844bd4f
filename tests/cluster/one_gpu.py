"""A machine that says it has two CPUs and one GPU: who is hired for jobs that need it, and what they see.

Run in a process of its own: the tests' cluster has no GPU. Prints one line of JSON.
"""

import json

import ray

import cluster.ray_run
from cluster.ray_pool import RayPool
from cluster.search import Arm
from cluster.tuning import TuneSearch
from tests.cluster.jobs import Stack, fits_alone, gpu_and_share
from tests.cluster.judges import seen_gpu


def main() -> None:
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    pool = RayPool(gpus_per_worker=1)
    cluster.ray_run.ATTEMPTS = 1  # each costs the start of a worker
    jobs = [*(Stack((k,)) for k in range(6)), Stack((6, 7, 8, 9))]
    done = list(pool.run(fits_alone, jobs, shared={"images": [1, 2, 3]}))
    small, large = [fit for _, fit in done[:6]], done[6:]
    found = {
        "workers": pool.workers,
        "seen": sorted({seen for _, _, seen in small}),
        "processes": len({pid for pid, _, _ in small}),
        "copies": len({place for _, place, _ in small}),
        "parts": sorted(job.models for job, _ in large),
        "memory": pool.setbacks["memory"],
    }
    halves = RayPool(gpus_per_worker=0.5)
    found["halves"] = halves.workers
    found["share"] = sorted({outcome for _, outcome in halves.run(gpu_and_share, range(2))})
    told = []
    arm = Arm(name="a", space={"x": ("uniform", 0.0, 1.0)}, budget=2, job=None)
    TuneSearch(workers=2, gpus_per_worker=0.5).search(seen_gpu, [arm], None, lambda *said: told.append(said[2]["seen"]))
    found["searched"] = told
    print(json.dumps(found))  # ruff: ignore[print] - read by the test
    ray.shutdown()


if __name__ == "__main__":
    main()
