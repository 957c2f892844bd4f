"""Run a command and turn errors and signals into exit codes, without tracebacks.

An error is one line and exit code 2, Ctrl-C is 130, SIGTERM is 143.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

RESUMABLE_MESSAGE = "interrupted; finished models are kept, and the same command goes on"
RESUMABLE_TRIALS_MESSAGE = "interrupted; finished models and trials are kept, and the same command goes on"


def quiet_interrupt_during_imports() -> None:
    """End the process with one line on Ctrl-C while it imports, which takes seconds.

    A command calls this above its imports if it is the main program: an exception would come up through the module that
    is being imported, as a traceback or not at all. `run_command` restores Python's own handler.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if the parent process ignores SIGINT
        signal.signal(signal.SIGINT, _exit_immediately)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which `ray job stop` sends; it unwinds like Ctrl-C, so that locks are released."""


def run_command(
    command: Callable[[], int], interrupt_message: str = "interrupted; the same command begins again"
) -> int:
    """Run one command and return its exit code.

    Args:
        command: returns the exit code.
        interrupt_message: the line after Ctrl-C; it says how to continue.

    Returns:
        The command's exit code; 2 with one line on stderr for an error of the user or of the machine
        (ValueError, OSError, RuntimeError), or the error's own `exit_code`; 130 after Ctrl-C, 143 after SIGTERM.
    """
    handles_sigterm = (
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and threading.current_thread() is threading.main_thread()
    )
    if handles_sigterm:
        signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        if signal.getsignal(signal.SIGINT) is _exit_immediately:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return command()
    except KeyboardInterrupt as error:
        sys.stderr.write(f"{interrupt_message}\n")
        return 143 if isinstance(error, Terminated) else 130
    except (ValueError, OSError, RuntimeError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return int(getattr(error, "exit_code", 2))
    finally:
        if handles_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    """Raise Terminated once; a second SIGTERM ends the process at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def _exit_immediately(number: int, frame: FrameType | None) -> None:
    """Exit at once, without running code of modules that are half imported."""
    os.write(2, b"interrupted before anything was started\n")
    os._exit(130)
