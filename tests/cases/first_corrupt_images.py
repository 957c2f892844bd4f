"""Five broken files among 200 pictures: one run names all of them, before any training and without a traceback."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.cases._support import require_success, run_case, run_command


def check(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    pictures = folder / "pictures"
    for row in range(200):
        place = pictures / f"c{row % 4}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{row:04d}.jpg", quality=95)
    words = (
        "memscore.estimate", "--data", str(pictures), "--arch", "mlp", "--recipe", "small-mlp", "--batch", "16",
        "--dry-run", "--pool", "serial",
    )  # fmt: skip
    require_success(run_command(folder, *words))
    whole = (pictures / "c0/0004.jpg").read_bytes()
    broken = {
        "c0/0004.jpg": whole[: len(whole) // 2],
        "c1/0005.jpg": b"",
        "c2/0006.png": b"<html>404</html>",
        "c3/0007.jpg": whole[:300],
    }
    for name, content in broken.items():
        (pictures / name).write_bytes(content)
    (pictures / "c0/gone.png").symlink_to(pictures / "nowhere.png")
    names = (*broken, "c0/gone.png")
    result = run_command(folder, *words)
    missing = [name for name in names if name not in result.output]
    problems = []
    if "Traceback" in result.output:
        problems.append("a traceback")
    if missing:
        problems.append(f"{len(names) - len(missing)} of {len(names)} broken files are named, not {', '.join(missing)}")
    return problems


if __name__ == "__main__":
    run_case(check)
