"""Margins in another order than --data: labels given beside them are compared, and refused where they differ.

Without labels a line says that the order is taken on trust.
"""

from pathlib import Path

import numpy as np

from memscore.data.datasets import load_dataset
from tests.cases._support import CommandResult, run_case, run_command


def check(folder: Path) -> list[str]:
    splits, rng, problems = load_dataset("digits", validation=0.0), np.random.default_rng(0), []
    n_train = len(splits.train)
    member = rng.random((16, n_train)) < 0.5
    gap = rng.normal(1.0 + member)
    order = rng.permutation(n_train)
    arrays = {
        "member": member[:, order],
        "gap": gap[:, order],
        "theirs": splits.train.labels[order],
        "ours": splits.train.labels,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)

    def import_bank(name: str, *words: str) -> CommandResult:
        files = ("--member", str(folder / "member.npy"), "--gap", str(folder / "gap.npy"), "--data", "digits")
        return run_command(folder, "memscore.bank", "import", str(folder / name), *files, *words)

    agreeing = import_bank("a", "--labels", str(folder / "ours.npy"))
    if agreeing.returncode:
        problems.append(f"labels that agree with --data cannot be given as a check: {agreeing.output.strip()[-110:]!r}")
    differing = import_bank("b", "--labels", str(folder / "theirs.npy"))
    if not differing.refusal or not differing.explains(r"(?=.*label)(?=.*(disagree|differ|\border\b))"):
        problems.append(f"labels in another order are not refused as such (exit code {differing.returncode})")
    trusting = import_bank("c")
    if not trusting.explains(r"\border\b"):
        problems.append("without labels, ids and pictures are joined by position, and no line says so")
    return problems


if __name__ == "__main__":
    run_case(check)
