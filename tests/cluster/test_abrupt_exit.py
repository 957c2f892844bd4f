"""A command that Ray ends still prints one line; one that ends by itself prints nothing."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from cluster import session
from cluster.pool import ClusterLost
from memscore.cli.app import run_command
from tests.conftest import ROOT, TOKEN

ENDING = """
import os, sys
from cluster.session import message_on_abrupt_exit
try:
    with message_on_abrupt_exit("the end came early"):
        exec(sys.argv[1])
except ValueError:
    pass
"""

SLEEPER = """
import sys
from cluster.launch import PoolOptions, open_ray_pool
from tests.fixtures.jobs import note_node_and_sleep
with open_ray_pool(PoolOptions(workers=1, device="cpu")) as session:
    list(session.pool.run(note_node_and_sleep, ["slow"], shared=sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("statement", "code", "message"),
    [
        ("pass", 0, ""),
        ("raise ValueError('reported elsewhere')", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("os._exit(1)", 1, "the end came early\n"),
        ("os.kill(os.getpid(), 9)", -9, "the end came early\n"),
    ],
)
def test_the_message_is_for_a_process_that_is_ended(statement, code, message):
    done = subprocess.run(
        [sys.executable, "-c", ENDING, statement],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, message)


def test_ray_that_cannot_start_is_one_line_and_exit_code_1(monkeypatch, tmp_path, capfd):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(Exception("some of\nthe raylet")))
    assert run_command(lambda: session.connect(address="local").__enter__()) == 1
    err = capfd.readouterr().err
    assert err == (
        "error: Ray could not start on this machine (Exception: some of the raylet); run the same command again, or "
        "use --pool serial, which needs no Ray\n"
    )


def test_an_error_of_ray_s_own_is_one_line_and_exit_code_1(monkeypatch, tmp_path, capfd):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: SimpleNamespace(dashboard_url=""))
    monkeypatch.setattr(ray, "shutdown", lambda: None)

    def command():
        with session.connect(address="local"):
            raise ray.exceptions.RaySystemError("the GCS\nis gone")

    assert run_command(command) == 1
    err = capfd.readouterr().err
    assert err.startswith("error: Ray failed (RaySystemError: ")
    assert err.endswith("the GCS is gone); what is finished is kept: run the same command again\n")
    with pytest.raises(ClusterLost):
        command()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("agent", ["ray::RuntimeEnvAgent", "ray::DashboardAgent", "raylet"])
def test_a_killed_process_of_ray_s_ends_the_command_with_one_line_and_1(agent, tmp_path):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(tmp_path)],
        env=plain | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN": TOKEN},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        while not (tmp_path / "slow.mark").exists():
            assert command.poll() is None
            time.sleep(0.05)
        os.kill(find_descendant(command.pid, agent), signal.SIGKILL)
        _, err = command.communicate(timeout=90)
    finally:
        command.kill()
    assert command.returncode == 1
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert lines == [session.ABRUPT_EXIT_MESSAGE]


def find_descendant(pid, name):
    """Return the id of the process below `pid` that has this name."""
    done = subprocess.run(["ps", "-eww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    below, grew = {str(pid)}, True
    while grew:
        more = {row[0] for row in rows if row[1] in below} - below
        below, grew = below | more, bool(more)
    return next(int(row[0]) for row in rows if row[0] in below and row[2].split()[0].endswith(name))
