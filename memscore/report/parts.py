"""Parts of a page: a section's tables in groups, with what a reader must know, and what its figures are drawn from."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from memscore.report.page_tables import PageTable


class Warned(NamedTuple):
    """Something that a reader must know: "error", "warning" or "ok", and a line."""

    level: str
    text: str


class Figure(NamedTuple):
    """A picture that the store has, and its caption."""

    png: bytes
    caption: str

    @property
    def base64(self) -> str:
        """The picture as a page holds it."""
        return b64encode(self.png).decode()


@dataclass(frozen=True, kw_only=True, eq=False)
class PartGroup:
    """Some tables of a part under a heading, such as those of one arm, sweep or audit."""

    title: str = ""
    lines: Sequence[str] = ()
    warnings: Sequence[Warned] = ()
    tables: Sequence[PageTable] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A section of a page.

    Attributes:
        id: of the section, by which the page's script finds the place of its figures.
        title: its heading.
        lead: what it shows, in a line or two.
        groups: its tables.
        warnings: what holds for all of it.
        meta: what the page's script draws, by the names of its entries.
    """

    id: str
    title: str
    lead: str
    groups: list[PartGroup]
    warnings: Sequence[Warned] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    def list_tables(self) -> Iterator[PageTable]:
        """List its tables in their order."""
        for group in self.groups:
            yield from group.tables
