"""How much memory the content of a user's file may take as it is read: --max-bytes, or $MEMSCORE_MAX_BYTES.

A file of a few hundred bytes can claim, or unpack to, more than any machine has. Readers therefore ask here before they
take memory, with the size that the file states, and read no more than that.
"""

import os
import re
import resource
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from memscore.units import format_size

VARIABLE, OPTION = "MEMSCORE_MAX_BYTES", "--max-bytes"
DEFAULT_SHARE = 0.75
"""Share of the machine's memory: reading images takes up to 1.3 times their size."""
LARGEST = 10**18
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {f"{letter}I": 1024**power for power, letter in enumerate("KMGT", start=1)}
CGROUP_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def parse_size(text: str, option: str = OPTION) -> int:
    """Read a number of bytes such as 64GB, 500M, 16GiB or 2000000.

    Args:
        text: a number with a unit of thousands, or of 1024 with an i; the B may be left out.
        option: for the message.

    Returns:
        The number of bytes.

    Raises:
        ValueError: another form, or 0.

    >>> parse_size("64GB"), parse_size("1.5 k"), parse_size("1GiB")
    (64000000000, 1500, 1073741824)
    """
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?)\s*([KMGT]?I?)B?", text.strip().upper())
    size = int(float(match[1]) * UNITS[match[2]]) if match and match[2] in UNITS else 0
    if size < 1:
        raise ValueError(f"{option} is a number of bytes, got {text!r}; write 64GB, 500MB or 2000000")
    return size


def measure_memory() -> int:
    """Return the bytes of memory that this process may have: the machine's, its container's, or ulimit's."""
    # What a container or ulimit takes away does not show in the machine's own number; whoever takes more is killed
    # without a word, or gets a MemoryError at some later allocation.
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    for file in map(Path, CGROUP_FILES):
        if file.is_file() and (text := file.read_text().strip()).isdecimal():  # "max" where there is no limit
            limits.append(int(text))
    return min(limits)


def get_max_bytes() -> int:
    """Return the limit: $MEMSCORE_MAX_BYTES, which --max-bytes sets, else 3/4 of this machine's memory.

    Returns:
        A number of bytes.

    Raises:
        ValueError: the variable holds no size.
    """
    if text := os.environ.get(VARIABLE):
        return parse_size(text, f"${VARIABLE}")
    return int(measure_memory() * DEFAULT_SHARE)


@contextmanager
def set_max_bytes(text: str | None) -> Generator[None, None, None]:
    """Set the limit inside this block, for this process and those that it starts.

    Args:
        text: the value of --max-bytes; None leaves the limit as it is.

    Yields:
        Nothing.

    Raises:
        ValueError: no size.
    """
    if text is None:
        yield
        return
    parse_size(text)
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = text
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def require_memory(n_bytes: int, content: str, advice: str = "") -> None:
    """Refuse content that is larger than the limit.

    Args:
        n_bytes: what it takes in memory.
        content: what it is and where it is from, for the message.
        advice: what to do; raising the limit is named in any case.

    Raises:
        ValueError: it is larger.
    """
    limit = get_max_bytes()
    if n_bytes > limit:
        is_given = bool(os.environ.get(VARIABLE))
        what = f"{OPTION} allows {format_size(limit)}"
        if not is_given:
            what = f"3/4 of this machine's memory are {format_size(limit)}"
        # the lengths of many axes multiply to numbers that no float holds
        size = format_size(n_bytes) if n_bytes < LARGEST else "more than 10^18 bytes"
        raise ValueError(
            f"{content} would take {size} of memory, and {what}; "
            f"{advice + ', or ' if advice else ''}give more with {OPTION} if you trust the file"
        )


def read_whole_file(path: Path) -> bytes:
    """Read a file that fits into memory.

    Args:
        path: the file.

    Returns:
        The content.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is larger than the limit, or no regular file.
    """
    # a named pipe or a device has no size, and may never end
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError(f"{path} is no regular file; give a file")
    require_memory(facts.st_size, str(path))
    return path.read_bytes()
