"""Ties in scores: AUC, rates and the drawn curve of a coin flip, in any order of rows; a bank of margins -1 and 1."""

from pathlib import Path

import numpy as np

from memscore.statistics.roc import auc, compute_roc_band, compute_tprs, tpr_at_fpr
from tests.cases._support import read_attacks, run_case, run_command


def check(folder: Path) -> list[str]:
    problems, rng = [], np.random.default_rng(0)
    tied, member = np.array([9.0, 9.0, 5.0, 5.0]), np.array([True, False, True, False])
    if auc(tied, member) != 0.5:
        problems.append(f"AUC of a coin flip is {auc(tied, member)}")
    fprs = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    for name, scores in (("two levels", tied), ("one level", np.zeros(4))):
        answers = set()
        for _ in range(20):
            order = rng.permutation(4)
            shuffled, truth = scores[order], member[order]
            curve = compute_tprs(shuffled, truth, fprs)
            answers.add((auc(shuffled, truth), tpr_at_fpr(shuffled, truth, 0.5).value, tuple(curve)))
            if curve[-1] != 1:
                problems.append(f"{name}: the curve ends at {curve[-1]}")
        if len(answers) > 1:
            problems.append(f"{name}: {len(answers)} different answers under permutation")
    drawn = compute_roc_band(np.zeros((2, 100)), np.tile(np.arange(100) % 2 == 0, (2, 1)))
    if drawn.mean[-1] != 1 or drawn.mean[:-1].any():
        problems.append(f"the band of equal scores is {drawn.mean[:2]} ... {drawn.mean[-2:]}")

    members = rng.random((32, 200)) < 0.5
    gap = np.where(rng.random((32, 200)) < 0.5 + 0.2 * members, 1.0, -1.0)
    gap[:, 5] = 1.0
    np.save(folder / "member.npy", members)
    np.save(folder / "gap.npy", gap)
    words = ("--member", str(folder / "member.npy"), "--gap", str(folder / "gap.npy"))
    result = run_command(folder, "memscore.bank", "import", str(folder / "bank"), *words)
    if result.returncode:
        problems.append(f"margins that are -1 or 1: exit code {result.returncode}, {result.output.strip()[-200:]}")
    elif not all((numbers["auc"][0] or 0) > 0.5 for numbers in read_attacks(folder / "bank").values()):
        problems.append(f"margins that are -1 or 1: {read_attacks(folder / 'bank')}")
    return problems


if __name__ == "__main__":
    run_case(check)
