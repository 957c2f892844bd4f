"""A TPR at FPR .1 % needs 1,000 non-members and one at 1 % needs 100: with fewer no value, and the reason is said."""

from pathlib import Path

import numpy as np

from memscore.data.datasets import load_dataset
from memscore.models.architectures import build_network
from tests.cases._own_model import audit, train_by_recipe, write_ids
from tests.cases._support import CaseError, read_attacks, require_success, run_case, run_command

REASON = r"false positive|finer than|cannot be realised|not realisable"
AT_1_PERCENT = rf"(?=.*(?<!\.)\b1 %)(?=.*({REASON}))"


def check(folder: Path) -> list[str]:
    problems, bank = [], folder / "bank"
    words = (
        "memscore.estimate", "--design", "exact", "--block", "16", "--models", "32", "--train-limit", "300",
        "--originals", "0", "--pool", "serial", "--store", str(bank),
    )  # fmt: skip
    estimate = require_success(run_command(folder, *words))
    attacks = read_attacks(bank)
    values = {name: numbers["tpr_at_0.001"][0] for name, numbers in attacks.items() if "tpr_at_0.001" in numbers}
    if any(numbers["tpr_at_0.01"][0] is None for numbers in attacks.values()):
        raise CaseError(f"150 non-members allow one false positive at FPR 1 %, but there is no value: {attacks}")
    if any(value is not None for value in values.values()):
        problems.append(f"about 150 non-members per target: summary.json has a TPR at FPR .1 %: {values}")
    if ".1 %" in estimate.stdout and not estimate.explains(REASON):
        problems.append("about 150 non-members per target: the page prints a TPR at FPR .1 % and no reason")

    splits = load_dataset("digits", train_limit=300)
    member = np.arange(len(splits.train)) < 250
    write_ids(folder / "members.txt", splits.train.ids[member])
    model = build_network("mlp", splits.input_shape, splits.n_classes, seed=3)
    weights = train_by_recipe(bank, model, splits, member, seed=1).state_dict()
    words = ("--arch", "mlp", "--members", str(folder / "members.txt"))
    result = require_success(audit(folder, "own", weights, *words))
    if not result.explains(AT_1_PERCENT):
        lines = [line for line in result.stdout.splitlines() if "false positive" in line]
        problems.append(f"an audit with 50 non-members says nothing of FPR 1 %, only {lines}")
    if "nan" in result.stdout.lower().split():
        problems.append("nan is printed in the audit's tables")
    return problems


if __name__ == "__main__":
    run_case(check)
