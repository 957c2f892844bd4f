"""Say in one line that this machine's memory ran out, and where."""

import re
import traceback

OWN_PACKAGES = ("memscore.", "unlearn.", "cluster.")
TORCH_TEXT = re.compile(r"DefaultCPUAllocator: (?:can't allocate|not enough) memory")


def is_memory_error(error: BaseException) -> bool:
    """Return whether an error says that this machine's memory ran out; torch has no class of its own for that."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(TORCH_TEXT.search(str(error))))


def describe_memory_error(error: BaseException) -> str:
    """Describe in one line which part of the program wanted how much memory, and what to do."""
    # The innermost function of our own says what was being done; NumPy's or torch's below it would not, nor would those
    # that call a command.
    places = [
        f"{module}.{frame.f_code.co_name}"
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if (module := str(frame.f_globals.get("__name__", ""))).startswith(OWN_PACKAGES)
        and not module.startswith("memscore.cli.")
    ]
    place = f" in {places[-1]}" if places else ""
    amount = f" ({' '.join(str(error).split())[:200]})" if str(error) else ""
    return (
        f"the memory of this machine ran out{place}{amount}; use smaller or fewer images, models or workers, or a "
        "machine with more memory; what is stored is kept"
    )
