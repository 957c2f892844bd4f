"""Run one process to its end and measure what it took."""

import os
import resource
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def run_timed(
    command: Sequence[str], folder: Path | None = None
) -> tuple[subprocess.CompletedProcess[str], dict[str, float]]:
    """Run a command with one thread.

    Args:
        command: the words.
        folder: where it starts (default: here).

    Returns:
        What it said, and its seconds by the wall ("wall_s") and of the processor ("cpu_s"), its own processes included.
    """
    used, started = measure_children(), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    return done, {"wall_s": time.perf_counter() - started, "cpu_s": measure_children() - used}


def measure_children() -> float:
    """Processor seconds of all processes that this one started and that ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
