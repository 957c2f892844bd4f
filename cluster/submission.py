"""Submit a command as a job to a Ray cluster, follow its log, and report errors in one line.

`ray job submit` does the same and keeps working. This module adds the token, a submission id made of the command and
the number of the attempt, and a check of the folder's size before it is sent.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.auth import format_export_line, get_auth_mode, protect_token, read_token
from cluster.leftovers import create_temporary_folder
from cluster.needed_files import require_needed_files
from cluster.packaging import pack

DASHBOARD = "http://127.0.0.1:8265"
ANSWER_TIMEOUT_S = 10.0
POLL_S = 1.0
STARTUP_TIMEOUT_S = 60.0
UNFINISHED = {"PENDING", "RUNNING"}
CREDENTIALS = re.compile(r"://[^/]*@|secret_key=")  # the dashboard shows what is sent


@dataclass(frozen=True, kw_only=True)
class SubmittedJob:
    """A job that a cluster has accepted.

    Attributes:
        id: its submission id.
        address: of the dashboard.
        client: a connected ray.job_submission client.
    """

    id: str
    address: str
    client: Any

    def format_commands(self) -> str:
        """Return the commands that follow the job and stop it, a line each."""
        return (
            f"  {format_export_line(self.address)}\n"
            f"  ray job logs -f {self.id}    # follow; dashboard: {self.address}/#/jobs\n"
            f"  ray job stop {self.id}       # finished models are kept, and submitting again goes on"
        )


def submit(command: Sequence[str], folder: Path, address: str | None = None, job_id: str | None = None) -> SubmittedJob:
    """Submit a command, with its working directory, to the cluster of a dashboard; see resolve_dashboard, make_next_id.

    Raises ConnectionError where no dashboard answers or it refuses the token, ValueError for no command, an id that was
    used, a command that runs already, a file of the command that is not sent or a folder that is too large,
    RuntimeError with Ray's message on a refusal.
    """
    if not command:
        raise ValueError("there is no command; write it after --, as in -- python -m memscore.estimate")
    address = resolve_dashboard(address)
    environment = select_environment()
    require_dashboard(address)
    protect_token(make=False)
    client = _make_client(address)

    # drivers that were not submitted are listed too, without an id
    used = {job.submission_id: str(job.status.value) for job in client.list_jobs() if job.submission_id}
    name = make_next_id(command, used, address) if job_id is None else require_unused_id(job_id, used, address)

    require_needed_files(command, folder)
    # packed here, because Ray refuses a folder that is too large only after the upload
    with create_temporary_folder("submit") as temporary_folder:
        archive = Path(temporary_folder) / "folder.zip"
        pack(folder, archive)
        try:
            _submit_with_retry(client, command, name, {"working_dir": str(archive), "env_vars": environment})
        except RuntimeError as error:
            # somebody else took the id after list_jobs; Ray has no exception of its own for it
            if "already exists" not in str(error):
                raise
            raise ValueError(f"the submission id {name} was taken a moment ago; {format_id_hint(job_id)}") from None
    return SubmittedJob(id=name, address=address, client=client)


def _submit_with_retry(client: Any, command: Sequence[str], name: str, environment: dict[str, Any]) -> None:
    """Submit; retry for a minute while a cluster that has just started has no agent that accepts jobs."""
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


def follow(job: SubmittedJob, on_output: Callable[[str], Any]) -> str:
    """Pass on what a job prints until it has ended; return its final status: SUCCEEDED, FAILED or STOPPED.

    Raises ConnectionError where the dashboard was lost; the job goes on without it.
    """

    async def tail() -> str:
        async for piece in job.client.tail_job_logs(job.id):
            on_output(piece)
        while (status := str(job.client.get_job_status(job.id).value)) in UNFINISHED:
            await asyncio.sleep(POLL_S)
        return status

    # Ray's client raises aiohttp's and requests' errors, which are OSErrors, and its own, which are RuntimeErrors
    try:
        return asyncio.run(tail())
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"the dashboard at {job.address} was lost ({' '.join(str(error).split())[:200]}); the job goes on: "
            f"{format_export_line(job.address)}; ray job logs -f {job.id}"
        ) from error


def resolve_dashboard(option: str | None) -> str:
    """Return the dashboard's http(s) address: the user's option, else the environment's, else this machine's.

    Raises ValueError for an address of another form, naming where it comes from.
    """
    # of the two variables, in the order of Ray's own client
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    source, address = "--address", option
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
    """Return the environment variables that are sent with the job: MEMSCORE_HOME, the folder of the stores, if set.

    Raises ValueError if it has credentials, which everybody who sees the dashboard could read, or is a relative path.
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
    """Raise ConnectionError, with the reason and a remedy, if no dashboard answers, or it refuses this user."""
    token = read_token()
    request = urllib.request.Request(
        f"{address}/api/version", headers={"Authorization": f"Bearer {token}"} if token else {}
    )
    hint = f"start a cluster (bash cluster/deploy/local.sh up), or open a tunnel: ssh -L 8265:{DASHBOARD[7:]} HEAD"
    # other servers listen on such ports too: only an answer with Ray's version is a dashboard's
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as response:
            version = json.loads(response.read(10_000))
    except urllib.error.HTTPError as error:
        if error.code in {401, 403}:
            reason = "refuses the token" if token else "wants a token"
            if get_auth_mode() != "token":
                reason += f", and RAY_AUTH_MODE={get_auth_mode()} sends none: unset it, or set it to token"
            raise ConnectionError(
                f"the cluster at {address} {reason}; RAY_AUTH_TOKEN or ~/.ray/auth_token must hold that of its head "
                "node, where `ray get-auth-token` shows it"
            ) from None
        raise ConnectionError(f"{address} answers {error.code}, as no Ray dashboard does; {hint}") from None
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "reason", None) or error)
        raise ConnectionError(f"no Ray dashboard answers at {address} ({reason}); {hint}") from None
    if "ray_version" not in version:
        raise ConnectionError(f"{address} answers, but not as a Ray dashboard does; {hint}")


def make_next_id(command: Sequence[str], used: dict[str, str], address: str) -> str:
    """Make the submission id of the next attempt at a command: module or program, hash of the command, number.

    `used` has the status of each submission id that the cluster lists. Raises ValueError if the command runs already.

    >>> make_next_id(["python", "-m", "memscore.estimate"], {"memscore-estimate-924e0f29-1": "FAILED"}, "")
    'memscore-estimate-924e0f29-2'
    """
    words = [*command]
    program = words[words.index("-m") + 1] if "-m" in words[:-1] else Path(words[0]).name
    digest = hashlib.sha256(shlex.join(words).encode()).hexdigest()[:8]
    stem = f"{re.sub(r'[^A-Za-z0-9]+', '-', program).strip('-')}-{digest}"
    # the largest number of an attempt plus one, not their count: Ray may have forgotten early ones
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


def require_unused_id(job_id: str, used: dict[str, str], address: str) -> str:
    """Return the user's submission id; raise ValueError if it is not a valid id, or the cluster has a job of it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", job_id):
        raise ValueError(
            f"--id {job_id!r} is no submission id: at most 100 letters, digits, dots, - and _; {format_id_hint('')}"
        )
    if job_id in used:
        raise ValueError(
            f"the submission id {job_id} was used before, and its job has {used[job_id]}; see it with "
            f"`{format_export_line(address)}; ray job logs {job_id}`, or {format_id_hint(job_id)}"
        )
    return job_id


def format_id_hint(job_id: str | None) -> str:
    """Return what to do about an id that is taken."""
    return (
        "run the same command again" if job_id is None else "choose another --id, or leave it out for the next number"
    )


def _make_client(address: str) -> Any:
    """Make Ray's own client."""
    # Before Ray is imported, which reads RAY_AUTH_MODE once. Ray 2.60's client prefers RAY_API_SERVER_ADDRESS and even
    # RAY_ADDRESS, which may be a cluster's host:port, to its argument.
    if get_auth_mode() == "token" and read_token():
        os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    from ray.job_submission import JobSubmissionClient

    # these modules log each step, and set their own level to INFO when they are imported
    for part in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{part}").setLevel(logging.WARNING)
    return JobSubmissionClient(address)
