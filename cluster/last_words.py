"""A line for the user if this process is ended without a chance to say one.

When Ray's raylet or GCS is gone, Ray's own code ends the driver from within (`_Exit(1)`): no exception, no exit
handler. So a small process waits at the end of a pipe, and speaks if the pipe closes before it was told that all is
well.
"""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

WATCH = """
import sys
words = sys.stdin.read()
if not words.endswith("\\0"):
    sys.stderr.write(words)
"""


@contextmanager
def last_words(line: str) -> Generator[None, None, None]:
    """Have a line written to stderr should this process end within the block in any way but by leaving it.

    Args:
        line: what to say.

    Yields:
        Nothing.
    """
    speaker = subprocess.Popen(
        [sys.executable, "-ISc", WATCH],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process
    )
    assert speaker.stdin is not None  # for mypy: it was asked for
    speaker.stdin.write(f"{line}\n")
    speaker.stdin.flush()
    try:
        yield
    finally:
        speaker.stdin.write("\0")
        speaker.stdin.close()
        speaker.wait()
