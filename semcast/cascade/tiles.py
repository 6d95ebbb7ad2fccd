"""Decoding large latents in tiles, so that memory does not grow with the picture."""

from collections.abc import Callable

from ..arrays import Array, array_namespace
from .config import StageAConfig

TILE = 128  # side of a tile in latent pixels: 512 picture pixels


def in_tiles(decode: Callable[[Array], Array], latent: Array, config: StageAConfig) -> Array:
    """decode(latent) -> image [B, 3, 4h, 4w], by parts.

    Each tile is decoded together with as much of its surroundings as the convolutions reach, so there are no seams: the
    result equals that of the whole latent, up to rounding.
    """
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
