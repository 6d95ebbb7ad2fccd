"""Img2Img-SC: the receiver treats a damaged latent as a sketch, which a diffusion prior makes into a picture.

Source: Cicchetti et al. 2024 (arXiv 2405.09976). As published, every number of the latent is a 64-bit float (`floats.py`)
and the prior starts at the strength 0.6. Repaired, the latent of a thumbnail is sent as analog symbols, and the prior
starts at the time whose noise is the channel's: what was received is a state of the diffusion, no noise is added. The
picture is then enlarged, and a second, weaker pass gives it texture at its full size.
"""

import math

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

from ...cascade.device import to_tensor
from ...channels.base import Received
from ...images import to_pixels
from ...randomness import seeded
from ..base import float16, float16_bits, sides
from ..downscale import grid
from . import pictures
from .diffusion import STEPS, Denoiser, add_noise, alpha_bar, ddim, matched_time
from .floats import USES, receive_floats, repair, send_floats
from .parts import PARTS, load_part
from .symbols import from_symbols, to_symbols

STRENGTH, DDIM_STEPS = 0.6, 30  # as published: 30 of 50 steps
TEXTURE = 0.3  # strength of the repaired system's second pass
STRIDE, CHANNELS = PARTS["ae8"].config.stride, PARTS["ae8"].config.channels  # type: ignore[union-attr]


def published_uses(height: int, width: int) -> int:
    """262,144 for 512x512: one a pixel."""
    return CHANNELS * math.prod(cells(height, width)) * USES


def cells(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the latent of a padded picture."""
    return -(-height // STRIDE), -(-width // STRIDE)


@torch.inference_mode()
def send_published(pixels: np.ndarray, uses: int, snr_db: float, device: str) -> tuple[np.ndarray, dict]:
    latent = encode(to_tensor(pixels).to(device), device)
    return send_floats(latent.cpu().double().numpy().ravel()), sides(pixels)


@torch.inference_mode()
def receive_published(received: Received, side: dict, device: str) -> np.ndarray:
    height, width = side["height"][0], side["width"][0]
    generator = seeded("img2img", height, width)
    numbers = repair(receive_floats(received), generator)
    latent = torch.from_numpy(numbers.astype(np.float32)).view(1, CHANNELS, *cells(height, width)).to(device)
    return to_pixels(decode(paint(latent, STRENGTH, generator, device), height, width, device).cpu().numpy())


@torch.inference_mode()
def send(pixels: np.ndarray, uses: int, snr_db: float, device: str) -> tuple[np.ndarray, dict]:
    height, width = pixels.shape[:2]
    rows, columns = grid(*cells(height, width), 2 * uses // CHANNELS)
    small = F.interpolate(
        to_tensor(pixels).to(device), size=(STRIDE * rows, STRIDE * columns), mode="bicubic", antialias=True
    )
    x, gain = to_symbols(encode(small.clamp(0, 1), device))
    return x, sides(pixels) | {"gain": (float16_bits(gain), 16)}


@torch.inference_mode()
def receive(received: Received, side: dict, device: str) -> np.ndarray:
    height, width = side["height"][0], side["width"][0]
    gain = float16(side["gain"][0])
    rows, columns = grid(*cells(height, width), 2 * received.y.shape[1] // CHANNELS)
    estimate, noise_var = from_symbols(received, (CHANNELS, rows, columns))
    start = matched_time(noise_var / gain**2)  # the latent has variance 1 / gain^2, the prior's latents 1
    state = estimate * ((1 + noise_var) / gain * math.sqrt(alpha_bar(start)))  # MMSE estimate -> unbiased -> x_start
    small = decode(ddim(denoiser(device), state.to(device), start, DDIM_STEPS), STRIDE * rows, STRIDE * columns, device)
    large = F.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1)
    if (rows, columns) != cells(height, width):
        latent = paint(encode(large, device), TEXTURE, seeded("img2img", height, width, side["gain"][0]), device)
        large = decode(latent, height, width, device)
    return to_pixels(large.cpu().numpy())


def paint(latent: Tensor, strength: float, generator: Generator, device: str) -> Tensor:
    """Image-to-image diffusion: noise up to the strength (0 to 1) on the latent, then the prior's DDIM."""
    steps = max(1, round(DDIM_STEPS * strength / STRENGTH))
    return ddim(denoiser(device), add_noise(latent, STEPS * strength, [generator]), STEPS * strength, steps)


def denoiser(device: str) -> Denoiser:
    prior = load_part("img2img", device)
    return lambda x, t: prior(x, torch.full((len(x),), t, device=x.device))


def encode(image: Tensor, device: str) -> Tensor:
    """[1, 3, H, W] in [0, 1] -> the latent of the picture padded to whole cells."""
    edges = (0, -image.shape[-1] % STRIDE, 0, -image.shape[-2] % STRIDE)
    return pictures.encode(F.pad(image, edges, mode="replicate"), "ae8", device)


def decode(latent: Tensor, height: int, width: int, device: str) -> Tensor:
    """-> [1, 3, height, width] in [0, 1]."""
    return pictures.decode(latent, "ae8", device)[:, :, :height, :width]
