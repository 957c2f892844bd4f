"""A command as a job on a Ray cluster: `python -m memscore.submit -- python -m memscore.estimate`."""

import sys
from functools import partial
from pathlib import Path

from memscore.cli.app import quiet_interrupt_during_imports, run_command

if __name__ == "__main__":
    quiet_interrupt_during_imports()

import tyro

from cluster.submission import SubmittedJob, follow, submit
from memscore.cli.options import Maybe

PROG = "python -m memscore.submit"


def submit_command(
    command: list[str], address: Maybe[str] = None, id: Maybe[str] = None, working_dir: str = ".", wait: bool = False
) -> int:
    """Send the command after -- to a Ray cluster, with a folder, under a name that says what it is.

    Args:
        command: word by word.
        address: of the cluster's dashboard (default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or http://127.0.0.1:8265).
        id: of the job (default: made of the command and the number of the attempt).
        working_dir: the folder that goes along; what .gitignore and .rayignore name stays here.
        wait: print what the job prints until it has ended; Ctrl-C then leaves it running.

    Returns:
        Exit code: 0; with --wait 1 if the job failed or was stopped, and 130 after Ctrl-C.
    """
    job = submit(command, Path(working_dir), address, id)
    print(f"submitted {job.id} to {job.address}\n{job.format_commands()}", flush=True)
    return follow_job(job) if wait else 0


def follow_job(job: SubmittedJob) -> int:
    """Follow a job; Ctrl-C ends the following and not the job."""
    try:
        status = follow(job, lambda piece: print(piece, end="", flush=True))
    except KeyboardInterrupt:
        sys.stderr.write(f"\nno longer followed; {job.id} goes on\n{job.format_commands()}\n")
        return 130
    print(f"{job.id}: {status}")
    return 0 if status == "SUCCEEDED" else 1


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors of the user's making are one line and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    cut = given.index("--") if "--" in given else len(given)
    sending = partial(submit_command, given[cut + 1 :])
    interrupted = "interrupted; if a line said `submitted`, the job goes on"
    return run_command(lambda: tyro.cli(sending, prog=PROG, args=given[:cut]), interrupted)


if __name__ == "__main__":
    sys.exit(main())
