"""The plane of largest variance, and the panels of forget sets in it."""

import numpy as np
import pytest

from unlearn.experiments import embedding_figure
from unlearn.experiments.embedding_figure import draw_embeddings, project_on_plane


def make_embeddings(scales, n=500):
    """Embeddings far from 0 that vary by these scales along the axes of a rotated frame; and the frame."""
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(rng.normal(size=(len(scales), len(scales))))[0]
    values = rng.normal(size=(n, len(scales)))
    values -= values.mean(0)
    values = np.linalg.qr(values)[0] * np.sqrt(n)  # exactly uncorrelated, of variance 1
    return values * scales, frame


def test_the_plane_is_spanned_by_the_directions_of_largest_variance():
    values, frame = make_embeddings((1.0, 5.0, 0.1, 3.0))
    points, share = project_on_plane((values @ frame.T + 100).astype(np.float32))
    assert share == pytest.approx((25 + 9) / (1 + 25 + 0.01 + 9), abs=1e-4)
    for column, axis in enumerate((1, 3)):
        sign = np.sign(points[0, column] * values[0, axis])
        np.testing.assert_allclose(points[:, column], sign * values[:, axis], atol=1e-3)


def test_the_signs_are_the_same_in_every_run():
    values, frame = make_embeddings((3.0, 2.0, 1.0))
    points, _ = project_on_plane(values @ frame.T)
    again, _ = project_on_plane((values @ frame.T)[::-1])
    np.testing.assert_allclose(again[::-1], points, atol=1e-9)


def test_one_direction_and_none():
    points, share = project_on_plane(np.array([[1.0], [3.0]]))
    assert points.tolist() == [[-1, 0], [1, 0]]
    assert share == 1
    points, share = project_on_plane(np.ones((3, 4)))
    assert not points.any()
    assert np.isnan(share)


def test_each_panel_has_the_forget_set_the_rest_and_the_mean(monkeypatch):
    figures = []
    monkeypatch.setattr(embedding_figure, "encode_png", lambda figure: figures.append(figure) or b"")
    embeddings = np.random.default_rng(0).normal(size=(20, 3))
    sets = {"low": (1, 4), "high": (0, 2, 7)}
    draw_embeddings(embeddings, sets, {"low": "low ES: 3", "high": "high ES: 9"})
    points, _ = project_on_plane(embeddings)
    (figure,) = figures
    assert [axis.get_title() for axis in figure.axes] == ["low ES: 3", "high ES: 9"]
    for axis, rows in zip(figure.axes, sets.values(), strict=True):
        retain, forget, mean = (collection.get_offsets() for collection in axis.collections)
        np.testing.assert_allclose(forget, points[list(rows)])
        np.testing.assert_allclose(retain, np.delete(points, rows, axis=0))
        np.testing.assert_allclose(mean, [[0, 0]])
