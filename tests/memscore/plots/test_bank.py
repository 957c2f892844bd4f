"""Pictures, read back from their pixels."""

import io

import matplotlib as mpl
import numpy as np
import pytest

from memscore.plots.bank import plot_influence


def cells(png, greys):
    """Where the image of each grey value lies in a picture, in pixels [row, column]; None if it is not there."""
    pixels = np.rint(255 * mpl.image.imread(io.BytesIO(png))[..., :3].mean(2)).astype(int)
    places = {}
    for value in greys:
        at = np.argwhere(pixels == value)
        places[value] = at.mean(0) if len(at) > 2000 else None
    return places


def test_a_picture_shows_each_image_in_its_cell_and_none_beside_a_short_row():
    values = [[40, 80, 120], [60, 100]]
    images = [[np.full((1, 8, 8), value, np.uint8) for value in row] for row in values]
    captions = [[[f"label {value}"] for value in row] for row in values]
    png = plot_influence(images, captions, [[False] * len(row) for row in values], "title")
    at = cells(png, [40, 80, 120, 60, 100, 140])
    assert at[140] is None
    assert at[40][1] < at[80][1] < at[120][1]
    assert at[40][0] == pytest.approx(at[80][0], abs=3)  # pixels: the frame is drawn over the edge of the first
    assert at[60][0] > at[40][0] + 100
    assert at[60][1] == pytest.approx(at[40][1], abs=3)
    assert at[100][1] == pytest.approx(at[80][1], abs=3)


def test_an_image_in_colour_is_drawn_in_its_colours():
    image = np.zeros((3, 8, 8), np.uint8)
    image[0] = 200
    png = plot_influence([[image]], [[["label 1"]]], [[False]], "t")
    pixels = np.rint(255 * mpl.image.imread(io.BytesIO(png))[..., :3])
    assert ((pixels == [200, 0, 0]).all(2)).sum() > 2000
