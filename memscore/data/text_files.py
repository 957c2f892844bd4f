"""Read text files of a user: tables, annotations, lists."""

from pathlib import Path

from memscore.reading_limit import read_whole_file, require_memory

SEPARATORS = b",;\t|"
CELL_BYTES, LINE_BYTES = 64, 512
"""What Python adds to a cell and to a line of a table; of a file of short lines that is most of the memory."""


def read_text(path: Path, advice: str) -> str:
    """Read text with or without a byte order mark, which tools of Windows write; UTF-16 only with one.

    Args:
        path: the file.
        advice: what to do where it is no text, for the message.

    Returns:
        The text.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no text, or its cells do not fit into memory.
    """
    content = read_whole_file(path)
    # Counted before anything is split: a file of empty lines takes more than a hundred times its size.
    n_cells, n_lines = sum(content.count(mark) for mark in SEPARATORS), content.count(b"\n") + content.count(b"\r")
    require_memory(4 * len(content) + CELL_BYTES * n_cells + LINE_BYTES * n_lines, f"{path}, read as text,")
    try:
        return content.decode("utf-16" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}); {advice}") from None
