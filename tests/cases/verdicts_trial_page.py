"""What a trial's page says: of a destroyed model, of what mia_test is, and of accuracy_test without the class.

Accuracy on all test examples contains the class that was to be forgotten.
"""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.cases._support import CaseError, CommandResult, require_success, run_case, run_command

DESTROYED = r"destroy|collaps|over-?unlearn|ruin|retain accuracy (is|fell|falls|of)"
KEPT_CLASSES = r"kept.class|remaining class|classes that stay|forgotten class|retained? class"
EXPLAINED = r"\bmia(_test)?\b.*(share|unseen|member)"


def check(folder: Path) -> list[str]:
    problems, bank = [], folder / "bank"
    words = (
        "memscore.estimate", "--design", "exact", "--block", "8", "--models", "8", "--originals", "1",
        "--pool", "serial", "--store", str(bank),
    )  # fmt: skip
    require_success(run_command(folder, *words))
    parameters = ("--set", "lr=3", "epochs=1", "batch=256")
    page = unlearn(folder, bank, "bad-teacher", "--forget", "random", "--size", "60", *parameters)
    accuracies = read_rows(bank, "bad-teacher", "retain_accuracy")
    if max(accuracies) >= 0.3:
        raise CaseError(f"bad-teacher at lr 3 no longer destroys the model: retain accuracy {accuracies}")
    if not page.explains(DESTROYED):
        before = np.mean(read_rows(bank, "original", "retain_accuracy"))
        problems.append(f"retain accuracy {np.mean(accuracies):.3f} for {before:.3f} of the original, and no word")

    page = unlearn(folder, bank, "original", "--forget", "class:3")
    if "accuracy_test" not in page.stdout:
        raise CaseError("the page has no accuracy_test any more")
    if not page.explains(KEPT_CLASSES):
        problems.append("class:3 is forgotten, accuracy_test contains it, and the page does not say so")
    if re.search(r"\bmia_test\b", page.stdout) and not page.explains(EXPLAINED):
        problems.append("mia_test is not explained: a share of what, and which value is good")
    return problems


def unlearn(folder: Path, bank: Path, algorithm: str, *words: str) -> CommandResult:
    seeds = ("--seeds", "2", "--pool", "serial")
    return require_success(run_command(folder, "unlearn.trial", str(bank), "--algorithm", algorithm, *words, *seeds))


def read_rows(bank: Path, algorithm: str, column: str) -> list[float]:
    """A column of the stored trials of one algorithm."""
    tables = [pq.read_table(path) for path in sorted((bank / "trials").glob("*.parquet"))]
    rows = [row for table in tables if "algorithm" in table.column_names for row in table.to_pylist()]
    values = [row[column] for row in rows if row["algorithm"] == algorithm]
    if not values or any(value is None for value in values):
        raise CaseError(f"no {column} of {algorithm} is stored: {values}")
    return values


if __name__ == "__main__":
    run_case(check)
