"""What surrounds Ray Tune while it runs: its settings, and signals that wait until it has tidied up."""

import logging
import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's own ends after half a minute, and only on a second Ctrl-C at once
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # else three files an attempt
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they are told as Failures
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints tables even at verbose=0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a relative path means the same as in a pool
}


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Tune's settings, for as long as it runs."""
    before = {name: os.environ.get(name) for name in SETTINGS}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ |= SETTINGS
    logger.setLevel(logging.CRITICAL)  # its warnings and errors are said here, in words that name a way out
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextmanager
def held_signals() -> Generator[list[int], None, None]:
    """Ctrl-C and SIGTERM wait until the block has ended, and then do what they did before; a second one does not wait.

    Yields:
        The first that came, as a list that is empty until then.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)

    def note(number: int, frame: Any) -> None:
        came.append(number)
        if len(came) > 1:
            restore()
            signal.raise_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if before[number] not in {None, signal.SIG_IGN}:
            signal.signal(number, note)
    try:
        yield came
    finally:
        restore()  # of SIGUSR1 too, which Tune takes
        if came:
            signal.raise_signal(came[0])
