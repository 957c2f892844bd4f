"""Patterns of paths within a store, as weights/KEY.safetensors: a word in capitals is a part that varies."""

import re
from functools import cache

HASH = "[0-9a-f]{64}"
SCENARIOS = "scenarios"
"""Folder of the stores within a store, one for each forget set that changes the data."""
WORDS = {
    "KEY": HASH,
    "MODEL": rf"(?!{HASH}-|oracle-)[^/]+-\d{{5,}}",
    "PROXY": r"(?!evaluation\b|rescored\b)[^/]+",
}
"""Words of patterns that stand for something narrower than any name."""


@cache
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern to a regular expression."""
    parts = re.split(r"([A-Z]+)", pattern)  # every second part is a word in capitals
    return re.compile("".join(WORDS.get(part, "[^/]+") if k % 2 else re.escape(part) for k, part in enumerate(parts)))


def split_scenario(path: str) -> tuple[str, str]:
    """Split a path within a store into the store within it, with a last slash or empty, and the path in that one."""
    inner = re.sub(rf"^({SCENARIOS}/[^/]+/)+", "", path)
    return path[: len(path) - len(inner)], inner


def get_stem(path: str) -> str:
    """Return the name of a file without its ending."""
    return path.rpartition("/")[2].rpartition(".")[0]
