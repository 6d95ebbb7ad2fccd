"""The loss of the restorer: what it makes of a coarsely coded picture and the base picture."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..cascade.config import SMALL_RESTORER
from ..cascade.model import Cascade
from ..images import to_image, to_pixels
from ..metrics.lpips import LPIPS
from ..modulation import avif
from .config import TrainConfig
from .enhancement import base_picture, picture_losses
from .losses import Step

QUALITIES = 70  # of AVIF, 0 to 100; the coarser the likelier
HALVED = 0.25  # share of the pictures that are coded at half their sides


def restorer_loss(cascade: Cascade, images: Tensor, step: Step, config: TrainConfig, lpips: LPIPS) -> dict[str, Tensor]:
    """L1 of the whole picture and LPIPS-VGG of a window, after AVIF of a random quality."""
    base = base_picture(cascade, images, step, config)
    draft, rate = drafts(images, step.rand(), step.rand() < HALVED)
    return picture_losses(cascade.restorer(base, draft, rate).float(), images, step, config, lpips)


def drafts(images: Tensor, coarse: Tensor, halved: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures [b, 3, H, W], coded, and the logarithms [b, 1, 1, 1] to base 2 of the bits per pixel.

    Args:
        coarse: [b] in [0, 1); its square is the quality, as a share of QUALITIES.
        halved: [b], whether the sides are halved before coding, which suits low qualities.
    """
    coded, rates = [], []
    for image, c, half in zip(images.cpu().numpy(), coarse.tolist(), halved.tolist()):
        pixels, index = to_pixels(image[None]), int(half)
        small = avif.shrunk(pixels, index)
        payload = bytes([index]) + avif.encoded(small.tobytes(), small.shape[:2], int(QUALITIES * c * c))
        coded.append(torch.from_numpy(to_image(avif.show(payload, *pixels.shape[:2]))))
        rates.append(math.log2(8 * len(payload) / (pixels.shape[0] * pixels.shape[1])))
    return torch.cat(coded).to(images), torch.tensor(rates).to(images)[:, None, None, None]


def with_restorer(cascade: Cascade, seed: int) -> Cascade:
    """The model with a restorer; a new one changes no picture until it is trained."""
    if cascade.config.restorer.exists:
        return cascade
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copy = Cascade(replace(cascade.config, restorer=SMALL_RESTORER))
    copy.load_state_dict(cascade.state_dict(), strict=False)
    return copy.eval()
