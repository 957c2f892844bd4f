"""Two nodes on this machine and what a user does with them, in a network and mounts of their own.

`ray stop` ends every Ray process that it sees, and one node must not see the other's files; so all of it runs in
namespaces, which only root may make.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALONE = ["unshare", "-n", "-p", "-f", "-m", "--mount-proc"]
SMALL = "--train-limit 200 --epochs 2 --design exact --block 8 --models 16 --originals 1"

BEGIN = """
set -u
ip link set lo up
mkdir -p /tmp/ray /tmp/ray-0-node2
for folder in /tmp/ray /tmp/ray-0-node2; do mount -t tmpfs tmpfs $folder; done
cd {root}
"""

LOCAL = """
bash cluster/deploy/local.sh up 2 1
stat -c 'token file %a' ~/.ray/auth_token
python -m memscore.submit --wait -- python -m memscore.estimate {small}; echo "first: $?"
ls ~/memscore/*/scores.parquet
python -m memscore.submit --wait -- python -m memscore.estimate {small}; echo "second: $?"
python -m memscore.submit -- python -m memscore.estimate --models 7; sleep 1
python -m memscore.submit --id once -- true; python -m memscore.submit --id once -- true; echo "used: $?"
RAY_AUTH_TOKEN=0123 python -m memscore.submit -- true; echo "wrong: $?"
export RAY_AUTH_MODE=token RAY_ADDRESS=http://127.0.0.1:8265
ray job submit --working-dir . -- python -m memscore.estimate {small}; echo "plain: $?"
bash cluster/deploy/local.sh down
"""

SEPARATE_STORES = """
bash cluster/deploy/local.sh up 1 1
export RAY_AUTH_MODE=token
unshare -m bash -c 'mkdir -p ~/memscore && mount -t tmpfs tmpfs ~/memscore &&
  ray start --address 127.0.0.1:6379 --num-cpus 1 --object-store-memory 100000000 --temp-dir /tmp/ray-0-node2' \
  > /dev/null
python -m memscore.estimate --address 127.0.0.1:6379 {small}; echo "blind: $?"
ls ~/memscore/*/shards
python -m memscore.estimate --address 127.0.0.1:6379 {small} --store ~/shared; echo "shared: $?"
ls ~/shared/scores.parquet
python -c 'if True:
    import sys, ray, time
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    @ray.remote(num_cpus=1)
    class Greedy:
        def here(self): return 1
    held = [Greedy.remote() for _ in range(2)]
    ray.get([one.here.remote() for one in held])
    print("held", flush=True)
    time.sleep(25)' & sleep 8
python -m memscore.estimate --address 127.0.0.1:6379 {small} --store ~/later; echo "full: $?"
bash cluster/deploy/local.sh down
"""


@pytest.fixture
def shell(tmp_path):
    """Run a script in namespaces, with a short home of its own; gives all its output."""
    if os.geteuid() or subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root, for namespaces")

    def run(script):
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MEMSCORE_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [*ALONE, "bash", "-c", (BEGIN + script).format(root=ROOT, small=SMALL)],
            env=plain | {"HOME": str(tmp_path), "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
            check=False,
        )
        return done.stdout

    return run


@pytest.mark.ray
@pytest.mark.slow
def test_a_local_cluster_takes_jobs_keeps_their_stores_and_refuses_the_rest(shell, tmp_path):
    output = shell(LOCAL)
    assert "token file 600" in output
    assert "first: 0" in output, output
    [store] = (tmp_path / "memscore").iterdir()
    assert f"store  {store} on host " in output  # outside the job's folder, which goes with the session
    assert f"{store}/scores.parquet" in output
    assert "-1: SUCCEEDED" in output
    assert "-2: SUCCEEDED" in output
    assert output.count("16 models and 1 original in ") == 1  # the second attempt trained nothing
    assert "second: 0" in output
    assert "error: the submission id once was used before, and its job has " in output
    assert "used: 2" in output
    assert "refuses the token; RAY_AUTH_TOKEN or ~/.ray/auth_token must hold that of its head node" in output
    assert "wrong: 2" in output
    assert "plain: 0" in output
    assert output.strip().endswith("stopped")


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_that_does_not_see_the_store_and_a_full_cluster_are_said_before_training(shell, tmp_path):
    output = shell(SEPARATE_STORES)
    assert f"error: the store {tmp_path}/memscore/digits-" in output, output
    assert " cannot be used from 1 of the cluster's nodes (" in output
    assert "not visible there); use a path that every node shares, or s3://" in output
    assert "blind: 2" in output
    assert list((tmp_path / "memscore").iterdir()) == []  # refused before it was begun
    assert "shared: 0" in output
    assert "the cluster is full: 0 of 2 CPUs are free; held: 2 by job " in output
    assert "full: 0" in output  # it went on once they were free
