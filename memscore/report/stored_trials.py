"""Rows of trials that a store holds, read for a page: undefined values are NaN, and each row knows where it is from."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from memscore.analysis.trial_rows import Row
from memscore.report.omissions import Omission, read_or_omit
from memscore.store.store import Store
from memscore.store.trial_files import list_trials, read_trial
from memscore.units import format_count

THREADS = 8
MAX_TRIALS = 5000
ORACLE, ORIGINAL = "oracle", "original"
"""Names of the retrained model and of theta_o in rows."""


def read_rows(store: Store, path: str) -> list[Row]:
    """Read the rows of a sweep or an experiment; a number that is null is NaN."""
    table = store.read_table(path)
    # a column without any value has no type in the file
    numbers = {field.name for field in table.schema if pa.types.is_floating(field.type) or pa.types.is_null(field.type)}
    return [
        {name: math.nan if value is None and name in numbers else value for name, value in row.items()}
        for row in table.to_pylist()
    ]


def read_trial_rows(store: Store, names: Sequence[str], omissions: list[Omission]) -> list[Row]:
    """Read the rows of some trials; damaged ones are omitted."""

    def read(name: str) -> dict[str, Any] | None:
        return read_or_omit(f"the trial {name[:12]}", omissions, read_trial, store, name)

    with ThreadPoolExecutor(THREADS) as pool:
        return [row for row in pool.map(read, names) if row]


def list_readable_trials(store: Store, skipped: set[str], omissions: list[Omission]) -> list[str]:
    """List the trials that are no part of a sweep or an experiment; of very many only the first."""
    # a sweep of thousands of trials has its rows in one file, which is read instead
    names = [name for name in list_trials(store) if name not in skipped]
    if len(names) > MAX_TRIALS:
        reason = f"the page reads {format_count(MAX_TRIALS)}; sweeps and experiments have tables of their own"
        omissions.append(
            Omission(what=f"{format_count(len(names) - MAX_TRIALS)} further trials", reason=reason, is_fault=False)
        )
    return names[:MAX_TRIALS]


def name_method(row: Row) -> str:
    """Name the method of a row: the plan of a sequence, else its algorithm."""
    name = str(row.get("contender") or row.get("plan") or row["algorithm"])
    return name.replace(f"{ORIGINAL}>", "nothing>").replace(f">{ORIGINAL}", ">nothing")
