"""The system `downscale`: a shrunk picture, sent as analog symbols without any network."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..channels.base import Received, equalise
from ..channels.noise import awgn

SIDE_BITS = 3 * 8 + 16 + 32  # mean colour, gain, height and width


def downscale_and_send(image: Tensor, channel_uses: int, snr_db: float, generator: torch.Generator) -> Tensor:
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


def shrink(image: Tensor, channel_uses: int) -> tuple[Tensor, Tensor, Tensor]:
    """The sender: [1, 3, H, W] in [0, 1] -> (x [1, k] with mean |x|^2 = 1, mean colour [1, 3, 1, 1], gain [])."""
    size = grid(image.shape[-2], image.shape[-1], 2 * channel_uses // 3)
    small = F.interpolate(image, size=size, mode="bilinear", antialias=True)
    mean = (small.mean(dim=(2, 3), keepdim=True) * 255).round() / 255
    flat = (small - mean).flatten(1)
    flat = F.pad(flat, (0, 2 * channel_uses - flat.shape[1]))  # unused symbols carry nothing
    gain = flat.square().sum().div(channel_uses).clamp_min(1e-12).rsqrt()  # mean |x|^2 = 1
    return torch.complex(*(gain * flat).chunk(2, dim=1)), mean, gain


def enlarge(received: Received, mean: Tensor, gain: Tensor | float, sides: tuple[int, int]) -> Tensor:
    """The receiver: y = h x + n [1, k] and the side information -> [1, 3, *sides] in [0, 1]."""
    estimate = samples(received) / gain
    size = grid(*sides, estimate.shape[1] // 3)
    small = estimate[:, : 3 * size[0] * size[1]].view(1, 3, *size) + mean
    return F.interpolate(small, size=tuple(sides), mode="bicubic", align_corners=False).clamp(0, 1)


def samples(received: Received) -> Tensor:
    """MMSE estimate of unit-power symbols: real parts, then imaginary parts, [B, 2 k]."""
    estimate = equalise(received)
    return torch.cat([estimate.real, estimate.imag], dim=1)


def grid(height: int, width: int, pixels: int) -> tuple[int, int]:
    """The largest h x w <= pixels with about the picture's aspect ratio: 27 x 28 for 512 x 512 and 768 pixels."""
    best = (1, 1)
    for h in range(1, pixels + 1):
        w = min(pixels // h, width, max(1, int(h * width / height * 1.1)))
        stretch = abs(math.log(w / h * height / width))
        if stretch < 0.1 and h <= height and h * w > best[0] * best[1]:
            best = (h, w)
    return best
