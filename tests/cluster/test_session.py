"""Start a cluster, join one, and leave it running."""

import json
import platform
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from cluster import auth, preflight, session

pytestmark = pytest.mark.ray

START = """
import json, os
from cluster.launch import PoolOptions, open_ray_pool
from cluster.session import connect, count_gpus
from tests.fixtures.jobs import double
with connect(workers=1) as url, open_ray_pool(PoolOptions(device="cpu")) as session:
    pool = session.pool
    report = {"url": url, "workers": pool.workers, "outcomes": list(pool.run(double, [4])), "gpus": count_gpus()}
import ray
print(json.dumps(report | {"mode": os.environ["RAY_AUTH_MODE"], "left": not ray.is_initialized()}))
"""

JOIN = """
import sys
from cluster.launch import PoolOptions, open_ray_pool
assert "ray" not in sys.modules
with open_ray_pool(PoolOptions(device="cpu")) as session:
    print(session.pool.workers)
"""

LATE = """
import ray
from cluster.session import connect
try:
    with connect():
        print("joined")
except ConnectionError as error:
    print(error)
"""

REFUSED = """
import sys, time
from cluster.session import connect
began = time.monotonic()
try:
    with connect(sys.argv[1]):
        print("joined")
except (ConnectionError, ValueError) as error:
    print(f"{time.monotonic() - began:.0f} {type(error).__name__} {error}")
"""


OPEN = """
import json, os, subprocess, sys
import ray
ray.init(address="local", num_cpus=1, num_gpus=0, include_dashboard=False, object_store_memory=100 * 2**20)
address = ray.get_runtime_context().gcs_address
others = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
joining = [sys.executable, "-c", sys.argv[1], address]
modes = {}, {"RAY_AUTH_MODE": "disabled"}
outputs = [subprocess.check_output(joining, env=others | mode, text=True) for mode in modes]
print(json.dumps([text.strip().splitlines()[-1] for text in outputs]))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return tmp_path


@contextmanager
def run_head_node(*, anybody):
    """Replaces a cluster's head node: it answers everybody, or refuses requests without a token."""

    def answer(request, context):
        return b"" if anybody else context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")

    service, _, method = preflight.CHECK_ALIVE_METHOD[1:].partition("/")
    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {method: grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


def get_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_without_an_address_a_cluster_is_started_protected_and_stopped(run_alone, tmp_path):
    report = json.loads(run_alone("-c", START, token=""))
    import ray

    has = ray._private.accelerators.NvidiaGPUAcceleratorManager.get_current_node_num_accelerators()
    assert report == {"url": None, "workers": 1, "outcomes": [[4, 8]], "gpus": has, "mode": "token", "left": True}
    token = tmp_path / ".ray" / "auth_token"
    assert get_mode(token) == 0o600
    assert len(token.read_text()) == 64


def test_ray_address_is_joined_with_its_own_sizes_and_left_running(run_alone, ray_cluster):
    import ray

    address = ray.get_runtime_context().gcs_address
    assert run_alone("-c", JOIN, RAY_ADDRESS=address) == "2"
    assert ray.cluster_resources()["CPU"] == 2


@pytest.mark.slow
def test_whoever_imports_ray_first_is_told_how_to_join_a_protected_cluster(run_alone, ray_cluster):
    import ray

    address = ray.get_runtime_context().gcs_address
    assert run_alone("-c", LATE, RAY_ADDRESS=address).endswith(
        "; RAY_AUTH_MODE=token must be set before Ray is imported"
    )
    assert run_alone("-c", LATE, RAY_ADDRESS=address, RAY_AUTH_MODE="token") == "joined"


def test_a_process_in_a_cluster_stays_in_it(ray_cluster):
    import ray

    for address in (None, "auto", ray.get_runtime_context().gcs_address):
        with session.connect(address):
            assert ray.cluster_resources()["CPU"] == 2
        assert ray.is_initialized()
    with (
        pytest.raises(ValueError, match=r"no\.such\.host:1, but this process is connected"),
        session.connect("no.such.host:1"),
    ):
        pass


def test_an_address_where_nothing_answers_is_an_error_within_seconds(run_alone):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    seconds, kind, message = run_alone("-c", REFUSED, address).split(maxsplit=2)
    assert int(seconds) <= 6
    assert kind == "ConnectionError"
    assert message.startswith(f"no Ray cluster answers at {address}")


@pytest.mark.parametrize("token", ["f" * 64, ""])
def test_a_wrong_token_or_none_is_an_error_within_seconds(run_alone, ray_cluster, token):
    import ray

    address = ray.get_runtime_context().gcs_address
    seconds, kind, message = run_alone("-c", REFUSED, address, token=token).split(maxsplit=2)
    assert int(seconds) <= 25  # Ray itself takes 20 s to 40 s; this some 4 s, on a machine with nothing else to do
    assert kind == "ConnectionError"
    assert message.startswith(f"the Ray cluster at {address} refuses the token, or wants one; RAY_AUTH_TOKEN or ")


@pytest.mark.slow
def test_a_process_with_a_token_is_told_why_it_cannot_use_a_cluster_without_one(run_alone):
    with_token, without = json.loads(run_alone("-c", OPEN, REFUSED, RAY_AUTH_MODE="disabled"))
    seconds, kind, message = with_token.split(maxsplit=2)
    assert int(seconds) <= 20  # Ray lets it join, and ends its actors; that took 9 s without progress or a reason
    assert kind == "ConnectionError"
    assert "runs without a token, so whoever reaches it runs code there, and workers of a process that has" in message
    assert "start it with RAY_AUTH_MODE=token, or set RAY_AUTH_MODE=disabled here" in message
    assert without == "joined"


@pytest.mark.parametrize(
    ("mode", "anybody", "refused"), [("token", True, True), ("token", False, False), (None, True, False)]
)
def test_only_a_token_and_a_cluster_without_one_do_not_go_together(monkeypatch, mode, anybody, refused):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with run_head_node(anybody=anybody) as address:
        assert preflight.accepts_unauthenticated(address) == anybody
        if refused:
            with pytest.raises(ConnectionError, match=f"{address} runs without a token"):
                preflight.require_same_protection(address)
        else:
            preflight.require_same_protection(address)


def test_a_protected_cluster_does_not_answer_anybody(ray_cluster):
    import ray

    assert not preflight.accepts_unauthenticated(ray.get_runtime_context().gcs_address)


def test_another_version_is_said_with_both(run_alone, ray_cluster):
    import ray

    address, python = ray.get_runtime_context().gcs_address, platform.python_version()
    output = run_alone("-c", f"import ray\nray.__version__ = '2.0.1'\n{REFUSED}", address, RAY_AUTH_MODE="token")
    assert f"runs Ray {ray.__version__} under Python {python}, this process Ray 2.0.1 under Python {python};" in output


def test_ray_s_message_for_another_version_are_understood():
    ray_message = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\nThis process on node "
    )
    ray_message += "10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.12.1\n"
    message = preflight.explain_join_failure("head:6379", ray_message)
    assert message.startswith(
        "the Ray cluster at head:6379 runs Ray 2.60.0 under Python 3.11.7, this process Ray 2.60.0"
    )
    assert "under Python 3.12.1" in message


def test_what_listens_but_is_no_cluster_is_an_error_within_seconds(monkeypatch):
    monkeypatch.setattr(preflight, "STATUS_TIMEOUT_S", 3.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        preflight.require_reachable(address)
        with pytest.raises(ConnectionError, match=f"what listens at {address} does not answer as a Ray cluster"):
            preflight.require_authorized(address)


def test_a_dashboard_is_opened_wider_only_with_authentication(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    for host in ("0.0.0.0", "::", "10.1.2.3", "head.example"):
        with (
            pytest.raises(ValueError, match=f"a dashboard on {host} with RAY_AUTH_MODE=disabled lets whoever"),
            session.connect(dashboard=True, dashboard_host=host),
        ):
            pass
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        auth.require_protected_dashboard(host)
    monkeypatch.delenv("RAY_AUTH_MODE")
    auth.require_protected_dashboard("0.0.0.0")


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "somewhere", ":6379", "host:port"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="a cluster's address is host:port"):
        preflight.require_reachable(address)


def test_fewer_than_one_worker_is_refused():
    with pytest.raises(ValueError, match="--workers must be 1 or more, got 0"), session.connect(workers=0):
        pass


def test_a_token_file_that_others_can_read_is_closed(home):
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    auth.protect_token(make=True)
    assert get_mode(token) == 0o600
    assert token.read_text() == "secret"


def test_no_token_file_is_made_beside_a_token_in_the_environment(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    auth.protect_token(make=True)
    assert not (home / ".ray").exists()


def test_no_token_is_made_to_join(home):
    auth.protect_token(make=False)
    assert not (home / ".ray").exists()


@pytest.mark.parametrize(("free", "store"), [(2**26, 100 * 2**20), (2**30, 2**29), (2**40, 2**31)])
def test_the_object_store_leaves_half_of_the_shared_memory(monkeypatch, tmp_path, free, store):
    monkeypatch.setattr(session.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(free, 0, free))
    assert session._choose_object_store_bytes(tmp_path) == store
