"""One kind of file of a store: what it holds, how it is checked, what implies it, what rebuilds it."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from memscore.store.file_formats import Format
from memscore.store.parquet import decode_metadata
from memscore.store.stored_files import HASH, StoredFiles

WORDS = {
    "KEY": HASH,
    "MODEL": rf"(?!{HASH}-|oracle-)[^/]+-\d{{5,}}",
    "PROXY": r"(?!evaluation\b|rescored\b)[^/]+",
}
"""Words of patterns that stand for something narrower than any name."""


Paths = Callable[[StoredFiles], Iterable[str]]
Reasons = Callable[[StoredFiles], Iterable[tuple[str, str]]]


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """One kind of file.

    Attributes:
        pattern: its path in a store; a word in capitals stands for a part that varies, see WORDS.
        format: what it is encoded as, which says how its bytes are checked.
        content: what it holds, in one line for users.
        rebuild: what to do where a file of this kind, at this path, is missing or damaged; names a command. Empty for
            files whose loss changes nothing.
        expected: paths of this kind that other files imply; None if nothing does, so that a loss cannot be seen.
        stale: path and what to do, for files computed from others than are stored now.
        conflicts: path and reason, for files that are intact but do not go with the others.
        completed_by: pattern of a file that tells commands that this one is stored; it is moved away with this one,
            since otherwise no command would write this one again.
        entries: keys of the record, or columns of the table, that every file of this kind has; a word in capitals
            stands for the file's name.
        named_by: key of the record, or metadata entry of the table, that names what the file is of: its name, or the
            hash that its name begins with.
    """

    pattern: str
    format: Format
    content: str
    rebuild: Callable[[StoredFiles, str], str]
    expected: Paths | None = None
    stale: Reasons | None = None
    conflicts: Reasons | None = None
    completed_by: str = ""
    entries: tuple[str, ...] = ()
    named_by: str = ""

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The pattern as a regular expression."""
        parts = re.split(r"([A-Z]+)", self.pattern)  # every second part is a word in capitals
        return re.compile(
            "".join(WORDS.get(part, "[^/]+") if k % 2 else re.escape(part) for k, part in enumerate(parts))
        )

    def find_mixup(self, path: str, content: pa.Schema | dict[str, Any] | None) -> str:
        """Return why an intact file is not what its path says, as after a wrong copy; empty if it is."""
        if content is None:
            return ""
        stem = path.rpartition("/")[2].rpartition(".")[0]
        is_record = isinstance(content, dict)
        entries = list(content) if isinstance(content, dict) else content.names
        values: Mapping[str, Any] = content if isinstance(content, dict) else decode_metadata(content)
        for entry in (stem if entry.isupper() else entry for entry in self.entries):
            if entry not in entries:
                return f"it is another file, without {'an entry' if is_record else 'a column'} {entry!r}"
        key = re.match(HASH, stem)
        name = values.get(self.named_by, stem) if self.named_by else stem
        return "" if name in {stem, key and key[0]} else f"it is the file of {name}"
