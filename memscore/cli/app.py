"""How a command ends: its own exit code, 2 after one line of error, 130 after Ctrl-C, 143 after SIGTERM: no traces."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

RESUMABLE_MESSAGE = "interrupted; finished models are kept, and the same command goes on"
RESUMABLE_TRIALS_MESSAGE = "interrupted; finished models and trials are kept, and the same command goes on"


def quiet_interrupt_during_imports() -> None:
    """Let Ctrl-C end the process in one line while it still imports, which takes seconds; nothing is begun by then.

    A door calls this above its imports, where it is the program and not a module: an exception would come up through
    whatever is being imported, as a traceback or not at all. `run` hands Ctrl-C back to Python.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is to be ignored
        signal.signal(signal.SIGINT, _leave)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which `ray job stop` sends; like Ctrl-C it comes up through whatever runs, and locks are given back."""


def run_command(command: Callable[[], int], interrupted: str = "interrupted; the same command begins again") -> int:
    """Run one command.

    Args:
        command: gives the exit code.
        interrupted: the line after Ctrl-C, with the way on.

    Returns:
        The command's exit code; 2 with one line on stderr for an error of the user's making or of the machine's
        (ValueError, OSError, RuntimeError), or the error's own `exit_code`; 130 after Ctrl-C, 143 after SIGTERM.
    """
    mine = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and threading.current_thread() is threading.main_thread()
    if mine:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return command()
    except KeyboardInterrupt as error:
        sys.stderr.write(f"{interrupted}\n")
        return 143 if isinstance(error, Terminated) else 130
    except (ValueError, OSError, RuntimeError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return int(getattr(error, "exit_code", 2))
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    """Once; a second SIGTERM ends the process where it is."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def _leave(number: int, frame: FrameType | None) -> None:
    """At once: no module that is half imported has a say."""
    os.write(2, b"interrupted before anything was begun\n")
    os._exit(130)
