"""Checks before a run: whether a cluster can be joined, has free CPUs or GPUs, and what each of its nodes reports.

Ray's own attempt to join prints nothing for two minutes where nobody answers, and for 20 s to 40 s where the token is
wrong; the checks here fail within seconds, with a message that names the cause.

Ray is imported inside functions only: connect() first sets its authentication mode.
"""

import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc

from cluster.auth import get_auth_mode

CONNECT_TIMEOUT_S = 5.0  # for one TCP connection
STATUS_TIMEOUT_S = 30.0  # for `ray status`, which takes one second
FREE_CPU_TIMEOUT_S = 5.0  # a cluster may be full for a moment: the driver before this one has just ended
NODE_TIMEOUT_S = 60.0  # a node may have to install a runtime environment first
LIST_TIMEOUT_S = 5
# of the head node's GCS; requires a token as every other method there
CHECK_ALIVE_METHOD = "/ray.rpc.NodeInfoGcsService/CheckAlive"
TOKEN_HINT = "RAY_AUTH_TOKEN or ~/.ray/auth_token here must hold the token of the cluster's head node"

_log = logging.getLogger(__name__)


def require_reachable(address: str) -> None:
    """Raise ConnectionError if nothing listens at a cluster's address, ValueError if it is none.

    An address is host:port or ray://host:port; "auto", the cluster on this machine, is not checked here.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ValueError(
            f"a cluster's address is host:port, got {address!r}; http://... is the address of `ray job submit`, "
            "not of a cluster"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}); check the address, or leave out --address and "
            "RAY_ADDRESS to start one on this machine"
        ) from error


def require_authorized(address: str) -> None:
    """Raise ConnectionError if `ray status` shows that the cluster refuses this user, or that there is none.

    The address is host:port or "auto"; Ray Client's ray://host:port is not checked here.
    """
    if address.startswith("ray://"):
        return

    # in a process of its own: this one must not import Ray yet, and could not end a call that hangs
    try:
        status = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address],
            capture_output=True,
            text=True,
            timeout=STATUS_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConnectionError(
            f"what listens at {address} does not answer as a Ray cluster within {STATUS_TIMEOUT_S:.0f} s; check host "
            "and port (6379 is the usual one), or whether the head node is overloaded"
        ) from None
    if not status.returncode:
        return

    # one exit code stands for all failures, so the text of `ray status` has to tell them apart
    output = status.stdout + status.stderr
    if "AuthenticationError" in output and get_auth_mode() != "token":
        raise ConnectionError(
            f"the Ray cluster at {address} wants a token, and RAY_AUTH_MODE={get_auth_mode()} sends none; unset it, "
            "or set "
            "it to token"
        )
    if "Could not find any running Ray instance" in output:
        raise ConnectionError(
            "no Ray cluster runs on this machine; start one (bash cluster/deploy/local.sh up), or leave out --address"
        )
    if "AuthenticationError" in output:
        raise ConnectionError(f"the Ray cluster at {address} refuses the token, or wants one; {TOKEN_HINT}")
    line = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no output")
    raise ConnectionError(f"no Ray cluster can be joined at {address} ({line[:300]}); check the address")


def require_same_protection(address: str) -> None:
    """Raise ConnectionError if this process uses a token and the cluster at host:port has none.

    Ray lets such a process join, and ends each of its actors.
    """
    # `ray status` does not show the difference: with a token it is answered, without one it takes half a minute where a
    # token is required
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" and accepts_unauthenticated(address):
        raise ConnectionError(
            f"the Ray cluster at {address} runs without a token, so whoever reaches it runs code there, and workers of "
            "a process that has one cannot start; start it with RAY_AUTH_MODE=token, or set RAY_AUTH_MODE=disabled "
            "here to use it as it is"
        )


def accepts_unauthenticated(address: str) -> bool:
    """Return whether a cluster's head node answers a request without a token; False also if it does not answer."""
    # an empty message is a valid request of this method, so Ray's generated code is not needed
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(CHECK_ALIVE_METHOD)(b"", timeout=CONNECT_TIMEOUT_S)
        except grpc.RpcError:
            return False
        return True


def explain_join_failure(address: str, message: str) -> str:
    """Return an error message for Ray's own message on failing to join a cluster that answers."""
    # Ray's message on another version has several lines, the cluster's versions first, then this process's
    message = " ".join(message.split())
    versions = re.findall(r"Ray: (\S+) Python: (\S+)", message)
    if "ersion mismatch" in message and len(versions) == 2:
        (ray, python), (own_ray, own_python) = versions
        return (
            f"the Ray cluster at {address} runs Ray {ray} under Python {python}, this process Ray {own_ray} under "
            f"Python {own_python}; install the cluster's versions here, or run the command there: "
            "python -m memscore.submit -- python -m memscore.estimate"
        )
    return f"the Ray cluster at {address} answers but cannot be joined ({message[:500]}); {TOKEN_HINT}"


def warn_if_full(kind: str, share: float, limit_s: float) -> bool:
    """Warn if no worker with this share of a "CPU" or "GPU" can be placed, naming who holds them; return whether so.

    The pool then waits, for at most `limit_s`.
    """
    import ray

    end = time.monotonic() + FREE_CPU_TIMEOUT_S
    while ray.available_resources().get(kind, 0) < share:
        if time.monotonic() > end:
            total = ray.cluster_resources().get(kind, 0)
            free = ray.available_resources().get(kind, 0)
            if total < share:
                state = f"the cluster has no {kind} for a worker yet"
            else:
                state = f"the cluster is full: {free:g} of {total:g} {kind}s are free{describe_holders(kind)}"
            _log.warning(
                "%s; waiting for at most %.0f s. Wait, stop what holds them, or add nodes; where nodes come on demand, "
                "--workers says how many are wanted",
                state,
                limit_s,
            )
            return True
        time.sleep(0.5)
    return False


def describe_holders(kind: str) -> str:
    """Return who holds a resource, as a clause for a message; Ray knows it only with its dashboard."""
    from ray.util import state

    try:
        actors = state.list_actors(filters=[("state", "=", "ALIVE")], detail=True, limit=1000, timeout=LIST_TIMEOUT_S)
        jobs = {job.job_id: job for job in state.list_jobs(limit=1000, timeout=LIST_TIMEOUT_S)}
    except Exception as error:  # no dashboard; Ray has no exception class for it
        _log.info("Ray does not list who holds %ss: %s", kind, error)
        return " (a cluster without a dashboard does not say who has them)"
    holds: Counter[str] = Counter()
    for actor in actors:
        holds[actor.job_id] += (actor.required_resources or {}).get(kind, 0)
    held = [f"{share:g} by {_describe_job(jobs.get(job), job)}" for job, share in holds.most_common(3) if share]
    return f"; held: {', '.join(held)}" if held else " (held by no actor that Ray lists)"


def _describe_job(job: Any, job_id: str) -> str:
    """Return a job's submission id or number, and the command that it runs."""
    if job is None:
        return f"job {job_id}"
    name = job.submission_id or f"job {job_id}"
    command = " ".join(str(job.entrypoint or "").split())
    return f"{name} ({command[:80]})" if command else name


def run_on_each_node(check: Callable[[], str | None]) -> dict[str, str]:
    """Run a check, which returns a problem or None, on every node that may get workers; return node -> problem.

    Workers must be able to import the check. A node that does not answer is warned of and left out: it may be frozen,
    and the run can start without it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # A node where this package is missing must be able to say so. Hence a nested function, which cloudpickle pickles by
    # value instead of by its module's name, and the check as bytes, which are unpickled within the try.
    code = ray.cloudpickle.dumps(check)

    def run_check(code: bytes) -> str | None:
        import pickle

        try:
            problem: str | None = pickle.loads(code)()
            return problem
        except ModuleNotFoundError as error:
            return f"{error}; install memscore there, or submit its folder as --working-dir"
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    # without CPUs, so that a full node answers; soft=False, or Ray would run the task of a lost node on another one
    nodes = {
        node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"  # two nodes may be on one machine
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    }
    task = ray.remote(num_cpus=0, max_retries=0)(run_check)
    node_names = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(code): name
        for node, name in nodes.items()
    }
    done, silent = (
        ray.wait(list(node_names), num_returns=len(node_names), timeout=NODE_TIMEOUT_S) if node_names else ([], [])
    )
    for ref in silent:
        _log.warning(
            "node %s did not answer within %.0f s; going on without its answer", node_names[ref], NODE_TIMEOUT_S
        )
    problems: dict[str, str] = {}
    for ref in done:
        try:
            problem = ray.get(ref)
        except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError):
            _log.warning("node %s was lost before it answered", node_names[ref])
        except ray.exceptions.RayError as error:
            problems[node_names[ref]] = " ".join(str(error).split())[:300]
        else:
            problems |= {node_names[ref]: problem} if problem else {}
    return problems
