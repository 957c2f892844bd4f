"""Distance of an example to its class in theta_o's embedding; large if memorized."""

import numpy as np


def centroid_distance(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute || e_i - mean of e_j over all j with y_j = y_i ||_2.

    Args:
        embeddings: [N, E] of the training set, the first n_train rows of Store.read_outputs.
        labels: int64 [N], as trained.

    Returns:
        float64 [N], higher is more memorized; NaN for the only example of a class, which is the centroid itself.
    """
    # position is [N], each example's index into classes, which also holds for labels with gaps such as 3, 7
    e = np.asarray(embeddings, np.float64)
    classes, position, count = np.unique(labels, return_inverse=True, return_counts=True)
    centroids = np.zeros((len(classes), e.shape[1]))
    # unbuffered: centroids[position] += e would add only one example of each class
    np.add.at(centroids, position, e)
    centroids /= count[:, None]
    distance = np.linalg.norm(e - centroids[position], axis=1)
    return np.where(count[position] > 1, distance, np.nan)
