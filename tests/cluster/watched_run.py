"""A small cluster with a small estimate on it, one of whose workers is killed; says where its metrics are, then waits.

    python -m tests.cluster.watched_run FOLDER

Prints the session's folder, then the exit code of estimate; ends when its standard input does, so that the metrics of
the driver, which is this process, stay until they were read.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import ray

from memscore.estimate import main

NETWORK = """
import torch
from torch import nn

def network(shape, n_classes):
    first, last = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(512, n_classes)
    if torch.rand(()) < 0.2:
        nn.init.constant_(last.bias, float("nan"))
    return nn.Sequential(first, nn.ReLU(), nn.Flatten(), last)
"""
FLAGS = "--train-limit 400 --recipe digits --epochs 20 --design exact --block 8 --models 64 --originals 0"


def kill_a_worker(store: Path) -> None:
    """The one that said first that it has trained a model."""
    while not (found := sorted((store / "receipts").glob("[!.]*.json"))):
        time.sleep(0.05)
    pid = int(json.loads(found[0].read_text())["worker"].rpartition(":")[2])
    os.kill(pid, signal.SIGKILL)


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "fragile.py").write_text(NETWORK)
    sys.path.insert(0, str(folder))
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=True,  # it says where the metrics are
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": f"{folder}:{os.environ['PYTHONPATH']}"}},
    )
    say(ray._private.worker._global_node.get_session_dir_path())
    threading.Thread(target=kill_a_worker, args=[folder / "store"], daemon=True).start()
    say(main([*FLAGS.split(), "--arch", "fragile:network", "--store", str(folder / "store")]))
    sys.stdin.read()
    ray.shutdown()
