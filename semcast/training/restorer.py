"""The loss of the restorer: what it makes of a coarsely coded picture and the base picture."""

import math

import torch
from torch import Tensor

from ..cascade.model import Cascade
from ..images import to_image, to_pixels
from ..metrics.lpips import LPIPS
from ..modulation import avif
from .config import TrainConfig
from .enhancement import base_picture, picture_losses
from .losses import Step

QUALITIES = 70  # of AVIF, 0 to 100; the coarser the likelier
SHRUNK = (
    0.6,
    0.8,
)  # below the first a draw leaves a picture its size, below the second three quarters of its sides, else half


def restorer_loss(cascade: Cascade, images: Tensor, step: Step, config: TrainConfig, lpips: LPIPS) -> dict[str, Tensor]:
    """L1 of the whole picture and LPIPS-VGG of a window, after AVIF of a random quality."""
    base = base_picture(cascade, images, step, config)
    draft, rate = drafts(
        images, step.rand(), (step.rand()[:, None] >= torch.tensor(SHRUNK, device=images.device)).sum(dim=1)
    )
    return picture_losses(cascade.restorer(base, draft, rate).float(), images, step, config, lpips)


def drafts(images: Tensor, coarse: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures [b, 3, H, W], coded, and the logarithms [b, 1, 1, 1] to base 2 of the bits per pixel.

    Args:
        coarse: [b] in [0, 1); its square is the quality, as a share of QUALITIES.
        scales: [b], indices of `avif.QUARTERS`.
    """
    coded, rates = [], []
    for image, c, index in zip(images.cpu().numpy(), coarse.tolist(), scales.tolist()):
        pixels = to_pixels(image[None])
        small = avif.shrunk(pixels, index)
        payload = bytes([index]) + avif.encoded(small, int(QUALITIES * c * c))
        coded.append(torch.from_numpy(to_image(avif.show(payload, *pixels.shape[:2]))))
        rates.append(math.log2(8 * len(payload) / (pixels.shape[0] * pixels.shape[1])))
    return torch.cat(coded).to(images), torch.tensor(rates).to(images)[:, None, None, None]
