"""PSNR and SSIM."""

import numpy as np
import pytest

from memscore.proxies.image_similarity import psnr, ssim


def pairs(side, n=3, channels=2):
    rng = np.random.default_rng(side)
    x = rng.random((n, channels, side, side))
    return x, np.clip(x + rng.normal(size=x.shape) / 5, 0, 1)


def test_an_error_of_a_tenth_everywhere_is_20_decibels():
    x = np.full((2, 1, 4, 4), 0.3)
    np.testing.assert_allclose(psnr(x, x + 0.1), 20, rtol=1e-10)
    assert np.isposinf(psnr(x, x)).all()


def naive_ssim(x, y, side):
    middle = np.arange(side) - side // 2
    weights = np.exp(-(middle[:, None] ** 2 + middle**2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for a, b in zip(x, y, strict=True):
        for top in range(x.shape[1] - side + 1):
            for left in range(x.shape[2] - side + 1):
                p, q = (image[top : top + side, left : left + side] for image in (a, b))
                mp, mq = (weights * p).sum(), (weights * q).sum()
                vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
                both = (weights * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + 1e-4) * (2 * both + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return np.mean(values)


@pytest.mark.parametrize(("side", "window"), [(14, 11), (11, 11), (8, 7)])
def test_ssim_is_the_mean_over_windows_of_its_definition(side, window):
    x, y = pairs(side)
    expected = [naive_ssim(a, b, window) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(ssim(x, y), expected, rtol=1e-9)  # variances as differences of squares


def test_ssim_of_equal_images_is_1_and_of_flat_ones_depends_on_their_brightness_alone():
    x, _ = pairs(12)
    np.testing.assert_allclose(ssim(x, x), 1, rtol=1e-10)
    flat = np.full((1, 1, 12, 12), 0.2), np.full((1, 1, 12, 12), 0.6)
    np.testing.assert_allclose(ssim(*flat), (2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4), rtol=1e-9)
