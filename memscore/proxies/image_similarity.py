"""Measure the similarity of a reconstructed image to the original: PSNR and SSIM, and what brightness does not decide.

PSNR and SSIM follow the original's own brightness and contrast: noise is nearer to a dark, flat picture than to a
bright one with edges. Of noise, each measure below is about 0 whatever the original is: the fitted PSNR and SSIM, whose
zero is a flat picture of the original's mean colours, and how well the original is found among other images.
"""

import numpy as np

WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004
K1, K2 = 0.01, 0.03
RESEMBLANCE_ROUNDING = 1e-5
"""Correlations that differ by less are equal; they are computed in float32."""


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
    m_x, m_y, s_x, s_y, s_xy = compute_window_moments(original, rebuilt)
    c1, c2 = K1**2, K2**2
    similarity = (2 * m_x * m_y + c1) * (2 * s_xy + c2) / ((m_x**2 + m_y**2 + c1) * (s_x + s_y + c2))
    return np.asarray(similarity.mean((1, 2, 3)))


def compute_window_moments(original: np.ndarray, rebuilt: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compute both means, both variances and the covariance under each window of ssim, [N, C, rows, columns] each."""
    # an odd side, so that the window has a middle pixel: 10 becomes 9
    side = min(WINDOW, *(size - 1 + size % 2 for size in original.shape[2:]))
    offset = np.arange(side) - side // 2
    window = np.exp(-(offset**2) / (2 * SIGMA**2))
    window /= window.sum()
    x, y = original.astype(np.float64), rebuilt.astype(np.float64)
    # variances and covariance as E[ab] - E[a] E[b] under the same window
    m_x, m_y = _window_means(x, window), _window_means(y, window)
    pairs = ((x, x, m_x**2), (y, y, m_y**2), (x, y, m_x * m_y))
    return m_x, m_y, *(_window_means(a * b, window) - product for a, b, product in pairs)


def psnr_fitted(original: np.ndarray, rebuilt: np.ndarray) -> np.ndarray:
    """Compute by how much the image lowers the error of a flat picture, once its brightness and contrast are fitted.

        10 log10( sum_c ||x_c - mean(x_c)||^2 / sum_c min_{a,b} ||x_c - a y_c - b||^2 )

    over the channels c: the PSNR of the best a y + b of each channel, less that of the original's mean colours alone.
    Where the best a is below 0, as of a negative, the channel counts as so much farther away: else noise that is as
    smooth as the original would seem nearer than other noise.

    Args:
        original: float [N, C, H, W].
        rebuilt: the same.

    Returns:
        float64 [N] in decibels, 0 for a flat picture, higher is more similar; NaN where the original has no contrast.
    """
    x, y = (center_channels(images.astype(np.float64)) for images in (original, rebuilt))
    s_x, s_y, s_xy = ((a * b).sum(-1) for a, b in ((x, x), (y, y), (x, y)))  # [N, C]
    # a channel that is flat in the rebuilt image explains nothing of the original's; its sum of squares may be rounded
    varies = np.ptp(rebuilt, axis=(2, 3)) > 0
    explained = np.divide(s_xy * np.abs(s_xy), s_y, out=np.zeros_like(s_y), where=varies).sum(1)
    total = np.where(np.ptp(original, axis=(2, 3)) > 0, s_x, 0).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # rounding must not make the rest negative
        rest = np.maximum(total - np.abs(explained), 0) / total
        return np.asarray(np.sign(explained) * -10 * np.log10(rest))


def ssim_fitted(original: np.ndarray, rebuilt: np.ndarray) -> np.ndarray:
    """Compute what is left of SSIM once brightness and contrast are fitted in each window: its structure term.

        sum_w s_xy / sqrt( sum_w s_x^2  sum_w s_y^2 )

    over the windows w of ssim, as a mean over channels that is weighted by the original's sum_w s_x^2. Windows are
    pooled and not averaged, since a flat window has no structure to match.

    Args:
        original: float [N, C, H, W].
        rebuilt: the same.

    Returns:
        float64 [N] from -1 to 1, the value of images that differ in brightness and contrast alone; NaN where the
        original has no contrast, 0 where the rebuilt image has none.
    """
    _, _, s_x, s_y, s_xy = (moment.sum((2, 3)) for moment in compute_window_moments(original, rebuilt))  # [N, C]
    # differences of squares of a flat channel are rounding errors, of either sign
    varies_x, varies_y = (np.ptp(images, axis=(2, 3)) > 0 for images in (original, rebuilt))
    weight = np.where(varies_x, s_x, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        structure = np.where(varies_x & varies_y, s_xy / np.sqrt(s_x * s_y), 0)
        return np.asarray((weight * structure).sum(1) / weight.sum(1))


def find_among_images(
    rebuilt: np.ndarray, rows: np.ndarray, images: np.ndarray, others: np.ndarray, batch: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Find how far up the original comes among other images, sorted by their resemblance to the rebuilt image.

    Resemblance is the correlation of the pixels, with the mean of each channel taken out and its contrast set to 1: no
    image is nearer for being dark or flat. An equal copy of the original is not nearer than it.

    Args:
        rebuilt: float [n, C, H, W].
        rows: int [n], of the originals among the images.
        images: uint8 [N, C, H, W].
        others: int, rows of the images to compare with; an original among its own is not counted.
        batch: of them in memory at once.

    Returns:
        float64 [n], 1 where no other image is nearer, else 0; and float64 [n], the share of the others that are not
        nearer, .5 by chance and 1 at best. Both are NaN where the original has no contrast, or there are no others.
    """
    searched, original = standardize(rebuilt), standardize(images[rows])
    own, nearer = (searched * original).sum(1), np.zeros(len(rows))
    for start in range(0, len(others), batch):
        resemblance = searched @ standardize(images[others[start : start + batch]]).T
        # equal images may differ in the last bits of a matrix product
        nearer += (resemblance > own[:, None] + RESEMBLANCE_ROUNDING).sum(1)
    count = len(others) - np.isin(rows, others)
    defined = (np.abs(original).sum(1) > 0) & (count > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(defined, nearer == 0, np.nan), np.where(defined, 1 - nearer / count, np.nan)


def standardize(images: np.ndarray) -> np.ndarray:
    """Set the mean of each channel to 0, its contrast to one value, and the whole to length 1: float32 [N, C H W]."""
    flat = center_channels(images.astype(np.float32))
    length = np.linalg.norm(flat, axis=-1, keepdims=True)
    # by the pixels themselves: the mean of a flat channel may be rounded
    varies = np.ptp(images, axis=(2, 3))[..., None] > 0
    flat = np.where(varies, flat / np.where(varies, length, 1), 0)
    return np.asarray(flat.reshape(len(images), -1) / np.sqrt(np.maximum(varies.sum(1), 1)))


def center_channels(images: np.ndarray) -> np.ndarray:
    """Subtract its mean from each channel of each image; [N, C, H W]."""
    flat = images.reshape(*images.shape[:2], -1)
    return np.asarray(flat - flat.mean(-1, keepdims=True))


def _window_means(values: np.ndarray, window: np.ndarray) -> np.ndarray:
    # the Gaussian window is a product over the two axes, so one pass along each gives the two-dimensional mean
    for axis in (-2, -1):
        values = np.lib.stride_tricks.sliding_window_view(values, len(window), axis) @ window
    return values
