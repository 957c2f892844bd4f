"""Run a command and turn errors and signals into exit codes, without tracebacks.

An error is one line and exit code 2, Ctrl-C is 130, SIGTERM is 143, SIGHUP is 129.
"""

import signal
import sys
from collections.abc import Callable

from memscore.cli.memory_error import describe_memory_error, is_memory_error
from memscore.cli.stop_signals import (
    HungUp,
    Terminated,
    discard_output,
    handle_stop_signals,
    is_output_closed,
)
from memscore.cli.wrapping import wrap_messages
from memscore.visible_text import escape_warnings, write_line

RESUMABLE_MESSAGE = "interrupted; finished models are kept, and the same command goes on"
RESUMABLE_TRIALS_MESSAGE = "interrupted; finished models and trials are kept, and the same command goes on"


def run_command(
    command: Callable[[], int], interrupt_message: str = "interrupted; the same command begins again"
) -> int:
    """Run one command and return its exit code; the message is the line after Ctrl-C and says how to continue.

    An error of the user or of the machine (ValueError, OSError, RuntimeError, MemoryError) is one line on stderr and 2,
    or the error's own `exit_code`; Ctrl-C is 130, SIGTERM 143, SIGHUP 129, and 141 where nobody reads the output any
    more. Any other exception is a bug, and keeps its traceback.
    """
    # from here on Ctrl-C raises, so that locks are released
    with wrap_messages(), escape_warnings(), handle_stop_signals():
        try:
            code = command()
            sys.stdout.flush()  # here, where a closed pipe is handled, and not as Python ends
            return code
        except KeyboardInterrupt as error:
            write_line(interrupt_message)
            return 128 + find_signal(error)
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            if isinstance(error, BrokenPipeError) and is_output_closed():
                discard_output(1)
                return 141  # 128 + SIGPIPE, as a shell reports it; whoever read the output wanted no more of it
            message = describe_memory_error(error) if is_memory_error(error) else str(error)
            write_line(f"error: {' '.join(message.split())}")
            return int(getattr(error, "exit_code", 2))


def find_signal(error: KeyboardInterrupt) -> int:
    """Return the number of the signal that an interruption was raised for."""
    if isinstance(error, HungUp):
        return signal.SIGHUP
    return signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
