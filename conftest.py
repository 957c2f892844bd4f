"""Only files with an example in a docstring are searched for one: to search all takes seconds in each process."""

from collections.abc import Generator
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Drop the collector of doctests of a file that has none."""
    collectors = yield
    return [
        collector
        for collector in collectors
        if type(collector).__name__ != "DoctestModule" or ">>>" in file_path.read_text()
    ]
