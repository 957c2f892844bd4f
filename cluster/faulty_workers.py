"""Find out whether a job or its worker is at fault: another worker tries the same job.

A process can be unable to work in ways that no error names: a library that failed to load, a full scratch disk. It
fails faster than others work, and so would take most of the queue. A job that raises is no sign of that, and several in
a row are none either, since faulty jobs stand side by side in a queue. So the last of them is tried by a worker whose
own jobs succeed, and the first one gets no job until then:

    it succeeds there           the worker is at fault, and replaced
    it raises there too         the job is; the worker goes on, and twice as many of its jobs must raise next time
    all others raise as well    nobody can tell, and nothing is replaced; the same with one worker

A job that lost its GPU needs no such test, for its process is replaced at once; but if others then succeed with what
was lost in one place, that place is at fault. A place (a node, or the GPUs of a worker) that has been at fault
MAX_FAULTS times since a job last succeeded there gets no more jobs.
"""

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

MAX_RAISED = 3  # jobs in a row
MAX_FAULTS = 3
# Workers that have done jobs and are replaced for exceptions later, in a run; or as many as there are workers, if more.
# Exceptions that come and go at random look the same, and would replace workers for ever.
MAX_REPLACED = 10
MAX_WAIT_FOR_START_S = 60.0  # no worker is ready to try a job, but some are starting

Place = tuple[str, tuple[str, ...]]  # id of a node, ids of GPUs on it


@dataclass(eq=False)
class WorkerSlot:
    """An actor: starting while it has no node, busy while it has a task, else idle, suspected or retired."""

    actor: Any
    node: str = ""
    gpus: tuple[str, ...] = ()
    label: str = "a worker"  # for messages
    task: "Task | None" = None
    started_at: float = 0
    concurrent: int = 0  # most slots that were busy at once while it had its task, this one included
    reused: bool = False  # it worked in an earlier run
    succeeded: bool = False  # with any job
    raised: int = 0  # how many of its last jobs raised
    max_raised: int = MAX_RAISED  # how many may, before another worker tries the last of them

    @property
    def place(self) -> Place:
        """Where it runs."""
        return self.node, self.gpus


@dataclass(eq=False)
class Task:
    """A job, and how often it was interrupted."""

    job: Any
    attempts: int = 0
    node_losses: int = 0
    lost_gpus: set[Place] = field(default_factory=set)  # places where its worker lost the GPU
    suspect: WorkerSlot | None = None  # the worker on which it raised, while another one is to try it
    error: str = ""  # what it raised there


class FaultyWorkers:
    """What is known of the workers of one run.

    Attributes:
        suspected: workers without a job until another one has tried the job that raised last, and since when.
        retired: workers that get no more jobs. They live, so that no successor starts in their place.
    """

    def __init__(self) -> None:
        self.suspected: dict[WorkerSlot, float] = {}
        self.retired: list[WorkerSlot] = []
        self.n_replaced = 0
        self._n_faults: Counter[Place] = Counter()

    def may_take(self, slot: WorkerSlot, task: Task, started: Collection[WorkerSlot]) -> bool:
        """Return whether a worker may be given a task; `started` are all that could be, busy ones too."""
        # one that has not done a job yet may be unable to work itself
        if task.suspect is not None:
            proven = slot.succeeded or not any(other.succeeded and other.raised == 0 for other in started)
            return slot.raised == 0 and proven
        # in another place than where it lost its GPU, if there is one
        return slot.place not in task.lost_gpus or all(other.place in task.lost_gpus for other in started)

    def record_success(self, slot: WorkerSlot, task: Task) -> WorkerSlot | None:
        """Record a result; return the worker that is at fault, because it raised an exception in the same job."""
        slot.succeeded, slot.raised, slot.max_raised = True, 0, MAX_RAISED
        self._n_faults.pop(slot.place, None)
        self._n_faults.update(task.lost_gpus - {slot.place})
        suspect, task.suspect = task.suspect, None
        if suspect is not None:
            del self.suspected[suspect]
            self.n_replaced += suspect.succeeded
            self._n_faults[suspect.place] += 1
        return suspect

    def record_error(
        self, slot: WorkerSlot, task: Task, error: str, started: Collection[WorkerSlot], starting: bool
    ) -> bool:
        """Record that a job raised; return whether another worker is to try it, and the worker gets no job until then.

        `starting`: whether workers are starting that could try it.
        """
        slot.raised += 1
        if slot.raised < slot.max_raised or (slot.succeeded and self.n_replaced >= max(MAX_REPLACED, len(started))):
            return False
        # also one that is busy, since it will have ended its job: meanwhile this worker could fail all others
        if not starting and not any(other.raised == 0 for other in started):
            return False
        task.suspect, task.error = slot, error
        self.suspected[slot] = time.monotonic()
        return True

    def end_suspicion(self, task: Task) -> WorkerSlot | None:
        """Return the worker that was suspected because of a task, for it is not known to be at fault."""
        suspect, task.suspect = task.suspect, None
        if suspect is not None:
            del self.suspected[suspect]
            suspect.max_raised = 2 * suspect.raised
        return suspect

    def find_untestable(self, tasks: Collection[Task], started: Collection[WorkerSlot], starting: bool) -> list[Task]:
        """Return those of the queued tasks that no worker is left to try, because all others raise as well by now."""
        if not self.suspected or any(other.raised == 0 for other in started):
            return []
        first = time.monotonic() - MAX_WAIT_FOR_START_S * starting
        return [task for task in tasks if task.suspect is not None and self.suspected[task.suspect] <= first]

    def must_retire(self, slot: WorkerSlot, started: Collection[WorkerSlot]) -> bool:
        """Return whether a worker that failed gets no successor in its place; the last one always does."""
        return self._n_faults[slot.place] >= MAX_FAULTS and any(other is not slot for other in started)
