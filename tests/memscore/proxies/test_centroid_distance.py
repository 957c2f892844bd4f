"""Distance to the centroid of the class."""

import numpy as np

from memscore.proxies.centroid_distance import centroid_distance


def test_it_is_the_distance_to_the_mean_of_the_same_label():
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(50, 6)).astype(np.float32), rng.integers(2, 6, 50)
    centroids = {y: embeddings[labels == y].mean(0, dtype=float) for y in set(labels)}
    expected = [np.linalg.norm(e - centroids[y]) for e, y in zip(embeddings, labels, strict=True)]
    np.testing.assert_allclose(centroid_distance(embeddings, labels), expected, rtol=1e-10)


def test_two_of_a_class_lie_half_their_distance_away_and_one_alone_has_no_class_to_lie_in():
    embeddings = np.array([[0.0, 0.0], [6.0, 8.0], [1.0, 1.0]])
    np.testing.assert_array_equal(centroid_distance(embeddings, np.array([7, 7, 3])), [5.0, 5.0, np.nan])
