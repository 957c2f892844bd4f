"""What a user asks of a page: where it is written, and which images are in it."""

from dataclasses import dataclass

from memscore.cli.options import Maybe

EMBEDDED = 4000


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """Options of a page."""

    examples: int = EMBEDDED
    """thumbnails in the page: of the examples with the highest and the lowest memorization, half each; the others are
    written into NAME_files/ beside it"""
    beside: bool = True
    """write the thumbnails that are not in the page into NAME_files/ beside it; --no-beside leaves them out"""
    data: Maybe[str] = None
    """where the bank's images are now, by name or path, or module:function (default: where they were read)"""
    folder: Maybe[str] = None
    """folder of a downloadable data set (default: $MEMSCORE_DATA or ~/.cache/memscore/data)"""

    def __post_init__(self) -> None:
        if self.examples < 0:
            raise ValueError(f"--examples must be 0 or more, got {self.examples}; 0 puts no image into the page")
