"""What the driver knows of one search on Ray Tune: attempts under way, how they end, when to warn and when to leave."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import ray

from cluster.pool import AGAIN, ClusterLost, Failure
from cluster.ray_run import ATTEMPTS, FULL_S, TICK_S
from cluster.ray_seats import dismiss, refuse_to_wait, say_no_room
from cluster.ray_words import Ear
from cluster.ray_worker import Raised
from cluster.search import Attempt, Told, Turns

_log = logging.getLogger(__name__)


class Unfit(str):
    """Why a worker cannot load the function."""


class Desk:
    """The state of one search; what talks to Tune calls ask, end, lose and look.

    Args:
        turns: what is tried next.
        told: as of the search.
        ear: where the workers' warnings come in.
        room: how many attempts may be under way, as things stand now.
        setbacks: counts what ended an attempt's process.
        wait_s: how long no worker at all may be placed.
        silence_s: after how long without an end the user is told.

    Attributes:
        stop: the exception that ended the search.
    """

    def __init__(
        self,
        turns: Turns,
        told: Told,
        *,
        ear: Ear,
        room: Callable[[], int],
        setbacks: Counter[str],
        wait_s: float,
        silence_s: float,
    ) -> None:
        self.turns, self.told, self.ear, self.setbacks, self.wait_s = turns, told, ear, setbacks, wait_s
        self.first = turns.next()  # nothing is begun where there is nothing to try
        self.drawn = False  # whether there is nothing more to try
        self.under_way: dict[str, Attempt] = {}  # by Tune's id, those that wait for a worker too
        self.running: dict[str, float] = {}  # by Tune's id, since when
        self.ended: list[tuple[Attempt, dict[str, Any] | Failure]] = []
        self.finished = 0
        self.actors: set[Any] = set()
        self.stop: BaseException | None = None
        self.signals: Sequence[int] = ()
        self._home = ray.get_runtime_context().get_node_id()
        self._look_up, self._room, self._room_at = room, 0, float("-inf")
        self._alive_at = self._heard_at = self._looked_at = time.monotonic()
        self._patience_s, self._told_full = silence_s, False

    def ask(self, number: str) -> Attempt | None:
        """The next attempt, under Tune's id, if there is room for one and one is left."""
        now = time.monotonic()
        if now - self._room_at > TICK_S:
            self._room, self._room_at = self._look_up(), now
        if len(self.under_way) >= self._room:
            return None
        attempt, self.first = self.first or self.turns.next(), None
        if attempt is None:
            self.drawn = True
        else:
            self.under_way[number] = attempt
        return attempt

    def end(self, number: str, outcome: Any) -> None:
        """An attempt ended, as it says itself."""
        attempt = self.under_way.pop(number)
        self.running.pop(number, None)
        if isinstance(outcome, Unfit):
            text = f"workers cannot load the search's function: {outcome}; install its module on all nodes"
            self.stop = self.stop or RuntimeError(text)
        elif isinstance(outcome, Raised) and outcome.stop is not None:
            self.stop = self.stop or outcome.stop
        elif isinstance(outcome, Raised):
            self.ended.append((attempt, Failure(error=outcome.error, traceback=outcome.traceback)))
        else:
            self.ended.append((attempt, outcome))

    def recover(self, number: str) -> None:
        """An attempt has lost its process, and will be made again in another."""
        self.running.pop(number, None)
        self.setbacks["worker"] += 1
        attempt = self.under_way[number]
        _log.warning(
            "a worker was lost, and the attempt that it was at is made again: %s %s", attempt.arm.name, attempt.values
        )

    def lose(self, number: str, said: str) -> None:
        """An attempt ended with its process, for the last time."""
        if "in its creation task" in said:
            self.stop = self.stop or ClusterLost(f"workers cannot start: {' '.join(said.split())[:500]}; {AGAIN}")
        self.end(number, _lost(said))

    def look(self) -> None:
        """Tell what has ended, and leave Tune where the search must end."""
        try:
            self.ear.listen()
            while self.ended:
                attempt, outcome = self.ended.pop(0)
                self.finished, self._heard_at = self.finished + 1, time.monotonic()
                self.turns.learn(attempt, outcome)
                self.told(attempt.arm, attempt.values, outcome)
            if self.stop is None and not self.signals:
                self._wait()
        except BaseException as error:
            self.stop = self.stop or error
        if self.stop is not None or self.signals:
            dismiss(self.actors)  # Tune would wait for them
            raise Over

    def _wait(self) -> None:
        """Say it where nothing goes on, and give up where nothing can."""
        now = time.monotonic()
        if now - self._looked_at < TICK_S:
            return
        self._looked_at = now
        if self.running or not self.under_way:
            self._alive_at = now
        elif (waited_s := now - self._alive_at) > TICK_S:
            refuse_to_wait(waited_s, self.wait_s, self._home)
            if waited_s > FULL_S and not self._told_full:
                self._told_full = True
                say_no_room(waited_s, self.wait_s)
        longest_s = max((now - since for since in self.running.values()), default=0)
        if min(longest_s, now - self._heard_at) > self._patience_s:
            self._patience_s *= 2
            _log.warning(
                "no attempt has ended for %.0f min; running: %d, one for %.0f min; ended: %d. None is killed. If this "
                "is too long, press Ctrl-C: what has ended is kept, and the same command goes on",
                (now - self._heard_at) / 60,
                len(self.running),
                longest_s / 60,
                self.finished,
            )


class Over(Exception):
    """The search ends here, for a reason that the desk has."""


def _lost(said: str) -> Failure:
    """Why the worker of an attempt was lost the last time; from Tune's account, which has text only."""
    last = said.rpartition("Failure # ")[2].strip()
    if "low on memory" in last:
        error = "its node ran low on memory and Ray killed the worker"
        return Failure(error=error, kind="memory", attempts=ATTEMPTS, traceback=last)
    if "OutOfMemoryError" in last:
        return Failure(error=last.splitlines()[-1].strip(), kind="memory", attempts=ATTEMPTS, traceback=last)
    return Failure(error="its worker process died", kind="worker", attempts=ATTEMPTS, traceback=last)
