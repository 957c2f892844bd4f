"""Audited weights: prefixes that tools put before every key are stripped or named; a softmax head is noticed.

So is a network that was never trained. The control is trained by the bank's own recipe.
"""

from pathlib import Path

import torch
from torch import nn

from memscore.data.datasets import load_dataset
from tests.cases._own_model import audit, describe_end, draw_members, read_report, train_by_recipe, write_ids
from tests.cases._support import CaseError, require_success, run_case, run_command

NETWORKS = """
import math
from torch import nn
def network(shape, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 64), nn.ReLU(), nn.Linear(64, n_classes))
def other(shape, n_classes):
    return nn.Sequential(*network(shape, n_classes), nn.Softmax(1))
"""
WARNING = r"\bwarn|not trust|untrust|not be trusted"


def check(folder: Path) -> list[str]:
    (folder / "theirs.py").write_text(NETWORKS)
    problems, bank, splits = [], folder / "bank", load_dataset("digits")
    words = (
        "memscore.estimate", "--arch", "theirs:network", "--recipe", "digits", "--design", "exact", "--block", "16",
        "--models", "32", "--originals", "0", "--pool", "serial", "--store", str(bank),
    )  # fmt: skip
    require_success(run_command(folder, *words))
    member = draw_members(len(splits.train), seed=0)
    write_ids(folder / "members.txt", splits.train.ids[member])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    untrained = {key: value.clone() for key, value in model.state_dict().items()}
    weights = train_by_recipe(bank, model, splits, member, seed=1).state_dict()
    plain_words = ("--arch", "theirs:network", "--members", str(folder / "members.txt"))

    plain = require_success(audit(folder, "first", weights, *plain_words))
    curves = read_report(folder, "first")
    if curves["lira"]["auc"]["lo"] < 0.5:
        raise CaseError(f"members of the control cannot be told from others: {curves['lira']['auc']}")
    if plain.explains(WARNING):
        problems.append("a model of the bank's own recipe gets a warning")

    for name, prefix in (("compiled", "_orig_mod."), ("parallel", "module._orig_mod."), ("lightning", "model.")):
        result = audit(folder, name, {prefix + key: value for key, value in weights.items()}, *plain_words)
        if result.returncode and not (result.refusal and result.explains(r"prefix|start with|begin with|strip")):
            problems.append(f"keys that start with {prefix!r} are refused without a remedy: {result.output[-110:]!r}")
        elif result.returncode == 0 and read_report(folder, name) != curves:
            problems.append(f"keys that start with {prefix!r} give other numbers")

    words = ("--arch", "theirs:other", "--members", str(folder / "members.txt"))
    result = audit(folder, "second", weights, *words)
    if not result.explains(r"softmax|probabilit", plain):
        end = describe_end(folder, "second", result)
        problems.append(f"a network that ends in softmax: AUC {curves['lira']['auc']['value']:.3f}, now {end}")
    result = audit(folder, "third", untrained, *plain_words)
    if not result.explains(rf"{WARNING}|untrained|never trained|random weights|chance", plain):
        problems.append(f"a network that was never trained: {describe_end(folder, 'third', result)}")
    return problems


if __name__ == "__main__":
    run_case(check)
