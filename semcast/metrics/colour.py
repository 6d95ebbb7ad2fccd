"""Colour error: CIEDE2000 between the mean colours of blocks."""

import numpy as np
from torch import Tensor
from torch.nn import functional as F

BLOCK = 16  # side in pixels


def delta_e(a: Tensor, b: Tensor) -> float:
    """Mean CIEDE2000 between the mean colours (in sRGB) of blocks of 16x16 pixels; it ignores detail within a block."""
    blocks = [F.avg_pool2d(image, BLOCK, ceil_mode=True)[0].permute(1, 2, 0).double().numpy() for image in (a, b)]
    return float(ciede2000(*(lab(block) for block in blocks)).mean())


def lab(srgb: np.ndarray) -> np.ndarray:
    """sRGB [..., 3] in [0, 1] -> CIE L*a*b* for D65."""
    linear = np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
    matrix = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def ciede2000(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Colour difference between L*a*b* values [..., 3]. Source: Sharma, Wu & Dalal 2005, equations 2 to 22."""
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0)
    c = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = (1 - np.sqrt(c**7 / (c**7 + 25.0**7))) / 2
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    grey = c1 * c2 == 0
    dh = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    dl, dc, dh_length = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh) / 2)
    c, middle = (c1 + c2) / 2, (l1 + l2) / 2 - 50
    h_sum = h1 + h2
    far = (h_sum + np.where(h_sum < 360, 360, -360)) / 2
    h = np.where(grey, h_sum, np.where(np.abs(h1 - h2) <= 180, h_sum / 2, far))
    cosine = lambda degrees: np.cos(np.radians(degrees))
    t = 1 - 0.17 * cosine(h - 30) + 0.24 * cosine(2 * h) + 0.32 * cosine(3 * h + 6) - 0.2 * cosine(4 * h - 63)
    sl = 1 + 0.015 * middle**2 / np.sqrt(20 + middle**2)
    sc, sh = 1 + 0.045 * c, 1 + 0.015 * c * t
    rotation = -np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2)))) * 2 * np.sqrt(c**7 / (c**7 + 25.0**7))
    terms = (dl / sl) ** 2 + (dc / sc) ** 2 + (dh_length / sh) ** 2 + rotation * (dc / sc) * (dh_length / sh)
    return np.sqrt(np.maximum(terms, 0))
