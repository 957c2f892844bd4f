"""Generated images for benchmarks: discs, squares and stripes, 20 x 20, in colour, with noise."""

import numpy as np

SIDE, SEED = 20, 0
TRAIN, TEST = 2_700, 300
NOISE = 0.12  # standard deviation, of pixels in [0, 1]


def generate_shapes() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Generate training and test images, uint8 [n, 20, 20, 3], and labels; for --data module:function."""
    rng = np.random.default_rng(SEED)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images, labels = np.empty((TRAIN + TEST, SIDE, SIDE, 3), np.uint8), rng.integers(0, 3, TRAIN + TEST)
    for index, label in enumerate(labels):
        (row, column), size = rng.uniform(5, SIDE - 6, 2), rng.uniform(3, 6)
        colour, background = rng.uniform(0.3, 1, 3), rng.uniform(0, 0.4, 3)
        shapes = (
            (rows - row) ** 2 + (columns - column) ** 2 < size**2,
            np.maximum(abs(rows - row), abs(columns - column)) < 0.9 * size,
            (rows - row + columns - column) % 6 < 3,
        )
        pixels = np.where(shapes[label][..., None], colour, background) + rng.normal(0, NOISE, (SIDE, SIDE, 3))
        images[index] = 255 * np.clip(pixels, 0, 1)
    return images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:]
