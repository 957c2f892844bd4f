"""Mislabelled examples that are in the training set five times: a line counts exact copies within train.

Another does across train and test, and a trial that forgets one of five copies says that the others stay.
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from memscore.data.datasets import load_dataset
from tests.cases._support import CaseError, require_success, run_case, run_command

COPIES = r"(duplicate|\bcop(y|ies)\b|\btwins?\b|identical)"


def check(folder: Path) -> list[str]:
    splits, rng, problems = load_dataset("digits"), np.random.default_rng(0), []
    images, labels = splits.train.images[:, 0], splits.train.labels.copy()
    test_images, test_labels = splits.test.images[:, 0], splits.test.labels
    wrong = rng.choice(len(labels), 60, replace=False)
    labels[wrong] = (labels[wrong] + 1 + rng.integers(0, 8, 60)) % 10
    copied, leaked, single = wrong[:20], wrong[20:40], wrong[40:]
    data, bank = folder / "data.npz", folder / "bank"
    np.savez(
        data,
        train_images=np.concatenate([images, *[images[copied]] * 4]),
        train_labels=np.concatenate([labels, *[labels[copied]] * 4]),
        test_images=np.concatenate([test_images, images[leaked]]),
        test_labels=np.concatenate([test_labels, labels[leaked]]),
    )
    words = (
        "memscore.estimate", "--data", str(data), "--arch", "mlp", "--recipe", "digits", "--design", "exact",
        "--block", "16", "--models", "32", "--originals", "1", "--validation", "0", "--pool", "serial",
        "--store", str(bank),
    )  # fmt: skip
    estimate = require_success(run_command(folder, *words))
    table = pq.read_table(bank / "scores.parquet")
    memorization = np.array(table["memorization_k0.500"].to_pylist(), float)
    of_copied, of_single = np.nanmean(memorization[copied]), np.nanmean(memorization[single])
    if of_single - of_copied < 0.5:
        raise CaseError(f"copies no longer hide memorization here: {of_copied:.2f} with, {of_single:.2f} without")
    numbers = f"mean memorization {of_copied:.2f}, of examples without copies {of_single:.2f}"
    if not estimate.explains(rf"(?=.*{COPIES})(?=.*\d)(?=.*train)"):
        problems.append(f"estimate does not count 20 training examples with 4 copies each ({numbers})")
    if not estimate.explains(rf"(?=.*{COPIES})(?=.*\d)(?=.*test)"):
        problems.append("estimate does not count 20 training examples that are in the test set too")

    (folder / "one.txt").write_text(table["id"].to_pylist()[copied[0]])
    words = (
        "unlearn.trial", str(bank), "--data", str(data), "--algorithm", "finetune",
        "--forget", f"ids:{folder / 'one.txt'}", "--seeds", "1", "--pool", "serial",
    )  # fmt: skip
    trial = require_success(run_command(folder, *words))
    if not trial.explains(COPIES):
        advice = ", and its advice is a larger lr" if "larger lr" in trial.output else ""
        problems.append(f"a trial that forgets one of five copies does not say that four stay{advice}")
    return problems


if __name__ == "__main__":
    run_case(check)
