"""A command as a job on a cluster: sent, followed, and said in one line what goes wrong.

`ray job submit` does the same and keeps working. This adds the token, a name that says what runs and how often it was
tried, and a look at the folder's size before it is sent.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
import shlex
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.auth import format_export_line, get_auth_mode, protect_token, read_token
from cluster.packaging import pack

DASHBOARD = "http://127.0.0.1:8265"
ANSWER_TIMEOUT_S = 10.0
POLL_S = 1.0
STARTUP_TIMEOUT_S = 60.0
UNFINISHED = {"PENDING", "RUNNING"}
CREDENTIALS = re.compile(r"://[^/]*@|secret_key=")  # credentials: the dashboard shows what goes along


@dataclass(frozen=True, kw_only=True)
class SubmittedJob:
    """A job that a cluster has taken.

    Attributes:
        id: its submission id.
        address: of the dashboard.
        client: ray.job_submission's, connected.
    """

    id: str
    address: str
    client: Any

    def format_commands(self) -> str:
        """How to follow the job and how to stop it, a line each."""
        return (
            f"  {format_export_line(self.address)}\n"
            f"  ray job logs -f {self.id}    # follow; dashboard: {self.address}/#/jobs\n"
            f"  ray job stop {self.id}       # finished models are kept, and submitting again goes on"
        )


def submit(command: Sequence[str], folder: Path, address: str | None = None, job_id: str | None = None) -> SubmittedJob:
    """Send a command to a cluster, with a folder.

    Args:
        command: what to run there, word by word.
        folder: its working directory; what .gitignore and .rayignore name stays here.
        address: of the cluster's dashboard; None for RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or this machine.
        job_id: a submission id; None for one made of the command and the number of the attempt.

    Returns:
        The job.

    Raises:
        ConnectionError: no dashboard answers, or it refuses the token.
        ValueError: no command, an id that was used, a command that runs already, or a folder that is too large.
        RuntimeError: the cluster does not take it, in Ray's words.
    """
    if not command:
        raise ValueError("there is no command; write it after --, as in -- python -m memscore.estimate")
    address = resolve_dashboard(address)
    environment = select_environment()
    require_dashboard(address)
    protect_token(make=False)
    client = _make_client(address)
    used = {job.submission_id: str(job.status.value) for job in client.list_jobs() if job.submission_id}
    name = make_next_id(command, used, address) if job_id is None else require_unused_id(job_id, used, address)
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "folder.zip"
        pack(folder, archive)
        try:
            _submit_with_retry(client, command, name, {"working_dir": str(archive), "env_vars": environment})
        except RuntimeError as error:
            if "already exists" not in str(error):
                raise
            raise ValueError(f"the submission id {name} was taken a moment ago; {format_id_hint(job_id)}") from None
    return SubmittedJob(id=name, address=address, client=client)


def _submit_with_retry(client: Any, command: Sequence[str], name: str, environment: dict[str, Any]) -> None:
    """Submit; again for a minute while a cluster that has just begun has nobody who takes jobs."""
    end = time.monotonic() + STARTUP_TIMEOUT_S
    while True:
        try:
            client.submit_job(entrypoint=shlex.join(command), submission_id=name, runtime_env=environment)
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(POLL_S)
        else:
            return


def follow(job: SubmittedJob, say: Callable[[str], Any]) -> str:
    """Hand on what a job prints until it has ended.

    Args:
        job: from submit.
        say: is given pieces of its log.

    Returns:
        How it ended: SUCCEEDED, FAILED or STOPPED.

    Raises:
        ConnectionError: the dashboard was lost; the job goes on without it.
    """

    async def tail() -> str:
        async for piece in job.client.tail_job_logs(job.id):
            say(piece)
        while (status := str(job.client.get_job_status(job.id).value)) in UNFINISHED:
            await asyncio.sleep(POLL_S)
        return status

    try:
        return asyncio.run(tail())
    except (OSError, RuntimeError) as error:  # aiohttp's and requests' errors are OSErrors, Ray's own are RuntimeErrors
        raise ConnectionError(
            f"the dashboard at {job.address} was lost ({' '.join(str(error).split())[:200]}); the job goes on: "
            f"{format_export_line(job.address)}; ray job logs -f {job.id}"
        ) from error


def resolve_dashboard(wish: str | None) -> str:
    """The dashboard that is meant: the wish, else the environment's, else this machine's.

    Args:
        wish: the user's --address.

    Returns:
        http://host:port or https://...

    Raises:
        ValueError: an address of something else.
    """
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    source, address = "--address", wish
    for name in names:
        if address is None and os.environ.get(name):
            source, address = name, os.environ[name]
    address = (DASHBOARD if address is None else address).rstrip("/")
    if not re.fullmatch(r"https?://[^/\s]+", address):
        raise ValueError(
            f"{source} {address} is no dashboard; jobs go to its http address, such as --address {DASHBOARD}"
        )
    return address


def select_environment() -> dict[str, str]:
    """What of this environment the job is to have: where stores are put.

    Returns:
        MEMSCORE_HOME, if it is set.

    Raises:
        ValueError: it has credentials, which whoever sees the dashboard could read, or is no place that stays.
    """
    home = os.environ.get("MEMSCORE_HOME")
    if not home:
        return {}
    if CREDENTIALS.search(home):
        raise ValueError(
            "MEMSCORE_HOME has credentials in it, and a job's environment is shown on the dashboard; give the URL "
            "without them, and the credentials to the nodes"
        )
    if "://" not in home and not Path(home).is_absolute():
        raise ValueError(
            f"MEMSCORE_HOME={home} is a relative path, and a submitted job runs in a temporary folder; "
            "use an absolute path that every node shares, or s3://"
        )
    return {"MEMSCORE_HOME": home}


def require_dashboard(address: str) -> None:
    """Stop where no dashboard is, or one that does not let this user in.

    Args:
        address: http://host:port.

    Raises:
        ConnectionError: says which, and the way out.
    """
    token = read_token()
    asked = urllib.request.Request(
        f"{address}/api/version", headers={"Authorization": f"Bearer {token}"} if token else {}
    )
    way_out = f"start a cluster (bash cluster/deploy/local.sh up), or open a tunnel: ssh -L 8265:{DASHBOARD[7:]} HEAD"
    try:
        with urllib.request.urlopen(asked, timeout=ANSWER_TIMEOUT_S) as answer:
            said = json.loads(answer.read(10_000))
    except urllib.error.HTTPError as error:
        if error.code in {401, 403}:
            why = "refuses the token" if token else "wants a token"
            if get_auth_mode() != "token":
                why += f", and RAY_AUTH_MODE={get_auth_mode()} sends none: unset it, or set it to token"
            raise ConnectionError(
                f"the cluster at {address} {why}; RAY_AUTH_TOKEN or ~/.ray/auth_token must hold that of its head "
                "node, where `ray get-auth-token` shows it"
            ) from None
        raise ConnectionError(f"{address} answers {error.code}, as no Ray dashboard does; {way_out}") from None
    except (OSError, ValueError) as error:
        why = str(getattr(error, "reason", None) or error)
        raise ConnectionError(f"no Ray dashboard answers at {address} ({why}); {way_out}") from None
    if "ray_version" not in said:
        raise ConnectionError(f"{address} answers, but not as a Ray dashboard does; {way_out}")


def make_next_id(command: Sequence[str], used: dict[str, str], address: str) -> str:
    """A name for the next attempt at a command: what runs, a hash of all of it, a number.

    Args:
        command: word by word.
        used: submission id -> status, of all jobs that the cluster knows.
        address: of the dashboard, for the words.

    Returns:
        The name.

    Raises:
        ValueError: the same command runs already.

    >>> make_next_id(["python", "-m", "memscore.estimate"], {"memscore-estimate-924e0f29-1": "FAILED"}, "")
    'memscore-estimate-924e0f29-2'
    """
    words = [*command]
    what = words[words.index("-m") + 1] if "-m" in words[:-1] else Path(words[0]).name
    whole = hashlib.sha256(shlex.join(words).encode()).hexdigest()[:8]
    stem = f"{re.sub(r'[^A-Za-z0-9]+', '-', what).strip('-')}-{whole}"
    attempts = {
        int(name.removeprefix(f"{stem}-")): name
        for name in used
        if name.startswith(f"{stem}-") and name.removeprefix(f"{stem}-").isdecimal()
    }
    for name in attempts.values():
        if used[name] in UNFINISHED:
            raise ValueError(
                f"the same command is {used[name]} already as {name}; follow it with `{format_export_line(address)}; "
                "ray job "
                f"logs -f {name}`, or give an --id to run it beside that"
            )
    return f"{stem}-{max(attempts, default=0) + 1}"


def require_unused_id(wish: str, used: dict[str, str], address: str) -> str:
    """The wish, unless it is no name, or the cluster has a job of it; then a ValueError with the ways on."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", wish):
        raise ValueError(
            f"--id {wish!r} is no submission id: at most 100 letters, digits, dots, - and _; {format_id_hint('')}"
        )
    if wish in used:
        raise ValueError(
            f"the submission id {wish} was used before, and its job has {used[wish]}; see it with "
            f"`{format_export_line(address)}; ray job logs {wish}`, or {format_id_hint(wish)}"
        )
    return wish


def format_id_hint(wish: str | None) -> str:
    """The way out of a name that is taken."""
    return "run the same command again" if wish is None else "choose another --id, or leave it out for the next number"


def _make_client(address: str) -> Any:
    """Ray's own client; it would rather use the environment's address than the one it is given."""
    if get_auth_mode() == "token" and read_token():
        os.environ["RAY_AUTH_MODE"] = "token"  # read when Ray is imported
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    from ray.job_submission import JobSubmissionClient

    for part in ("dashboard_sdk", "job.sdk"):  # they say each step, and ask for it to be heard
        logging.getLogger(f"ray.dashboard.modules.{part}").setLevel(logging.WARNING)
    return JobSubmissionClient(address)
