"""A data function that returns another order at each call: the second command says so, or that it begins another bank.

The orders come from a counter in a file, so that every run of this case sees the same ones.
"""

from pathlib import Path

from tests.cases._support import require_success, run_case, run_command

DATA = """
from pathlib import Path
import numpy as np
def data():
    counter = Path(__file__).with_name("calls.txt")
    calls = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(calls + 1))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 600)
    images = (rng.integers(0, 128, (600, 8, 8)) + 32 * labels[:, None, None]).astype(np.uint8)
    rows = np.random.default_rng(calls).permutation(500)
    return images[:500][rows], labels[:500][rows], images[500:], labels[500:]
"""
REASON = r"another order|other order|other data|not the same|differ|(another|second|new) bank|changed"


def check(folder: Path) -> list[str]:
    (folder / "mine.py").write_text(DATA)
    words = (
        "memscore.estimate", "--data", "mine:data", "--arch", "mlp", "--recipe", "small-mlp", "--epochs", "2",
        "--batch", "16", "--design", "exact", "--block", "8", "--models", "8", "--originals", "0", "--pool", "serial",
    )  # fmt: skip
    first = run_command(folder, *words)
    if first.refusal:  # one command may call the function twice and compare
        return [] if first.explains(REASON) else [f"refused without the reason: {first.refusal}"]
    second = run_command(folder, *words)
    if require_success(first) and second.explains(REASON, first):
        return []
    banks = [place for place in (folder / "home").iterdir() if (place / "manifest.json").exists()]
    return [f"two identical commands made {len(banks)} banks of data in two orders, and no line says so"]


if __name__ == "__main__":
    run_case(check)
