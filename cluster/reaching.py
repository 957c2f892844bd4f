"""Whether a cluster can be joined, found out within seconds and said in words.

Ray's own attempt says nothing for two minutes where nobody answers, and for 20 s to 40 s where the token is wrong.
"""

import os
import re
import socket
import subprocess
import sys

import grpc

from cluster.auth import auth_mode

REACH_S = 5.0  # for one TCP connection
ANSWER_S = 30.0  # for `ray status`, which takes one second
ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # of the head's GCS; wants a token as everything else there
TOKEN_PLACES = "RAY_AUTH_TOKEN or ~/.ray/auth_token here must hold the token of the cluster's head node"


def refuse_unreachable(address: str) -> None:
    """Stop where no cluster is.

    Args:
        address: host:port, ray://host:port or "auto".

    Raises:
        ValueError: it is no address.
        ConnectionError: nothing listens there.
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
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}); check the address, or leave out --address and "
            "RAY_ADDRESS to start one on this machine"
        ) from error


def refuse_unwelcoming(address: str) -> None:
    """Stop where a cluster is that does not let this user in; asks it through `ray status`.

    Args:
        address: host:port or "auto"; Ray Client's ray://host:port is left to Ray.

    Raises:
        ConnectionError: the token is refused, or what answers is no Ray cluster.
    """
    if address.startswith("ray://"):
        return
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address],
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConnectionError(
            f"what listens at {address} does not answer as a Ray cluster within {ANSWER_S:.0f} s; check host and port "
            "(6379 is the usual one), or whether the head node is overloaded"
        ) from None
    if not asked.returncode:
        return
    said = asked.stdout + asked.stderr
    if "AuthenticationError" in said and auth_mode() != "token":
        raise ConnectionError(
            f"the Ray cluster at {address} wants a token, and RAY_AUTH_MODE={auth_mode()} sends none; unset it, or set "
            "it to token"
        )
    if "Could not find any running Ray instance" in said:
        raise ConnectionError(
            "no Ray cluster runs on this machine; start one (bash cluster/deploy/local.sh up), or leave out --address"
        )
    if "AuthenticationError" in said:
        raise ConnectionError(f"the Ray cluster at {address} refuses the token, or wants one; {TOKEN_PLACES}")
    line = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "no word")
    raise ConnectionError(f"no Ray cluster can be joined at {address} ({line[:300]}); check the address")


def refuse_open(address: str) -> None:
    """Stop where this process uses a token and the cluster has none: Ray lets it join, and ends each of its actors.

    `ray status` cannot tell: with a token it is answered, without one it takes half a minute where one is wanted.

    Args:
        address: host:port of a cluster that answers.

    Raises:
        ConnectionError: the cluster has no token; with both ways out.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" and answers_anybody(address):
        raise ConnectionError(
            f"the Ray cluster at {address} runs without a token, so whoever reaches it runs code there, and workers of "
            "a process that has one cannot start; start it with RAY_AUTH_MODE=token, or set RAY_AUTH_MODE=disabled "
            "here to use it as it is"
        )


def answers_anybody(address: str) -> bool:
    """Whether a cluster's head answers a question that comes without a token.

    Args:
        address: host:port.

    Returns:
        True if it does; False if it refuses, or says nothing of the kind, as through TLS.
    """
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(ALIVE)(b"", timeout=REACH_S)  # an empty message is a whole one of its kind
        except grpc.RpcError:
            return False
        return True


def why_not_joined(address: str, said: str) -> str:
    """Words for what Ray says when it cannot join a cluster that answers."""
    said = " ".join(said.split())
    versions = re.findall(r"Ray: (\S+) Python: (\S+)", said)
    if "ersion mismatch" in said and len(versions) == 2:
        (ray, python), (own_ray, own_python) = versions
        return (
            f"the Ray cluster at {address} runs Ray {ray} under Python {python}, this process Ray {own_ray} under "
            f"Python {own_python}; install the cluster's versions here, or run the command there: "
            "python -m memscore.submit -- python -m memscore.estimate"
        )
    return f"the Ray cluster at {address} answers but cannot be joined ({said[:500]}); {TOKEN_PLACES}"
