"""Wireless channels: unit-power complex symbols in, noisy complex symbols out.

Used everywhere in this package:
    x, y       [B, K] complex   K channel uses per image; mean |x|^2 = 1 per image
    snr_db     number or [B]    Es/N0: 10 log10(mean |x|^2 / noise_var), per complex symbol
    noise_var  linear           total per complex symbol, so half per real dimension
A channel never rescales x. Whatever a receiver may know of the channel is in Received, nowhere else.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from .cascade.diffusion import draw_noise
from .errors import InputError


class Received(NamedTuple):
    """y = h x + n."""

    y: Tensor  # [B, K] complex, what the antenna sees
    h: Tensor  # [B, K] or [B, 1] complex, channel gain; all ones for AWGN
    noise_var: Tensor  # [B, K] or [B, 1] real, linear, Var(n) per complex symbol


def awgn(x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator]) -> Received:
    """Additive white Gaussian noise, y = x + n.

    Args:
        x: channel input, [B, K] complex, unit power per image (`transmitter.modulate`).
        snr_db: Es/N0 in dB; a number, or one value per image as [B].
        generators: one per image, the only source of randomness, so no image's noise depends on its batch.
    Raises:
        ValueError: x is not [B, K] complex, snr_db is not finite or neither a number nor [B], or a generator is missing.
    """
    if x.ndim != 2 or not x.is_complex():
        raise ValueError(f"x must be [B, K] complex, got {list(x.shape)} {x.dtype}")
    if len(generators) != len(x):
        raise ValueError(f"{len(x)} images need as many generators, got {len(generators)}")
    snr_db = torch.as_tensor(snr_db, dtype=torch.float32, device=x.device)
    if tuple(snr_db.shape) not in ((), (len(x),)) or not snr_db.isfinite().all():
        raise ValueError(f"snr_db must be a finite number or {len(x)} of them, got {snr_db.tolist()}")
    noise_var = (10 ** (-snr_db / 10)).expand(len(x))[:, None]  # [B, 1]
    re, im = draw_noise(x.new_empty(len(x), 2, x.shape[1], dtype=torch.float32), generators).unbind(1)  # N(0, 1) each
    n = torch.complex(re, im) * (noise_var / 2).sqrt()
    return Received(x + n, torch.ones_like(x[:, :1]), noise_var)


CHANNELS = {"awgn": awgn}


def find_channel(name: str):
    """The channel function of that name."""
    if name not in CHANNELS:
        raise InputError(f"no channel is called {name!r}; there are: {', '.join(CHANNELS)}")
    return CHANNELS[name]
