"""The loss of the enhancement network: what its layers make of the base picture, wherever the stream ends."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..cascade.denoiser import denoise, prepare
from ..cascade.diffusion import sample
from ..cascade.model import Cascade
from ..channels.base import Received
from ..header import LAYER_RUNGS
from ..metrics.lpips import LPIPS
from ..modulation.analog import demodulate, modulate
from ..randomness import draw_noise
from ..transmitter import unit_power
from .config import TrainConfig
from .losses import Step, noisy_z, propagate


def enhancement_loss(
    cascade: Cascade, images: Tensor, step: Step, config: TrainConfig, lpips: LPIPS
) -> dict[str, Tensor]:
    """L1 of the whole picture and LPIPS-VGG of a window, after a random number of rungs above the base."""
    base = base_picture(cascade, images, step, config)
    ends = (1 + (2 * LAYER_RUNGS * step.rand()).floor()).clamp(max=2 * LAYER_RUNGS)  # rungs above the base, [b]
    snr_db = config.snr_min + (config.snr_max - config.snr_min) * step.rand()
    known = [
        torch.cat([*heard(unit_power(layer), ends - i * LAYER_RUNGS, snr_db, step, config)], dim=1)
        for i, layer in enumerate(cascade.enhancement.encode(images))
    ]
    return picture_losses(cascade.enhancement.decode(base, *known).float(), images, step, config, lpips)


def picture_losses(image: Tensor, images: Tensor, step: Step, config: TrainConfig, lpips: LPIPS) -> dict[str, Tensor]:
    """L1 of the whole picture and LPIPS-VGG of a window, beside the truth `images` [b, 3, H, W]."""
    losses = {"pixel": F.l1_loss(image, images)}
    if config.window:
        top, left = (step.integer(images.shape[-1] - config.window + 1) for _ in range(2))
        window = slice(top, top + config.window), slice(left, left + config.window)
        with torch.no_grad():
            maps = lpips.maps(images[..., *window])
        losses["lpips"] = lpips.distance(lpips.maps(image[..., *window]), maps).mean()
    return losses


@torch.no_grad()
def base_picture(cascade: Cascade, images: Tensor, step: Step, config: TrainConfig) -> Tensor:
    """What the receiver makes of Z alone, [b, 3, H, W] in [0, 1]."""
    z, noise = noisy_z(cascade, images, step, config)
    size, generators = (images.shape[-2] // 4, images.shape[-1] // 4), step.generators()
    prepared = prepare(cascade, z, noise, size, guided=False)
    start = draw_noise(z.new_empty(len(z), cascade.config.stage_a.latent_channels, *size), generators)
    latent = sample(lambda x, t: denoise(cascade, x, t, prepared), start, cascade.config.steps, generators)
    return cascade.stage_a.decode(latent.to(cascade.stage_a.dtype)).float().clamp(0, 1)


def heard(layer: Tensor, rungs: Tensor, snr_db: Tensor, step: Step, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Send the first `rungs` [b] of a layer [b, 16, h, w], at most all and perhaps none -> estimate and noise."""
    x, _ = modulate(layer)
    y, h, noise_var = propagate(x, snr_db, step, config)
    unsent = torch.arange(x.shape[1], device=x.device) >= rungs[:, None] * (x.shape[1] // LAYER_RUNGS)
    received = Received(y.masked_fill(unsent, 0), h, noise_var.expand_as(h).masked_fill(unsent, torch.inf))
    return demodulate(received, 1.0, (layer.shape[1], layer.shape[2], layer.shape[3]), noise_aware=True)
