"""Two nodes, one of which goes with its worker; says what the pool or the search made of it. Run as a process."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from threading import Thread

import ray
from ray.cluster_utils import Cluster

from cluster.ray_pool import RayPool
from cluster.search import Arm
from cluster.tuning import TuneSearch
from tests.cluster.jobs import note_node_and_sleep
from tests.cluster.judges import where_it_began

STORE = 100 * 2**20


def lose(cluster: Cluster, mark: Path, fault: str) -> None:
    """Kill the node that the slow job is on, or only its worker."""
    while not mark.exists():
        time.sleep(0.05)
    node_id, pid = mark.read_text().split()
    if fault == "node":
        node = next(node for node in cluster.list_all_nodes() if node.node_id == node_id)
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
    os.kill(int(pid), signal.SIGKILL)


def pooled(pool: RayPool, folder: str) -> dict[str, str]:
    """Job -> what it said."""
    return dict(pool.run(note_node_and_sleep, ["slow", *(f"quick{k}" for k in range(20))], shared=folder))


def searched(search: TuneSearch, folder: str) -> dict[str, str]:
    """Value -> what was said of it."""
    outcomes = {}

    def told(arm, values, outcome):
        outcomes[str(values["k"])] = outcome["said"]

    arm = Arm(name="a", space={"k": ("whole", 0, 9)}, budget=10, job=folder, first=[{"k": 0}])
    search.search(where_it_began, [arm], None, told)
    return outcomes


def main(folder: str, fault: str, kind: str = "pool") -> None:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    Thread(target=lose, args=(cluster, Path(folder) / "slow.mark", fault), daemon=True).start()
    crew = TuneSearch(workers=None) if kind == "search" else RayPool()
    before = crew.workers
    outcomes = searched(crew, folder) if isinstance(crew, TuneSearch) else pooled(crew, folder)
    after = crew.workers
    ray.shutdown()
    cluster.shutdown()
    said = {"outcomes": outcomes, "setbacks": crew.setbacks, "before": before, "after": after}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
