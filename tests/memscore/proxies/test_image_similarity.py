"""PSNR and SSIM, and measures that the original's own brightness and contrast do not decide."""

import numpy as np
import pytest

from memscore.proxies.image_similarity import find_among_images, psnr, psnr_fitted, ssim, ssim_fitted
from memscore.statistics.correlation import spearman


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


def change_contrast(images):
    """Another brightness and contrast in each channel of each image."""
    rng = np.random.default_rng(7)
    scale, shift = (rng.uniform(0.2, 2, (*images.shape[:2], 1, 1)) for _ in range(2))
    return images * scale + shift


def test_the_fitted_psnr_is_that_of_the_best_line_of_each_channel_above_a_flat_picture():
    x, y = pairs(9)
    fitted, flat = np.empty_like(x), np.empty_like(x)
    for i, c in np.ndindex(x.shape[:2]):
        slope, intercept = np.polyfit(y[i, c].ravel(), x[i, c].ravel(), 1)
        fitted[i, c], flat[i, c] = slope * y[i, c] + intercept, x[i, c].mean()
    np.testing.assert_allclose(psnr_fitted(x, y), psnr(x, fitted) - psnr(x, flat), rtol=1e-9)
    np.testing.assert_allclose(psnr_fitted(x, 1 - y), psnr(x, flat) - psnr(x, fitted), rtol=1e-9)  # its negative


def test_the_fitted_ssim_is_the_pooled_correlation_of_the_windows():
    x, y = pairs(12)
    middle = np.arange(11) - 5
    weights = np.exp(-(middle[:, None] ** 2 + middle**2) / (2 * 1.5**2))
    weights /= weights.sum()
    for i in range(len(x)):
        structure, weight = [], []
        for c in range(x.shape[1]):
            sums = np.zeros(3)
            for top, left in np.ndindex(2, 2):
                p, q = (image[i, c, top : top + 11, left : left + 11] for image in (x, y))
                p, q = (part - (weights * part).sum() for part in (p, q))
                sums += [(weights * a * b).sum() for a, b in ((p, p), (q, q), (p, q))]
            structure.append(sums[2] / np.sqrt(sums[0] * sums[1]))
            weight.append(sums[0])
        assert ssim_fitted(x, y)[i] == pytest.approx(np.average(structure, weights=weight), rel=1e-9)


def test_contrast_changes_the_raw_measures_and_no_fitted_one():
    x, y = pairs(12)
    changed = change_contrast(y)
    np.testing.assert_allclose(psnr_fitted(x, changed), psnr_fitted(x, y), rtol=1e-9)
    np.testing.assert_allclose(ssim_fitted(x, changed), ssim_fitted(x, y), rtol=1e-9)
    assert (np.abs(psnr(x, changed) - psnr(x, y)) > 1).all()
    images = (255 * x).astype(np.uint8)
    found = [find_among_images(each, np.arange(3), images, np.arange(3)) for each in (x, change_contrast(x))]
    np.testing.assert_array_equal(found[0], found[1])
    assert found[0][0].tolist() == [1, 1, 1]


def pictures(n, seed=0):
    """Pictures of all degrees of brightness, contrast and smoothness, as dark garments and bright ones are."""
    rng = np.random.default_rng(seed)
    noise, smooth = rng.standard_normal((2, n, 1, 16, 16))
    for axis in (-2, -1):
        for _ in range(4):
            smooth = (np.roll(smooth, 1, axis) + smooth + np.roll(smooth, -1, axis)) / 3
    mixed = rng.random((n, 1, 1, 1))
    texture = mixed * noise + (1 - mixed) * smooth / smooth.std()
    return np.clip(rng.uniform(0.1, 0.9, (n, 1, 1, 1)) + rng.uniform(0.02, 0.3, (n, 1, 1, 1)) * texture, 0, 1)


@pytest.mark.parametrize("null", ["noise", "blur"])
def test_of_a_picture_that_shows_nothing_no_new_measure_follows_brightness_or_edges(null):
    """Whatever is rebuilt here knows nothing of the original, so a rank correlation beyond 4 / sqrt(n) is a fault."""
    x, rng = pictures(800), np.random.default_rng(1)
    y = rng.random(x.shape)
    if null == "blur":
        for axis in (-2, -1):
            for _ in range(8):
                y = (np.roll(y, 1, axis) + y + np.roll(y, -1, axis)) / 3
    nearest, percentile = find_among_images(y, np.arange(800), (255 * x).astype(np.uint8), np.arange(800))
    gain = psnr_fitted(x, y) - psnr_fitted(x, y[::-1])
    brightness, contrast = x.mean((1, 2, 3)), x.std((1, 2, 3))
    edges = np.abs(np.diff(x, axis=-1)).mean((1, 2, 3)) + np.abs(np.diff(x, axis=-2)).mean((1, 2, 3))
    for values in (psnr_fitted(x, y), ssim_fitted(x, y), percentile, gain):
        for property_ in (brightness, contrast, edges):
            assert abs(spearman(values, property_)) < 4 / np.sqrt(800)
    assert abs(spearman(psnr(x, y), contrast)) > 4 / np.sqrt(800)  # the raw one does
    assert nearest.mean() < 0.01
    assert percentile.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / 800))


def test_an_example_is_found_beside_its_copy_and_not_behind_a_nearer_image():
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (40, 3, 8, 8)).astype(np.uint8)
    images[7] = images[3]
    seen = images[[3, 5]] / 255 + rng.normal(scale=0.02, size=(2, 3, 8, 8))
    seen[1] = images[9] / 255  # something else is rebuilt
    for others in (np.arange(40), np.delete(np.arange(40), [3, 5])):
        nearest, percentile = find_among_images(seen, np.array([3, 5]), images, others, batch=7)
        assert nearest.tolist() == [1, 0]
        assert percentile[0] == 1
        assert percentile[1] < 1
    standard = np.stack([(i - i.mean((1, 2), keepdims=True)).reshape(3, -1) for i in [seen[1], *images / 255]])
    standard /= np.linalg.norm(standard, axis=-1, keepdims=True)
    r = (standard[1:] * standard[0]).sum((1, 2)) / 3
    assert percentile[1] == 1 - np.delete(r > r[5], [3, 5]).mean()


def test_an_image_without_contrast_has_no_value_and_a_flat_result_shows_nothing():
    x, y = pairs(8)
    x[0], y[1] = 0.3, 0.7
    assert np.isnan(psnr_fitted(x, y)).tolist() == [True, False, False]
    assert np.isnan(ssim_fitted(x, y)).tolist() == [True, False, False]
    assert psnr_fitted(x, y)[1] == ssim_fitted(x, y)[1] == 0
    images = (255 * x).astype(np.uint8)
    nearest, percentile = find_among_images(y, np.arange(3), images, np.arange(3))
    assert np.isnan(nearest).tolist() == np.isnan(percentile).tolist() == [True, False, False]
    alone = find_among_images(y[2:], np.array([2]), images, np.array([2]))
    assert np.isnan(alone).all()
