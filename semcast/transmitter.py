"""Transmitter: picture -> Z and its header.

image [B, 3, H, W] in [0, 1] -> padded to multiples of 64 -> shrunk by `factor` -> encoder -> Z [B, 16, hz, wz]
"""

from collections.abc import Callable

import numpy as np

from .arrays import Array, array_namespace
from .cascade.engine import Engine
from .header import Header, check_sides, encoder_sides, round_factor


def transmit(image: np.ndarray, engine: Engine, factor: float) -> tuple[np.ndarray, Header]:
    """Encode one picture [1, 3, H, W] in [0, 1] -> (Z [1, 16, hz, wz], its header, whose gain the modem will set).

    Args:
        factor: encoder input side / padded side.

    Raises:
        InputError: a side outside 64 .. 8192, or a factor outside 0.5 .. 1.
    """
    height, width = image.shape[-2:]
    check_sides(height, width)
    header = Header(engine.encoder_id, height, width, round_factor(factor), 1.0)
    return encode(pad(np.asarray(image), header.padded), engine.encode, header.factor), header


def pad(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Repeat the last row and column until [B, 3, H, W] has `size`."""
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image  # without a copy, which matters for large pictures
    return np.pad(image, ((0, 0), (0, 0), (0, size[0] - height), (0, size[1] - width)), mode="edge")


def encode(image: Array, encoder: Callable[[Array], Array], factor: float) -> Array:
    """Encode padded images [B, 3, H, W] -> Z [B, 16, hz, wz], resized by nearest neighbour as in Stable Cascade."""
    height, width = image.shape[-2:]
    return encoder(resize_nearest(image, encoder_sides((height, width), factor)))


def resize_nearest(image: Array, size: tuple[int, int]) -> Array:
    """[B, 3, H, W] -> [B, 3, *size]; row i is row floor(i H / size[0]), in float32 as torch computes it."""
    xp = array_namespace(image)
    for axis, count in zip((2, 3), size):
        if image.shape[axis] != count:
            scale = np.float32(image.shape[axis]) / np.float32(count)
            picks = (
                np.floor(np.arange(count, dtype=np.float32) * scale).astype(np.int64).clip(max=image.shape[axis] - 1)
            )
            image = xp.take(image, xp.asarray(picks, device=image.device), axis=axis)
    return image
