"""The system `stage-a`: Stage A's latent of a shrunk picture, sent as analog symbols."""

import functools
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..channels.base import Received
from ..images import to_image, to_pixels
from ..modulation.analog import modulate
from .base import Side, System, float16, float16_bits, sides
from .downscale import enlarging, grid, resize, samples, shrinking
from .ours import model_folder, model_version
from .pictures import sides_of

if TYPE_CHECKING:
    from ..cascade.torch_engine import TorchEngine


def send_stage_a(pixels: np.ndarray, uses: int, snr_db: float, model: str, device: str) -> tuple[np.ndarray, Side]:
    """Shrink the picture until its Stage A latent, 4 numbers for 4x4 pixels, fits; send the latent."""
    height, width = stage_a_grid(*sides_of(pixels), uses)
    latent = load_autoencoder(model, device).latent(resize(to_image(pixels), (4 * height, 4 * width), shrinking))
    mean = latent.mean(axis=(2, 3)).astype(np.float16).astype(np.float32)  # [1, 4]
    z = (latent - mean[..., None, None]).reshape(1, 4, height, width)
    x, gain = modulate(z)
    means = {f"mean{i}": (float16_bits(value), 16) for i, value in enumerate(mean[0].tolist())}
    return x, {**sides(pixels), **means, "gain": (float16_bits(gain.item()), 16)}


def receive_stage_a(received: Received, side: Side, model: str, device: str) -> np.ndarray:
    sides = side["height"][0], side["width"][0]
    z = samples(received) / np.float32(float16(side["gain"][0]))
    mean = np.array([float16(side[f"mean{i}"][0]) for i in range(4)], np.float32).reshape(1, 4, 1, 1)
    latent = z.reshape(1, 4, *stage_a_grid(*sides, z.shape[1] // 2)) + mean
    return to_pixels(resize(load_autoencoder(model, device).decode(latent), sides, enlarging))


@functools.lru_cache(maxsize=1)
def load_autoencoder(model: str, device: str) -> "TorchEngine":
    from ..cascade.loading import load_torch
    from ..cascade.torch_engine import TorchEngine

    return TorchEngine(load_torch(model_folder(model), device))


def stage_a_grid(height: int, width: int, uses: int) -> tuple[int, int]:
    return grid(height // 4, width // 4, uses // 2)


def stage_a(model: str, device: str) -> System:
    about = "Stage A's latent of a shrunk picture, sent analog"
    send = partial(send_stage_a, model=model, device=device)
    receive = partial(receive_stage_a, model=model, device=device)
    return System(about, send, receive, version=partial(model_version, model))
