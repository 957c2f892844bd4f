"""Run a command and turn errors and signals into exit codes, without tracebacks.

An error is one line and exit code 2, Ctrl-C is 130, SIGTERM is 143.
"""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from memscore.visible_text import escape_warnings, write_line

RESUMABLE_MESSAGE = "interrupted; finished models are kept, and the same command goes on"
RESUMABLE_TRIALS_MESSAGE = "interrupted; finished models and trials are kept, and the same command goes on"


def quiet_interrupt() -> None:
    """End the process with one line on Ctrl-C, until `run_command` or `quiet_interrupt_during_imports` restores it.

    A command calls this above its imports if it is the main program: an exception would come up through the module that
    is being imported, as a traceback or not at all.
    """
    # only the main thread may set handlers, and only Python's own is replaced: not that of a program that imports this
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if the parent ignores it
        signal.signal(signal.SIGINT, _exit_immediately)


def restore_interrupt() -> None:
    """Give Ctrl-C back to Python after `quiet_interrupt`; does nothing if the handler is another one."""
    if signal.getsignal(signal.SIGINT) is _exit_immediately:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def quiet_interrupt_during_imports() -> Generator[None, None, None]:
    """End the process with one line on Ctrl-C inside this block.

    Commands import what takes seconds inside their function and this block, so that --help and a typing error answer at
    once.
    """
    quiet_interrupt()
    try:
        yield
    finally:
        restore_interrupt()


class Terminated(KeyboardInterrupt):
    """SIGTERM, which `ray job stop` sends; it unwinds like Ctrl-C, so that locks are released."""


def run_command(
    command: Callable[[], int], interrupt_message: str = "interrupted; the same command begins again"
) -> int:
    """Run one command and return its exit code; the message is the line after Ctrl-C and says how to continue.

    An error of the user or of the machine (ValueError, OSError, RuntimeError) is one line on stderr and 2, or the
    error's own `exit_code`; Ctrl-C is 130, SIGTERM 143, and 141 where nobody reads the output any more. Any other
    exception is a bug, and keeps its traceback.
    """
    # a program that runs a command inside itself, such as a test, keeps its own handler
    handles_sigterm = (
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and threading.current_thread() is threading.main_thread()
    )
    if handles_sigterm:
        signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        # the imports are over: from here on Ctrl-C raises, so that locks are released
        restore_interrupt()
        with escape_warnings():
            code = command()
        sys.stdout.flush()  # here, where a closed pipe is handled, and not as Python ends
        return code
    except KeyboardInterrupt as error:
        write_line(interrupt_message)
        return 143 if isinstance(error, Terminated) else 130
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and is_output_closed():
            discard_output()
            return 141  # 128 + SIGPIPE, as a shell reports it; whoever read the output wanted no more of it
        write_line(f"error: {' '.join(str(error).split())}")
        return int(getattr(error, "exit_code", 2))
    finally:
        if handles_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def is_output_closed() -> bool:
    """Return whether nobody reads this process's output any more, as after `| head`."""
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def discard_output() -> None:
    """Send the output that is still buffered nowhere; Python would complain as it flushes it at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    """Raise Terminated once; a second SIGTERM ends the process at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def _exit_immediately(number: int, frame: FrameType | None) -> None:
    """Exit at once, without running code of modules that are half imported."""
    # not sys.stderr: the signal may have interrupted a buffered write, which is not reentrant
    os.write(2, b"interrupted before anything was started\n")
    os._exit(130)
