"""GESCO: only the classes of the pixels are sent, and a diffusion model paints a picture that has them.

Source: Grassucci, Barbarossa & Comminiello 2023 (arXiv 2306.04321; ispamm/GESCO). As published, one map a class goes out
as analog numbers, with noise of a table. Repaired, the map is a file (`maps.py`) over the digital link, at the finest
scale that fits. The painter works on latents here, on pixels there.
"""

import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...channels.base import Received
from ...images import to_pixels
from ...metrics.segmenter import VOID, load_segmenter, segment
from ...modulation import mcs as schemes
from ...randomness import draw_noise, seeded
from ..base import float16, float16_bits, mean_colour, sides
from .diffusion import STEPS, Denoiser, ddim, ddpm
from .img2img import CHANNELS, STRIDE, cells, decode
from .maps import SYMBOLS, fit_map, restore_map
from .parts import CLASS_MAPS, load_part

GUIDANCE, DDIM_STEPS = 2.0, 50
NOISE_STD = {1: 0.9, 5: 0.6, 10: 0.36, 15: 0.22, 20: 0.13, 25: 0.08, 30: 0.05}  # by SNR in dB, of a map of 0 and 1
SCHEME_NONE = 31


def published_uses(height: int, width: int) -> int:
    """6.5 a pixel: 13 maps, two numbers a symbol."""
    return -(-CLASS_MAPS * height * width // 2)


def send_published(pixels: np.ndarray, uses: int, snr_db: float, truth: np.ndarray) -> tuple[np.ndarray, dict]:
    maps = one_hot(truth).numpy().ravel()
    flat = np.pad(maps, (0, len(maps) % 2))
    gain = math.sqrt(len(flat) / (2 * flat.sum()))  # of power 1 a symbol
    x = (gain * (flat[: len(flat) // 2] + 1j * flat[len(flat) // 2 :]))[None].astype(np.complex64)
    there = sum(1 << c for c in np.unique(truth).tolist())
    return x, sides(pixels) | {"classes": (there, SYMBOLS), "gain": (float16_bits(gain), 16)}


@torch.inference_mode()
def receive_published(received: Received, side: dict, device: str) -> np.ndarray:
    height, width, there, gain = (side[name][0] for name in ("height", "width", "classes", "gain"))
    y, h, noise_var = received
    power = np.clip(np.abs(h) ** 2, 1e-12, None)
    noise = float(np.mean(np.minimum(noise_var / power, 1e6)))  # linear, per symbol
    generator = seeded("gesco", height, width, gain)
    scale = float16(gain)
    clean = (np.conj(h) * y / power / scale)[0]
    flat = np.concatenate([clean.real, clean.imag])[: CLASS_MAPS * height * width]
    lacking = max(table_std(-10 * math.log10(max(noise, 1e-9))) ** 2 - noise / 2 / scale**2, 0.0)
    flat = flat + math.sqrt(lacking) * generator.standard_normal(len(flat), np.float32)  # what the table has more
    maps = torch.from_numpy(flat.astype(np.float32)).view(1, CLASS_MAPS, height, width)
    kept = torch.tensor([there >> c & 1 for c in range(SYMBOLS)] + [1])
    maps = F.max_pool2d(F.avg_pool2d(maps, 3, 1, 1), 3, 1, 1) * kept[:, None, None]
    noise_like = torch.empty(1, CHANNELS, *cells(height, width), device=device)
    latent = ddpm(denoiser(at_cells(maps), device), draw_noise(noise_like, [generator]), [generator])
    return to_pixels(decode(latent, height, width, device).cpu().numpy())


def table_std(snr_db: float) -> float:
    """The table's standard deviation of the noise, between its SNRs by the logarithm; constant beyond them."""
    return math.exp(np.interp(snr_db, list(NOISE_STD), np.log(list(NOISE_STD.values()))))


def send_truth(pixels: np.ndarray, uses: int, snr_db: float, truth: np.ndarray) -> tuple[np.ndarray, dict]:
    return send_map(truth, pixels, uses, snr_db)


def send_segmented(pixels: np.ndarray, uses: int, snr_db: float, segmenter: str) -> tuple[np.ndarray, dict]:
    return send_map(segment(load_segmenter(Path(segmenter)), pixels), pixels, uses, snr_db)


def send_map(classes: np.ndarray, pixels: np.ndarray, uses: int, snr_db: float) -> tuple[np.ndarray, dict]:
    """Send the finest map that fits, with the scheme that suits the SNR; nothing if none fits."""
    scheme = schemes.choose(uses, snr_db)
    payload, index = fit_map(classes, schemes.plan(uses, scheme).payload_bytes) if scheme else (b"", 0)
    side = {
        **sides(pixels),
        **mean_colour(pixels),  # shown if the map is lost
        "size": (len(payload), 16),
        "scale": (index, 4),
        "scheme": (schemes.TABLE.index(scheme) if scheme else SCHEME_NONE, 5),
    }
    if not (payload and scheme):
        return np.zeros((1, 0), np.complex64), side
    from ...modulation import ldpc

    return ldpc.encode([payload], uses, scheme), side


@torch.inference_mode()
def receive(received: Received, side: dict, device: str) -> np.ndarray | None:
    from ...modulation import ldpc

    height, width = side["height"][0], side["width"][0]
    payload = ldpc.decode(received, schemes.TABLE[side["scheme"][0]], [side["size"][0]])[0]
    if payload is None:
        return None
    maps = one_hot(restore_map(payload, side["scale"][0], height, width))
    noise_like = torch.empty(1, CHANNELS, *cells(height, width), device=device)
    noise = draw_noise(noise_like, [seeded("gesco", zlib.crc32(payload))])
    latent = ddim(denoiser(at_cells(maps), device), noise, STEPS, DDIM_STEPS)
    return to_pixels(decode(latent, height, width, device).cpu().numpy())


def denoiser(maps: Tensor, device: str) -> Denoiser:
    """The painter with classifier-free guidance: its uncondition is a map of nothing."""
    painter, both = load_part("gesco", device), torch.cat([maps, torch.zeros_like(maps)]).to(device)

    def guided(x: Tensor, t: float) -> Tensor:
        told, untold = painter(torch.cat([x, x]), torch.full((2,), t, device=x.device), maps=both).chunk(2)
        return untold + GUIDANCE * (told - untold)

    return guided


def one_hot(classes: np.ndarray) -> Tensor:
    """uint8 [H, W] -> [1, 13, H, W] of 0 and 1: the classes, void, and where a neighbour has another class."""
    here = torch.from_numpy(classes.astype(np.int64))
    maps = F.one_hot(here, VOID + 1).permute(2, 0, 1).float()
    edge = torch.zeros(here.shape, dtype=torch.bool)
    across, down = here[:, 1:] != here[:, :-1], here[1:] != here[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return torch.cat([maps, edge[None].float()])[None]


def at_cells(maps: Tensor) -> Tensor:
    """Maps [1, m, H, W] -> their means over the cells of the latent [1, m, rows, columns]."""
    height, width = maps.shape[-2:]
    edges = (0, -width % STRIDE, 0, -height % STRIDE)
    return F.avg_pool2d(F.pad(maps, edges, mode="replicate"), STRIDE)
