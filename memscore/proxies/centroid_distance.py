"""How far an example lies from its class in theta_o's embedding: a typical one near, a memorized one far."""

import numpy as np


def centroid_distance(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """|| e_i - mean of e_j over all j with y_j = y_i ||_2.

    Args:
        embeddings: [N, E] of the training set, as Store.read_outputs gives them (its first n_train rows).
        labels: int64 [N], as trained.

    Returns:
        float64 [N], higher is more memorized; NaN for the only example of a class, which is its own centroid.
    """
    e = np.asarray(embeddings, np.float64)
    classes, position, count = np.unique(labels, return_inverse=True, return_counts=True)
    centroids = np.zeros((len(classes), e.shape[1]))
    np.add.at(centroids, position, e)
    centroids /= count[:, None]
    distance = np.linalg.norm(e - centroids[position], axis=1)
    return np.where(count[position] > 1, distance, np.nan)
