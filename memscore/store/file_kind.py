"""One kind of file of a store: what it holds, how it is checked, what implies it, what rebuilds it."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from memscore.store.file_formats import Format
from memscore.store.path_patterns import compile_pattern
from memscore.store.stored_files import StoredFiles

Paths = Callable[[StoredFiles], Iterable[str]]
Reasons = Callable[[StoredFiles], Iterable[tuple[str, str]]]


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """One kind of file.

    Attributes:
        pattern: its path in a store; a word in capitals stands for a part that varies, see path_patterns.py.
        format: what it is encoded as, which says how its bytes are checked.
        content: what it holds, in one line for users.
        rebuild: what to do where a file of this kind, at this path, is missing or damaged; names a command. Empty for
            files whose loss changes nothing.
        expected: paths of this kind that other files imply; None if nothing does, so that a loss cannot be seen.
        stale: path and what to do, for files computed from others than are stored now.
        conflicts: path and reason, for files that are intact but do not go with the others.
        completed_by: pattern of a file that tells commands that this one is stored; it is moved away with this one,
            since otherwise no command would write this one again.
    """

    pattern: str
    format: Format
    content: str
    rebuild: Callable[[StoredFiles, str], str]
    expected: Paths | None = None
    stale: Reasons | None = None
    conflicts: Reasons | None = None
    completed_by: str = ""

    @property
    def regex(self) -> re.Pattern[str]:
        """The pattern as a regular expression."""
        return compile_pattern(self.pattern)
