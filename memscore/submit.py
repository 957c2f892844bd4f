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
from memscore.visible_text import escape_controls_in_lines

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
    print_text(f"submitted {job.id} to {job.address}\n{job.format_commands()}\n")
    return follow_job(job) if wait else 0


def follow_job(job: SubmittedJob) -> int:
    """Print a job's output until it ends; Ctrl-C stops the printing and not the job."""
    try:
        status = follow(job, print_text)
    except KeyboardInterrupt:
        sys.stderr.write(escape_controls_in_lines(f"\nno longer followed; {job.id} goes on\n{job.format_commands()}\n"))
        return 130
    print_text(f"{job.id}: {status}\n")
    return 0 if status == "SUCCEEDED" else 1


def print_text(text: str) -> None:
    """Print lines, or a piece of them, at once, with control characters escaped; a bar's new state is a new line."""
    # a job's output comes in pieces, of which a line's end may be in the next one
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    print(escape_controls_in_lines(lines), end="", flush=True)


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
