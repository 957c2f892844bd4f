"""Submit a command as a Ray job: `python -m memscore.submit -- python -m memscore.estimate`."""

import sys
from functools import partial
from pathlib import Path

from memscore.cli.app import run_command
from memscore.cli.stop_signals import quiet_interrupt

if __name__ == "__main__":
    quiet_interrupt()

from cluster.submission import SubmittedJob, follow, submit
from memscore.cli.command_line import call_command
from memscore.cli.options import Maybe

PROG = "python -m memscore.submit"
EXAMPLE = "--wait -- python -m memscore.estimate --preset paper"


def submit_command(
    command: list[str], address: Maybe[str] = None, id: Maybe[str] = None, working_dir: str = ".", wait: bool = False
) -> int:
    """Submit the command after -- to a Ray cluster, with a folder and a descriptive id.

    Args:
        command: the command, split into words.
        address: of the cluster's dashboard (default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or http://127.0.0.1:8265).
        id: of the job (default: made of the command and the number of the attempt).
        working_dir: the folder to upload, except files that .gitignore and .rayignore name.
        wait: print the job's output until it has ended; Ctrl-C then leaves it running.

    Returns:
        Exit code: 0; with --wait 1 if the job failed or was stopped, and 130 after Ctrl-C.
    """
    job = submit(command, Path(working_dir), address, id)
    print(f"submitted {job.id} to {job.address}\n{job.format_commands()}", flush=True)
    return follow_job(job) if wait else 0


def follow_job(job: SubmittedJob) -> int:
    """Print a job's output until it ends; Ctrl-C stops the printing and not the job."""
    try:
        status = follow(job, lambda piece: print(piece, end="", flush=True))
    except KeyboardInterrupt:
        sys.stderr.write(f"\nno longer followed; {job.id} goes on\n{job.format_commands()}\n")
        return 130
    print(f"{job.id}: {status}")
    return 0 if status == "SUCCEEDED" else 1


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; user errors are one line and exit code 2."""
    # tyro parses what stands before the first --, and never sees the options of the submitted command
    argv = sys.argv[1:] if arguments is None else arguments
    split = argv.index("--") if "--" in argv else len(argv)
    submit_words = partial(submit_command, argv[split + 1 :])
    interrupt_message = "interrupted; if a line began with `submitted`, the job goes on"
    return run_command(lambda: call_command(submit_words, prog, argv[:split], EXAMPLE), interrupt_message)


if __name__ == "__main__":
    sys.exit(main())
