"""Errors about a user's data name the file or folder that they are from."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def name_in_errors(path: Path) -> Generator[None, None, None]:
    """Put a path before the message of a ValueError that does not name it.

    Args:
        path: of what is read inside this block.

    Yields:
        Nothing.

    Raises:
        ValueError: as inside the block, with the path.
    """
    try:
        yield
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error
