"""Measure the similarity of a reconstructed image to the original: PSNR and SSIM."""

import numpy as np

WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004
K1, K2 = 0.01, 0.03


def psnr(original: np.ndarray, rebuilt: np.ndarray) -> np.ndarray:
    """Compute the peak signal-to-noise ratio, 10 log10(1 / MSE), for pixels in [0, 1].

    Args:
        original: float [N, C, H, W].
        rebuilt: the same.

    Returns:
        float64 [N] in decibels, higher is more similar; infinite where the images are equal.
    """
    error = ((original.astype(np.float64) - rebuilt) ** 2).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(error))


def ssim(original: np.ndarray, rebuilt: np.ndarray) -> np.ndarray:
    """Compute SSIM (Wang, Bovik, Sheikh & Simoncelli 2004, eq. 13), pixels in [0, 1].

        (2 m_x m_y + c1) (2 s_xy + c2) / ((m_x^2 + m_y^2 + c1) (s_x^2 + s_y^2 + c2))

    under a Gaussian window of 11 x 11 pixels and sigma 1.5, averaged over the windows that lie inside the image and
    over channels. Differs from the paper: in an image smaller than 11 pixels, the side of the window is the
    largest odd number that fits.

    Args:
        original: float [N, C, H, W].
        rebuilt: the same.

    Returns:
        float64 [N], at most 1, the value of equal images.
    """
    # an odd side, so that the window has a middle pixel: 10 becomes 9
    side = min(WINDOW, *(size - 1 + size % 2 for size in original.shape[2:]))
    offset = np.arange(side) - side // 2
    window = np.exp(-(offset**2) / (2 * SIGMA**2))
    window /= window.sum()
    x, y = original.astype(np.float64), rebuilt.astype(np.float64)
    # [N, C, H - side + 1, W - side + 1] each; variances and covariance as E[ab] - E[a] E[b] under the same window
    m_x, m_y = _window_means(x, window), _window_means(y, window)
    s_x, s_y, s_xy = (
        _window_means(a * b, window) - m for a, b, m in ((x, x, m_x**2), (y, y, m_y**2), (x, y, m_x * m_y))
    )
    c1, c2 = K1**2, K2**2
    similarity = (2 * m_x * m_y + c1) * (2 * s_xy + c2) / ((m_x**2 + m_y**2 + c1) * (s_x + s_y + c2))
    return np.asarray(similarity.mean((1, 2, 3)))


def _window_means(values: np.ndarray, window: np.ndarray) -> np.ndarray:
    # the Gaussian window is a product over the two axes, so one pass along each gives the two-dimensional mean
    for axis in (-2, -1):
        values = np.lib.stride_tricks.sliding_window_view(values, len(window), axis) @ window
    return values
