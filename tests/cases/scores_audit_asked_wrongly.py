"""An audit that was asked wrongly: --members lists the non-members, or the normalisation is not the model's.

The control, a model trained by the bank's own recipe and asked rightly, gets no warning.
"""

from pathlib import Path

from memscore.data.datasets import load_dataset
from memscore.models.architectures import build_network
from tests.cases._own_model import audit, describe_end, draw_members, read_report, train_by_recipe, write_ids
from tests.cases._support import CaseError, require_success, run_case, run_command

WARNING = r"\bwarn|not trust|untrust|not be trusted"


def check(folder: Path) -> list[str]:
    problems, bank, splits = [], folder / "bank", load_dataset("digits")
    words = (
        "memscore.estimate", "--design", "exact", "--block", "16", "--models", "32", "--originals", "0",
        "--pool", "serial", "--store", str(bank),
    )  # fmt: skip
    require_success(run_command(folder, *words))
    member = draw_members(len(splits.train), seed=0)
    model = train_by_recipe(
        bank, build_network("mlp", splits.input_shape, splits.n_classes, seed=3), splits, member, seed=1
    )
    weights, ids = model.state_dict(), splits.train.ids
    write_ids(folder / "right.txt", ids[member])
    write_ids(folder / "others.txt", ids[~member])
    (folder / "mark.txt").write_bytes(("\ufeff" + "\r\n".join(ids[member].tolist())).encode())

    right = require_success(audit(folder, "first", weights, "--arch", "mlp", "--members", str(folder / "right.txt")))
    area = read_report(folder, "first")["lira"]["auc"]
    if area["lo"] < 0.5:
        raise CaseError(f"members of the control cannot be told from others, AUC {area}")
    if right.explains(WARNING):
        problems.append("a model of the bank's own recipe, asked rightly, gets a warning")

    words = ("--arch", "mlp", "--members", str(folder / "others.txt"))
    result = audit(folder, "second", weights, *words)
    if not result.explains(rf"{WARNING}|invert|worse|non-members", right):
        problems.append(f"--members lists the non-members: {describe_end(folder, 'second', result)}")
    words = ("--arch", "mlp", "--members", str(folder / "right.txt"), "--mean", "0", "--std", "1")
    result = audit(folder, "third", weights, *words)
    if not result.explains(rf"{WARNING}|normali[sz]", right):
        problems.append(f"--mean and --std are not the model's: {describe_end(folder, 'third', result)}")
    marked = audit(folder, "fourth", weights, "--arch", "mlp", "--members", str(folder / "mark.txt"))
    if marked.returncode:
        problems.append(f"a list saved with a byte order mark is refused: {marked.output.strip()[:110]!r}")
    elif read_report(folder, "fourth") != read_report(folder, "first"):
        problems.append("a list saved with a byte order mark gives other numbers")
    return problems


if __name__ == "__main__":
    run_case(check)
