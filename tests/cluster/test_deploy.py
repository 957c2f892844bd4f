"""Deployment files: valid for their tools, protected by a token, and without a secret."""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "cluster" / "deploy"
FILES = {path.name: path.read_text() for path in DEPLOY.iterdir() if path.is_file()}
SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|secret_?key|password|auth_token\W+[\"']?[0-9a-f]{16}|BEGIN [A-Z ]*PRIVATE", re.IGNORECASE
)
KUBERAY = ["kuberay-job.yaml", "kuberay-cluster.yaml"]


def load_aws():
    return yaml.safe_load(FILES["aws.yaml"])


def load_spec(name):
    content = yaml.safe_load(FILES[name])
    return content["spec"]["rayClusterSpec"] if content["kind"] == "RayJob" else content["spec"]


def list_groups(name):
    spec = load_spec(name)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".json")])
def test_a_file_opens_with_the_command_that_applies_it(name):
    first = FILES[name].splitlines()[0]
    assert re.match(rf"# (ray up|kubectl apply -f|bash|docker build -f) cluster/deploy/{re.escape(name)}\b", first)


@pytest.mark.parametrize("name", FILES)
def test_no_file_has_a_secret(name):
    assert not SECRET.search(FILES[name])


def test_the_launcher_s_file_is_of_the_schema_that_ray_ships():
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(load_aws(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(load_aws() | {"max_worker": 3}, schema)


def test_ray_s_launcher_takes_the_file_once_its_defaults_are_in():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(load_aws())
    validate_config(config)
    assert config["available_node_types"]["spot-worker"]["node_config"]["InstanceMarketOptions"] == {
        "MarketType": "spot"
    }
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in config["available_node_types"]["head"]["node_config"]


def test_the_launcher_s_cluster_is_guarded_on_every_node():
    config = load_aws()
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    started = [line for line in starts if "ray start" in line]
    assert len(started) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in started)
    assert "--dashboard-host=127.0.0.1" in started[0]
    assert config["file_mounts"] == {"/home/ubuntu/.ray/auth_token": "~/.ray/auth_token"}


def test_the_launcher_s_nodes_get_all_that_memscore_needs_and_this_ray():
    needed = {
        re.split(r"[\[><=]", line)[0]
        for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    }
    words = " ".join(load_aws()["setup_commands"])
    assert {name for name in needed if not re.search(rf"[ \"]{name}\b", words)} == set()
    assert f"=={ray.__version__}" in words


@pytest.mark.parametrize("name", KUBERAY)
def test_a_manifest_is_one_that_kuberay_knows(name):
    content = yaml.safe_load(FILES[name])
    assert content["apiVersion"] == "ray.io/v1"
    assert content["kind"] == {"kuberay-job.yaml": "RayJob", "kuberay-cluster.yaml": "RayCluster"}[name]
    assert content["metadata"]["name"] == "memscore"
    spec = load_spec(name)
    assert spec["rayVersion"] == ray.__version__
    assert spec["authOptions"] == {"mode": "token", "secretName": "memscore-token"}
    assert "create secret generic memscore-token --from-literal=auth_token=" in FILES[name]
    [workers] = spec["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    if content["kind"] == "RayJob":
        assert content["spec"]["shutdownAfterJobFinishes"]
        assert content["spec"]["backoffLimit"] == 3
        assert content["spec"]["entrypoint"].startswith("python -m memscore.estimate")


@pytest.mark.parametrize("name", KUBERAY)
def test_every_pod_has_the_store_its_resources_and_an_end(name):
    for group in list_groups(name):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment["MEMSCORE_HOME"].startswith("s3://")
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}
        assert pod["restartPolicy"] == "Never"
        assert pod["securityContext"]["runAsNonRoot"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_image_is_the_one_that_the_manifests_name_and_holds_the_three_packages():
    lines = FILES["Dockerfile"].splitlines()
    image = lines[0].split(" -t ")[1].split()[0]
    for name in KUBERAY:
        assert {group["template"]["spec"]["containers"][0]["image"] for group in list_groups(name)} == {image}
    [base] = [line for line in lines if line.startswith("FROM")]
    assert f"ray:{ray.__version__}-py311" in base
    copied = {line.split()[-2] for line in lines if line.startswith("COPY --chown=ray ") and "pyproject" not in line}
    assert copied == {"memscore", "unlearn", "cluster"}


def run_local_script(*arguments, **environment):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(DEPLOY / "local.sh"), *arguments],
        env=plain | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("arguments", [[], ["sideways"]])
def test_the_local_script_prints_its_usage(arguments):
    done = run_local_script(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: bash cluster/deploy/local.sh up [NODES] [CPUS]")


@pytest.mark.parametrize(
    ("arguments", "message"), [(["up", "0"], "NODES must be 1 or more, got 0"), (["up", "1", "x"], "CPUS")]
)
def test_the_local_script_refuses_what_cannot_be(arguments, message):
    done = run_local_script(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "head"])
def test_the_local_script_opens_no_dashboard_without_a_token(host, tmp_path):
    done = run_local_script("up", DASHBOARD_HOST=host, RAY_AUTH_MODE="disabled", HOME=str(tmp_path))
    assert done.returncode == 2
    assert f"a dashboard on {host} with RAY_AUTH_MODE=disabled lets whoever reaches it run code here" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def fake_ray(tmp_path):
    """A PATH whose ray starts nothing, and writes down what it was asked for; skipped where a dashboard runs."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8265)) == 0:
            pytest.skip("port 8265 is in use")
    (tmp_path / "bin").mkdir()
    ray_script = tmp_path / "bin" / "ray"
    ray_script.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/asked\n')
    ray_script.chmod(0o755)
    return f"{tmp_path / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("exists", [False, True])
def test_up_makes_a_token_file_that_is_missing_and_protects_one_that_is_there(fake_ray, exists, tmp_path):
    token = tmp_path / "keys" / "token"
    if exists:
        token.parent.mkdir()
        token.write_text("0123456789abcdef" * 4)
        token.chmod(0o644)
    done = run_local_script("up", "1", "1", PATH=fake_ray, RAY_PORT="64124", RAY_AUTH_TOKEN_PATH=str(token))
    assert (done.returncode, done.stderr) == (0, "")
    assert token.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}", token.read_text())
    assert (token.read_text() == "0123456789abcdef" * 4) == exists
    assert (tmp_path / "asked").read_text().startswith("start --head --port 64124")


def test_up_says_where_a_token_cannot_be_written_and_starts_nothing(fake_ray, tmp_path):
    (tmp_path / "file").touch()
    done = run_local_script("up", PATH=fake_ray, RAY_PORT="64124", RAY_AUTH_TOKEN_PATH=str(tmp_path / "file" / "token"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: the token cannot be written to {tmp_path}/file/token; give another RAY_AUTH_TOKEN_PATH, or make its "
        "folder writable\n"
    )
    assert not (tmp_path / "asked").exists()


def test_down_stops_what_up_started_and_nothing_else():
    """Processes stand for Ray's: all that `up` starts have the mark in their environment."""
    mark, port = "MEMSCORE_LOCAL_CLUSTER", "64123"
    marks = {"own": {mark: f"{os.getuid()}:{port}"}, "other port": {mark: f"{os.getuid()}:6379"}, "unmarked": {}}
    processes = {name: subprocess.Popen(["sleep", "60"], env=os.environ | extra) for name, extra in marks.items()}
    try:
        # a parent that waits: a process that has ended and was not waited for has no environment any more
        done = run_local_script("down", RAY_PORT=port)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("stopped 1 processes")
        assert processes["own"].wait(10) == -15
        assert [processes[name].poll() for name in ("other port", "unmarked")] == [None, None]
        assert run_local_script("down", RAY_PORT=port).stdout.startswith("nothing to stop")
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
