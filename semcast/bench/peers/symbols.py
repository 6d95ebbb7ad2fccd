"""Latents as unit-power analog symbols and back: two numbers a complex use, first half real, second half imaginary."""

import math

import numpy as np
import torch
from torch import Tensor

from ...channels.base import Received
from ..downscale import samples


def to_symbols(z: Tensor) -> tuple[np.ndarray, float]:
    """z [1, c, h, w] -> (x [1, k] complex64 with mean |x|^2 = 1, gain). x sqrt(2) holds gain z; an odd number is padded."""
    flat = z.float().cpu().flatten(1).numpy()
    flat = np.pad(flat, ((0, 0), (0, flat.shape[1] % 2)))
    gain = max(float(np.mean(flat.astype(np.float64) ** 2)), 1e-12) ** -0.5
    real, imag = np.split(np.float32(gain / math.sqrt(2)) * flat, 2, axis=1)
    return (real + 1j * imag).astype(np.complex64), gain


def from_symbols(received: Received, shape: tuple[int, int, int]) -> tuple[Tensor, float]:
    """What arrived -> (MMSE estimate [1, *shape] of numbers of variance 1, noise_var).

    noise_var is linear, per number of variance 1: that of one noise for all numbers which leaves as much of them as the
    noises of the symbols do on average. On AWGN it is 1 / snr, and a lost symbol has infinite noise.
    """
    estimate = math.sqrt(2) * samples(received)[:, : math.prod(shape)]
    power = np.abs(received.h) ** 2 * np.ones(received.y.shape)
    kept = float(np.mean(power / (power + received.noise_var)))  # the MMSE weight
    return torch.from_numpy(np.ascontiguousarray(estimate, np.float32)).view(1, *shape), 1 / max(kept, 1e-9) - 1


def as_state(estimate: Tensor, noise_var: float) -> Tensor:
    """An MMSE estimate as the state of diffusion at `matched_time(noise_var)`: its noise is the state's noise."""
    return estimate * math.sqrt(1 + noise_var)
