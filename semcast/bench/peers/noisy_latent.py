"""DIFFSC and CASC: a latent trained through the channel, whose noise a diffusion model takes out before the decoder.

Our re-implementation from the abstracts: neither has public code. DIFFSC (ICASSP 2024, IEEE 10448094) starts its
diffusion at the time whose noise is the channel's, so what was received is a state of it; its blocks weigh channels and
places. CASC (Chen & Yang, arXiv 2411.06552) starts from noise, with the received latent beside the state; kernels of its
network depend on time, on what was received and on its noise. The latent is [8, 32, 32] for 512x512 as published,
4096 uses, and [9, 16, 16] repaired, 1152 uses.
"""

import zlib

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...cascade.device import to_tensor
from ...channels.base import Received
from ...errors import InputError
from ...images import to_pixels
from ...randomness import draw_noise, seeded
from ..deepjscc import cells
from . import pictures
from .autoencoder import AutoencoderConfig
from .diffusion import STEPS, ddim, matched_time
from .parts import PARTS, load_part
from .symbols import as_state, from_symbols, to_symbols

DDIM_STEPS = 50


def published_uses(height: int, width: int) -> int:
    """4096 for 512x512."""
    channels, stride = shape_of("ae16")
    return channels * -(-height // stride) * -(-width // stride) // 2


def latent_grid(height: int, width: int, uses: int, latents: str) -> tuple[int, int]:
    """Rows and columns of the latent within `uses`: of the whole padded picture, or else of the least shrunk one."""
    channels, stride = shape_of(latents)
    if 2 * uses < channels:
        raise InputError(f"{uses} channel uses are too few for a latent of {channels} channels")
    return cells(height, width, uses, channels, stride)


def shape_of(latents: str) -> tuple[int, int]:
    """Channels and stride of an autoencoder's latent."""
    config = PARTS[latents].config
    assert isinstance(config, AutoencoderConfig)
    return config.channels, config.stride


@torch.inference_mode()
def send(pixels: np.ndarray, uses: int, snr_db: float, latents: str, device: str) -> tuple[np.ndarray, dict]:
    """Pad the picture to whole cells, and shrink it first if it would need more than `uses`; send its latent."""
    height, width = pixels.shape[:2]
    stride = shape_of(latents)[1]
    sides = [stride * n for n in latent_grid(height, width, uses, latents)]
    inner = min(height, sides[0]), min(width, sides[1])
    image = to_tensor(pixels)
    if inner != (height, width):
        image = F.interpolate(image, size=inner, mode="bilinear", antialias=True)
    image = F.pad(image, (0, sides[1] - inner[1], 0, sides[0] - inner[0]), mode="replicate").to(device)
    x, _ = to_symbols(pictures.encode(image, latents, device))
    return x, {"height": (height, 16), "width": (width, 16)}


@torch.inference_mode()
def receive(received: Received, side: dict, latents: str, part: str, device: str) -> np.ndarray:
    """part: "diffsc16" or another network for latents of this autoencoder."""
    height, width = side["height"][0], side["width"][0]
    rows, columns = latent_grid(height, width, received.y.shape[1], latents)
    estimate, noise_var = from_symbols(received, (shape_of(latents)[0], rows, columns))
    latent = denoise(estimate.to(device), noise_var, part, seed=zlib.crc32(received.y.tobytes()), device=device)
    image = pictures.decode(latent, latents, device)[:, :, :height, :width]
    if image.shape[-2:] != (height, width):
        image = F.interpolate(image, size=(height, width), mode="bicubic", align_corners=False).clamp(0, 1)
    return to_pixels(image.cpu().numpy())


def denoise(estimate: Tensor, noise_var: float, part: str, seed: int, device: str) -> Tensor:
    """MMSE estimate [1, c, h, w] of a latent of variance 1, and its noise -> the latent.

    seed: of CASC's start; what was received is random itself.
    """
    network = load_part(part, device)
    times = lambda t: torch.full((1,), t, device=device)
    if part.startswith("diffsc"):
        state, start = as_state(estimate, noise_var), matched_time(noise_var)
        return ddim(lambda x, t: network(x, times(t)), state, start, DDIM_STEPS)
    told = {"received": estimate, "noise_var": torch.full((1,), max(noise_var, 1e-4), device=device)}
    start = draw_noise(estimate, [seeded("casc", seed)])
    return ddim(lambda x, t: network(x, times(t), **told), start, STEPS, DDIM_STEPS)
