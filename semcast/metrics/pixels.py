"""PSNR, SSIM and MS-SSIM of 8-bit RGB, in numpy. Tests compare them with torchmetrics and scikit-image."""

import math

import numpy as np

PSNR_CAP_DB = 100.0  # reported for equal pictures, whose PSNR is infinite
MS_SSIM_SIDE_MIN = 176  # pixels: an 11-pixel window at five scales, 11 << 4
SIGMA, RADIUS = 1.5, 5  # of the Gaussian window
K1, K2 = 0.01, 0.03
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales of MS-SSIM, the finest first


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """10 log10(1 / mean squared error) of images in [0, 1], at most 100 dB."""
    mse = float(np.mean(np.square(a - b, dtype=np.float64)))
    return min(-10 * math.log10(mse), PSNR_CAP_DB) if mse else PSNR_CAP_DB


def structure(a: np.ndarray, b: np.ndarray) -> tuple[float, float | None]:
    """(SSIM, MS-SSIM) of [1, 3, H, W] in [0, 1]; MS-SSIM is None for a picture too small for its five scales.

    Sources: Wang et al. 2004; Wang, Simoncelli & Bovik 2003. Edges are mirrored, and left out of the contrast.
    """
    ssim, contrast = similarity(a, b)
    if min(a.shape[-2:]) < MS_SSIM_SIDE_MIN:
        return ssim, None
    ms_ssim, whole = 1.0, ssim
    for weight in WEIGHTS[:-1]:
        ms_ssim *= max(contrast, 0.0) ** weight
        a, b = halved(a), halved(b)
        whole, contrast = similarity(a, b)
    return ssim, ms_ssim * max(whole, 0.0) ** WEIGHTS[-1]


def similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(SSIM, its part without luminance), each the mean over pixels and channels."""
    mean_a, mean_b = blur(a), blur(b)
    square_a, square_b, product = mean_a**2, mean_b**2, mean_a * mean_b
    contrast = 2 * (blur(a * b) - product) + K2**2
    contrast /= np.maximum(blur(a * a) - square_a, 0) + np.maximum(blur(b * b) - square_b, 0) + K2**2
    luminance = (2 * product + K1**2) / (square_a + square_b + K1**2)
    inside = contrast[..., RADIUS:-RADIUS, RADIUS:-RADIUS]
    return float(np.mean(luminance * contrast, dtype=np.float64)), float(np.mean(inside, dtype=np.float64))


def blur(image: np.ndarray) -> np.ndarray:
    """A Gaussian window of 11x11 pixels, with mirrored edges."""
    window = np.exp(-(np.arange(RADIUS + 1, dtype=np.float32) ** 2) / (2 * SIGMA**2))
    window /= window[0] + 2 * window[1:].sum()
    for axis in (2, 3):
        padded = np.pad(image, [(RADIUS, RADIUS) if i == axis else (0, 0) for i in range(4)], mode="reflect")
        rows, count = np.moveaxis(padded, axis, 0), image.shape[axis]
        total = window[0] * rows[RADIUS : RADIUS + count]
        for i in range(1, RADIUS + 1):
            part = rows[RADIUS + i : RADIUS + i + count] + rows[RADIUS - i : RADIUS - i + count]
            part *= window[i]
            total += part
        image = np.moveaxis(total, 0, axis)
    return image


def halved(image: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels; a last odd row or column is dropped."""
    height, width = (side // 2 * 2 for side in image.shape[-2:])
    rows = image[..., 0:height:2, :width] + image[..., 1:height:2, :width]
    return (rows[..., ::2] + rows[..., 1::2]) / 4
