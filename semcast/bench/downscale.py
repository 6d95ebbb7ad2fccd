"""The system `downscale`: a shrunk picture, sent as analog symbols without any network."""

import math

import numpy as np
from numpy.random import Generator

from ..arrays import Array, array_namespace
from ..channels.base import Received, equalise
from ..channels.noise import awgn
from ..images import mean_colour, to_image, to_pixels
from .base import Side, eight_bit, float16, float16_bits, sides


def send(pixels: np.ndarray, uses: int, snr_db: float) -> tuple[np.ndarray, Side]:
    x, mean, gain = shrink(to_image(pixels), uses)
    red, green, blue = eight_bit(mean)
    return x, {
        **sides(pixels),
        "red": (red, 8),
        "green": (green, 8),
        "blue": (blue, 8),
        "gain": (float16_bits(gain), 16),
    }


def receive(received: Received, side: Side) -> np.ndarray:
    mean = np.array([side[name][0] / 255 for name in ("red", "green", "blue")], np.float32).reshape(1, 3, 1, 1)
    return to_pixels(enlarge(received, mean, float16(side["gain"][0]), (side["height"][0], side["width"][0])))


def downscale_and_send(image: np.ndarray, channel_uses: int, snr_db: float, generator: Generator) -> np.ndarray:
    """Shrink the picture until its samples fit, send them as analog symbols, enlarge what arrives.

    This is the simplest analog rival of a semantic link. It is given two advantages: the mean colour travels as side
    information, so no power is spent on it, and the receiver knows the noise and scales accordingly (MMSE).

    Args:
        image: [1, 3, H, W] in [0, 1].
        channel_uses: complex symbols; each carries two of the 3 h w samples.
    Returns:
        [1, 3, H, W] in [0, 1].
    """
    x, mean, gain = shrink(image, channel_uses)
    return enlarge(awgn(x, snr_db, [generator]), mean, gain, (image.shape[-2], image.shape[-1]))


def shrink(image: np.ndarray, channel_uses: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The sender: [1, 3, H, W] in [0, 1] -> (x [1, k] with mean |x|^2 = 1, mean colour [1, 3, 1, 1], gain)."""
    size = grid(image.shape[-2], image.shape[-1], 2 * channel_uses // 3)
    small = resize(image, size, shrinking)
    mean = mean_colour(small)
    flat = (small - mean).reshape(1, -1)
    flat = np.pad(flat, ((0, 0), (0, 2 * channel_uses - flat.shape[1])))  # unused symbols carry nothing
    gain = max(float(np.square(flat).sum()) / channel_uses, 1e-12) ** -0.5  # mean |x|^2 = 1
    real, imag = np.split(np.float32(gain) * flat, 2, axis=1)
    return real + 1j * imag, mean, gain


def enlarge(received: Received, mean: np.ndarray, gain: float, sides: tuple[int, int]) -> np.ndarray:
    """The receiver: y = h x + n [1, k] and the side information -> [1, 3, *sides] in [0, 1]."""
    estimate = samples(received) / gain
    size = grid(*sides, estimate.shape[1] // 3)
    small = estimate[:, : 3 * size[0] * size[1]].reshape(1, 3, *size) + mean
    return np.clip(resize(small, sides, enlarging), 0, 1)


def resize(image: np.ndarray, size: tuple[int, int], weights) -> np.ndarray:
    """[B, 3, H, W] -> [B, 3, *size]; `weights` are `shrinking` or `enlarging`."""
    rows, columns = (weights(n, m) for n, m in zip(image.shape[-2:], size))
    return (rows @ image.astype(np.float64) @ columns.T).astype(np.float32)


def shrinking(count: int, smaller: int) -> np.ndarray:
    """Weights [smaller, count] of linear interpolation with a window as wide as the new pixels, against aliasing."""
    scale = count / smaller
    centre = (np.arange(smaller) + 0.5) * scale
    distance = (np.arange(count) + 0.5 - centre[:, None]) / max(scale, 1)
    weights = np.maximum(1 - np.abs(distance), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def enlarging(count: int, larger: int) -> np.ndarray:
    """Weights [larger, count] of cubic interpolation with Keys's a = -3/4; edges are repeated."""
    at = (np.arange(larger) + 0.5) * count / larger - 0.5
    start, weights = np.floor(at).astype(int), np.zeros((larger, count))
    for offset in range(-1, 3):
        d = np.abs(at - start - offset)
        near, far = (1.25 * d - 2.25) * d * d + 1, ((-0.75 * d + 3.75) * d - 6) * d + 3
        np.add.at(weights, (np.arange(larger), (start + offset).clip(0, count - 1)), np.where(d <= 1, near, far))
    return weights


def samples(received: Received) -> Array:
    """MMSE estimate of unit-power symbols: real parts, then imaginary parts, [B, 2 k]."""
    estimate = equalise(received)
    xp = array_namespace(estimate)
    return xp.concat([xp.real(estimate), xp.imag(estimate)], axis=1)


def grid(height: int, width: int, pixels: int) -> tuple[int, int]:
    """The largest h x w <= pixels with about the picture's aspect ratio: 27 x 28 for 512 x 512 and 768 pixels."""
    best = (1, 1)
    for h in range(1, pixels + 1):
        w = min(pixels // h, width, max(1, int(h * width / height * 1.1)))
        stretch = abs(math.log(w / h * height / width))
        if stretch < 0.1 and h <= height and h * w > best[0] * best[1]:
            best = (h, w)
    return best
