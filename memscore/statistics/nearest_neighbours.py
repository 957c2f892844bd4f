"""The nearest neighbour of every vector by cosine similarity, in blocks."""

import numpy as np

BLOCK_ROWS = 2048


def normalize_rows(vectors: np.ndarray) -> np.ndarray:
    """Divide vectors [N, E] by their lengths, float32; a vector of zeros stays, and is similar to none."""
    values = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit: np.ndarray = values / np.where(lengths > 0, lengths, 1)
    return unit


def find_nearest_neighbours(unit: np.ndarray, block_rows: int = BLOCK_ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest other vector of each one.

        s_i = max_{j != i} u_i . u_j

    Takes N^2 E products; beside the vectors only one block of block_rows^2 similarities is in memory.

    Args:
        unit: float32 [N, E], vectors of length 1, or 0.
        block_rows: rows and columns that are compared at once.

    Returns:
        Similarity float32 [N] in [-1, 1], higher is nearer, and the neighbour int64 [N]; of equally near ones the first
        in the order of blocks. For a single vector -inf and -1.
    """
    n = len(unit)
    similarity, neighbour = np.full(n, -np.inf, np.float32), np.full(n, -1)

    def update(rows: slice, columns: slice, block: np.ndarray) -> None:
        best = block.argmax(1)
        values = block[np.arange(len(block)), best]
        nearer = values > similarity[rows]
        similarity[rows][nearer] = values[nearer]
        neighbour[rows][nearer] = best[nearer] + columns.start

    # Similarity is symmetric: a block above the diagonal gives the neighbours of its rows and of its columns.
    parts = [slice(start, min(start + block_rows, n)) for start in range(0, n, block_rows)]
    for number, rows in enumerate(parts):
        for columns in parts[number:]:
            block = unit[rows] @ unit[columns].T
            if rows == columns:
                np.fill_diagonal(block, -np.inf)
            update(rows, columns, block)
            if rows != columns:
                update(columns, rows, block.T)
    return similarity, neighbour
