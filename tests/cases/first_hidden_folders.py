"""Hidden folders and system files are no classes and no images at any depth, and the number of classes is printed."""

import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from memscore.data.datasets import load_dataset
from tests.cases._support import run_case, run_command


def check(folder: Path) -> list[str]:
    rng, problems = np.random.default_rng(0), []
    pictures = folder / "pictures"
    for row in range(160):
        place = pictures / f"c{row % 4}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8)).astype(np.uint8)).save(place / f"{row:04d}.png")
    for hidden in (pictures / ".ipynb_checkpoints", pictures / "c0/.ipynb_checkpoints"):
        hidden.mkdir()
        shutil.copy(pictures / "c0/0000.png", hidden / "0000-checkpoint.png")
    for name in (".DS_Store", "c0/.DS_Store", "Thumbs.db", "README.txt", "c2/features.npy", "c0/._a.png"):
        (pictures / name).write_bytes(b"\0junk")
    (pictures / "__MACOSX/c0").mkdir(parents=True)
    (pictures / "__MACOSX/c0/._0000.png").write_bytes(b"\0junk")
    words = (
        "memscore.estimate", "--data", str(pictures), "--arch", "mlp", "--recipe", "small-mlp", "--batch", "16",
        "--dry-run", "--pool", "serial",
    )  # fmt: skip
    result = run_command(folder, *words)
    if result.returncode:
        problems.append(f"__MACOSX of a zip file from a Mac: {result.output.strip()[-110:]!r}")
        shutil.rmtree(pictures / "__MACOSX")
        result = run_command(folder, *words)
    if result.returncode:
        problems.append(f"hidden folders and system files: {result.output.strip()[-150:]!r}")
    if not re.search(r"\b4 classes\b", result.output):
        problems.append("the number of classes is not printed")
    splits = load_dataset(str(pictures))
    ids = [str(example) for part in (splits.train, splits.validation, splits.test) for example in part.ids]
    hidden_ids = [example for example in ids if "ipynb" in example or "/." in example]
    if splits.n_classes != 4 or len(ids) != 160 or hidden_ids:
        problems.append(f"{splits.n_classes} classes and {len(ids)} images, not 4 and 160; read too: {hidden_ids}")
    return problems


if __name__ == "__main__":
    run_case(check)
