"""Banks that differ in --queries give other AUCs: the printed page and summary.json say how many queries it was."""

import re
from pathlib import Path
from typing import Any

from tests.cases._support import read_summary, require_success, run_case, run_command


def check(folder: Path) -> list[str]:
    problems = []
    for queries in (1, 2):
        bank = folder / f"queries-{queries}"
        words = (
            "memscore.estimate", "--train-limit", "300", "--epochs", "3", "--augment", "flip", "--design", "exact",
            "--block", "16", "--models", "16", "--originals", "0", "--pool", "serial",
            "--queries", str(queries), "--store", str(bank),
        )  # fmt: skip
        page = require_success(run_command(folder, *words)).stdout.replace(bank.name, "bank")
        if not re.search(rf"\b{queries} quer|quer\w*\W+{queries}\b", page):
            problems.append(f"--queries {queries}: the printed page does not say so")
        if queries not in find_values(read_summary(bank), "queries"):
            problems.append(f"--queries {queries}: reports/summary.json does not say so")
    return problems


def find_values(record: Any, key: str) -> list[Any]:
    """Values of a key at any depth."""
    if isinstance(record, list):
        return [value for each in record for value in find_values(each, key)]
    if not isinstance(record, dict):
        return []
    own = [record[key]] if key in record else []
    return own + [value for each in record.values() for value in find_values(each, key)]


if __name__ == "__main__":
    run_case(check)
