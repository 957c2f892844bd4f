"""What Ctrl-C, SIGTERM and SIGHUP do to a command: the first one unwinds it, and none ever shows a traceback.

    while modules are imported      one line, and the process ends: an exception would come up through a module that is
                                    half imported
    the first one                   raises KeyboardInterrupt, Terminated or HungUp, so that locks are released
    later ones, within a second     ignored: keys are pressed twice, and a shell sends several signals as it ends
    later ones, after that          one line, and the process ends at once
    after the command               the process ends at once, also where Python is already ending it

An ignored signal stays ignored, as SIGHUP under nohup, and a handler of a program that runs a command inside itself
stays too.
"""

import _thread
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

AGAIN_AFTER_S = 1.0
REPEAT_AFTER_S = 0.05


class Terminated(KeyboardInterrupt):
    """SIGTERM, which `ray job stop` sends; it unwinds like Ctrl-C, so that locks are released."""


class HungUp(Terminated):
    """SIGHUP: the terminal is gone, as when an SSH connection is lost."""


EXCEPTIONS: dict[int, type[KeyboardInterrupt]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
    signal.SIGHUP: HungUp,
}


class StopHandler:
    """Handles the signals of one command; see the table above."""

    def __init__(self) -> None:
        self.has_ended = False
        self._number = 0
        self._first_at: float | None = None
        # Python may call it while it is ending and modules have lost their contents.
        self._clock, self._write, self._exit = time.monotonic, os.write, os._exit
        self._exceptions, self._again_after_s, self._hangup = EXCEPTIONS, AGAIN_AFTER_S, int(signal.SIGHUP)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Act on a signal."""
        if self.has_ended:
            self._exit(128 + number)
        if self._first_at is None:
            self._number, self._first_at = number, self._clock()
            if number == self._hangup:
                discard_lost_output()
            raise self._exceptions[number]
        # It never raises a second time: who catches the first one may have left its `try` by now.
        if self._clock() - self._first_at < self._again_after_s:
            return
        self._write(2, b"interrupted again: ended at once\n")
        self._exit(128 + number)

    def repeat_lost(self, unraisable: Any) -> bool:
        """Repeat a signal whose exception was raised where Python can only print it; return whether it was one."""
        if self._first_at is None or not isinstance(unraisable.exc_value, KeyboardInterrupt):
            return False
        self._first_at = None
        # Not here: what this raised could only be printed too.
        timer = threading.Timer(REPEAT_AFTER_S, _thread.interrupt_main, [self._number])
        timer.daemon = True
        timer.start()
        return True


@contextmanager
def handle_stop_signals() -> Generator[None, None, None]:
    """Handle the signals within the block; and from then on, if the command is the main program (quiet_interrupt)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A former handler that is another program's own stays, as does SIG_IGN, which nohup sets.
    handler = StopHandler()
    before = {number: signal.getsignal(number) for number in EXCEPTIONS}
    is_main_program = before[signal.SIGINT] is _exit_immediately
    replaced = [
        number
        for number, former in before.items()
        if former in (signal.default_int_handler, signal.SIG_DFL, _exit_immediately)
    ]
    hook = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None if handler.repeat_lost(unraisable) else hook(unraisable)
    for number in replaced:
        signal.signal(number, handler)
    try:
        yield
    finally:
        # The main program keeps the handler: Python takes most of a second to end, and prints what is raised meanwhile.
        handler.has_ended = True
        if not is_main_program:
            sys.unraisablehook = hook
            for number in replaced:
                signal.signal(number, before[number])


def quiet_interrupt() -> None:
    """End the process with one line on Ctrl-C, until a command handles it.

    A command calls this above its imports if it is the main program.
    """
    # only the main thread may set handlers, and only Python's own is replaced: not that of a program that imports this
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if the parent ignores it
        signal.signal(signal.SIGINT, _exit_immediately)


@contextmanager
def quiet_interrupt_during_imports() -> Generator[None, None, None]:
    """End the process with one line on Ctrl-C inside this block.

    Commands import what takes seconds inside their function and this block, so that --help and a typing error answer at
    once.
    """
    former = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or not (former is signal.default_int_handler or isinstance(former, StopHandler)):
        yield
        return
    signal.signal(signal.SIGINT, _exit_immediately)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def discard_output(*descriptors: int) -> None:
    """Send what is still written to these descriptors nowhere; Python would complain as it flushes it at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def is_output_closed(descriptor: int = 1) -> bool:
    """Return whether nobody reads this process's output any more, as after `| head`, or of a terminal that is gone."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def discard_lost_output() -> None:
    """Send output and errors nowhere where they would go to a terminal that is gone, whose writes fail."""
    discard_output(*filter(is_output_closed, (1, 2)))


def _exit_immediately(number: int, frame: FrameType | None) -> None:
    """Exit at once, without running code of modules that are half imported."""
    # not sys.stderr: the signal may have interrupted a buffered write, which is not reentrant
    os.write(2, b"interrupted before anything was started\n")
    os._exit(130)
