"""Large pictures in tiles, so that memory does not grow with the picture.

Each tile is computed together with as much of its surroundings as the convolutions reach, so there are no seams: the
result equals that of the whole, up to rounding.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ..arrays import Array, array_namespace
from .config import EnhancementConfig, RestorerConfig, StageAConfig

TILE = 128  # side of a tile in latent pixels: 512 picture pixels


def in_tiles(decode: Callable[[Array], Array], latent: Array, config: StageAConfig) -> Array:
    """decode(latent) -> image [B, 3, 4h, 4w], by parts."""
    height, width = latent.shape[-2:]
    if max(height, width) <= TILE:
        return decode(latent)
    # In latent pixels: one per block, one for the transposed convolution, half a one per block behind it.
    reach = config.bottleneck_blocks + 1 + (config.fine_blocks + 1) // 2
    xp = array_namespace(latent)
    image = xp.empty((len(latent), 3, 4 * height, 4 * width), dtype=latent.dtype, device=latent.device)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            y, x = max(0, top - reach), max(0, left - reach)
            seen = decode(latent[..., y : top + TILE + reach, x : left + TILE + reach])
            seen = seen[..., 4 * (top - y) :, 4 * (left - x) :]
            bottom, right = min(4 * (top + TILE), 4 * height), min(4 * (left + TILE), 4 * width)
            image[..., 4 * top : bottom, 4 * left : right] = seen[..., : bottom - 4 * top, : right - 4 * left]
    return image


ENHANCEMENT_TILE = 1024  # pixels


def enhanced_in_tiles(
    run: Callable[..., np.ndarray],
    config: EnhancementConfig | RestorerConfig,
    inputs: Sequence[np.ndarray],
    stride: int,
    channels: int,
) -> np.ndarray:
    """run(*inputs) -> [B, channels, H / stride, W / stride], by parts; for the enhancement network and restorer.

    Args:
        inputs: [B, C, h, w] each; the first has a picture's sides H and W, multiples of 64.
    """
    height, width = inputs[0].shape[-2:]
    if max(height, width) <= ENHANCEMENT_TILE:
        return run(*inputs)
    reach = -(-config.reach // 64) * 64
    strides = [width // part.shape[-1] for part in inputs]
    result = np.empty((len(inputs[0]), channels, height // stride, width // stride), np.float32)
    for top in range(0, height, ENHANCEMENT_TILE):
        for left in range(0, width, ENHANCEMENT_TILE):
            y, x = max(0, top - reach), max(0, left - reach)
            bottom, right = top + ENHANCEMENT_TILE + reach, left + ENHANCEMENT_TILE + reach
            seen = run(*(p[..., y // s : bottom // s, x // s : right // s] for p, s in zip(inputs, strides)))
            place = result[..., top // stride :, left // stride :][
                ..., : ENHANCEMENT_TILE // stride, : ENHANCEMENT_TILE // stride
            ]
            h, w = place.shape[-2:]
            dy, dx = (top - y) // stride, (left - x) // stride
            place[...] = seen[..., dy : dy + h, dx : dx + w]
    return result


def log_rate(bits_per_pixel: float) -> np.ndarray:
    """As the restorer takes it, [1, 1, 1, 1]."""
    return np.full((1, 1, 1, 1), np.log2(max(bits_per_pixel, 1e-4)), np.float32)
