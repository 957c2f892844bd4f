"""A palette among RGB pictures is read as colours, 16 bits are refused by name, a photo that says so is turned."""

from pathlib import Path

import numpy as np
from PIL import Image

from memscore.data.datasets import load_dataset
from tests.cases._support import run_case

ORIENTATION, TURNED_BY_90 = 274, 6


def check(folder: Path) -> list[str]:
    rng, problems = np.random.default_rng(0), []

    def draw_pictures(name: str) -> Path:
        for row in range(80):
            place = folder / name / f"c{row % 4}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(place / f"{row:03d}.png")
        load_dataset(str(folder / name))  # the control: what is wrong later is the picture that is added
        return folder / name

    modes = draw_pictures("modes")
    palette = Image.new("P", (8, 8))
    palette.putpalette([200, 10, 10, 10, 200, 10] + [0] * 762)
    palette.putdata([0, 1] * 32)
    palette.save(modes / "c0/palette.png", transparency=0)
    if read_pixels(modes, "palette.png")[:, 0, :2].tolist() != [[200, 10], [10, 200], [10, 10]]:
        problems.append("a picture with a palette is read as indices")

    deep = draw_pictures("deep")
    Image.fromarray(rng.integers(0, 65535, (8, 8)).astype(np.uint16)).save(deep / "c0/deep.png")
    try:
        load_dataset(str(deep))
        problems.append("16 bits of gray are taken")
    except ValueError as error:
        if "deep.png" not in str(error):
            problems.append(f"16 bits of gray are refused without a name: {error}")

    side = draw_pictures("side")
    stored = np.kron(np.array([[0, 255], [60, 120]], np.uint8), np.ones((4, 4), np.uint8))
    photo = Image.fromarray(stored).convert("RGB")
    exif = photo.getexif()
    exif[ORIENTATION] = TURNED_BY_90
    photo.save(side / "c0/photo.jpg", exif=exif, quality=100)
    corners = read_pixels(side, "photo.jpg")[0][[0, 0, 7, 7], [0, 7, 0, 7]].astype(int)
    seen = np.array([60, 0, 120, 255])
    if abs(corners - seen).max() > 20:
        problems.append(f"EXIF orientation is ignored: corners {corners.tolist()}, as people see it {seen.tolist()}")
    return problems


def read_pixels(pictures: Path, name: str) -> np.ndarray:
    """[C, H, W] of the picture of that name."""
    splits = load_dataset(str(pictures))
    parts = (splits.train, splits.validation, splits.test)
    (pixels,) = (part.images[row] for part in parts for row, id_ in enumerate(part.ids) if id_.endswith(name))
    return pixels


if __name__ == "__main__":
    run_case(check)
