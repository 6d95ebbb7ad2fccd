"""The two phases of the job, one step each: forward, losses, backward. Gradients are left in the parameters."""

import random

import torch
from air import CUT, Air, draw_snr, encode, hear_base, hear_layer
from objective import Objective
from torch import Tensor
from torch.nn import functional as F

from semcast.cascade.denoiser import denoise, prepare
from semcast.cascade.diffusion import add_noise
from semcast.cascade.model import Cascade
from semcast.header import LAYER_RUNGS

FACTORS = 0.5, 0.625, 1.0  # beside the usual 0.75, for few of the steps: each is a new set of shapes
HIDDEN = 0.05  # noise on a true latent that Stage A's decoder decodes, in deviations


def base_step(
    cascade: Cascade, images: Tensor, objective: Objective, share: float, rng: random.Random, w_latent: float
) -> dict[str, Tensor]:
    """Encoder, Stage B and Stage A's decoder, through the channel. images [B, 3, H, W] in [0, 1], float32."""
    b, device, dtype = len(images), images.device, cascade.stage_a.dtype
    with torch.no_grad():
        target = cascade.stage_a.encode(images.to(dtype)).float()
    factor = 0.75 if rng.random() < 0.92 else rng.choice(FACTORS)
    z, noise = hear_base(encode(cascade.encoder, images.to(dtype), factor), Air(draw_snr(b, device)))
    prepared = prepare(cascade, z, noise, target.shape[-2:], guided=False)
    # 7/8 of the pictures start from pure noise, as a receiver does in one step, the others from the true latent in noise
    e = b // 8
    t = torch.ones(b, device=device, dtype=torch.float64)
    t[b - e :] = torch.rand(e, device=device, dtype=torch.float64)
    x = add_noise(target, t, torch.randn_like(target))
    x0, _ = denoise(cascade, x, t, prepared)
    # the decoder goes on decoding true latents: an eighth more pictures
    hidden = target + HIDDEN * torch.randn_like(target) * target.std()
    latents, truth = torch.cat([x0, hidden[: max(1, e)]]), torch.cat([images, images[: max(1, e)]])
    decoded = cascade.stage_a.decode(latents.to(dtype)).float()
    gradient, terms = objective(decoded, truth, share)
    terms["latent"] = latent_loss(x0, target)
    torch.autograd.backward([decoded, terms["latent"]], [gradient, torch.full_like(terms["latent"], w_latent)])
    return terms


def ladder_step(cascade: Cascade, images: Tensor, objective: Objective, share: float) -> dict[str, Tensor]:
    """The enhancement network on what the receiver makes of the base, ending after a random rung above it."""
    network, snr_db = cascade.enhancement, draw_snr(len(images), images.device)
    air = Air(snr_db)
    base = base_picture(cascade, images, air)
    ends = torch.randint(1, 2 * LAYER_RUNGS + 1, snr_db.shape, device=images.device)
    layers = network.encode(images.to(network.dtype))
    rungs = ((ends - i * LAYER_RUNGS).clamp(0, LAYER_RUNGS) for i in range(len(layers)))
    known = [hear_layer(layer, air, n).to(network.dtype) for layer, n in zip(layers, rungs)]
    decoded = network.decode(base.to(network.dtype), *known).float()
    gradient, terms = objective(decoded, images, share)
    decoded.backward(gradient)
    with torch.no_grad():
        terms["base_l1"] = (base - images).abs().mean()
    return terms


@torch.no_grad()
def base_picture(cascade: Cascade, images: Tensor, air: Air, cut: float = CUT / 4) -> Tensor:
    """What the receiver makes of Z in one step, [B, 3, H, W] in [0, 1]."""
    dtype = cascade.stage_a.dtype
    z, noise = hear_base(encode(cascade.encoder, images.to(dtype), 0.75), air, cut)
    size = images.shape[-2] // 4, images.shape[-1] // 4
    prepared = prepare(cascade, z, noise, size, guided=False)
    start = torch.randn(len(images), cascade.config.stage_a.latent_channels, *size, device=images.device)
    x0, _ = denoise(cascade, start, torch.ones(len(images), device=images.device, dtype=torch.float64), prepared)
    return cascade.stage_a._up(x0.to(dtype)).float().clamp(0, 1)


def latent_loss(x0: Tensor, target: Tensor) -> Tensor:
    """L1 of means over squares of several sizes."""
    difference = x0 - target
    sides = [s for s in (1, 2, 4, 8, 16) if s <= min(difference.shape[-2:])]
    return sum(F.avg_pool2d(difference, s).abs().mean() for s in sides)
