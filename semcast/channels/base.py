"""The interface of all channels: unit-power complex symbols in, noisy complex symbols out.

Notation in this package:
    x, y       [B, K] complex   K channel uses per image; mean |x|^2 = 1 per image
    snr_db     number or [B]    Es/N0 = 10 log10(mean |x|^2 / noise_var) per complex symbol, averaged over fading
    noise_var  linear           total per complex symbol, so half per real dimension; infinite where a symbol is lost
A channel never rescales x. Everything that a receiver may know about the channel is in Received. y has the order of x:
a channel that interleaves also deinterleaves.

A channel is a plain function f(x, snr_db, generators, **options) -> Received; `catalogue.CHANNELS` lists them. Its only
source of randomness is one CPU generator per image, so an image's channel does not depend on its batch. Every channel
draws the noise first, so the same seed gives the same noise on many channels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..randomness import draw_noise


class Received(NamedTuple):
    """The result of a channel, y = h x + n."""

    y: Tensor  # [B, K] complex, the received symbols
    h: Tensor  # [B, K] or [B, 1] complex, channel gain; all ones for AWGN
    noise_var: Tensor  # [B, K] or [B, 1] real, linear, Var(n) per complex symbol


def equalise(received: Received, mmse: bool = True) -> Tensor:
    """Estimate x [B, K].

    Args:
        mmse: conj(h) y / (|h|^2 + noise_var), the MMSE estimate for x of unit power; else conj(h) y / |h|^2.
    """
    y, h, noise_var = received
    power = h.abs().square()
    return h.conj() * y / (power + noise_var if mmse else power).clamp_min(1e-12)


def white_noise(x: Tensor, snr_db: float | Tensor, generators: Sequence[Generator]) -> tuple[Tensor, Tensor]:
    """Draw n [B, K] ~ CN(0, noise_var); returns n and noise_var [B, 1]. Arguments and errors as in `noise.awgn`."""
    if x.ndim != 2 or not x.is_complex():
        raise ValueError(f"x must be [B, K] complex, got {list(x.shape)} {x.dtype}")
    if len(generators) != len(x):
        raise ValueError(f"{len(x)} images need as many generators, got {len(generators)}")
    snr_db = torch.as_tensor(snr_db, dtype=torch.float32, device=x.device)
    if tuple(snr_db.shape) not in ((), (len(x),)) or not snr_db.isfinite().all():
        raise ValueError(f"snr_db must be a finite number or {len(x)} of them, got {snr_db.tolist()}")
    noise_var = (10 ** (-snr_db / 10)).expand(len(x))[:, None]  # [B, 1]
    return complex_normal(x, x.shape[1], generators, noise_var), noise_var


def complex_normal(x: Tensor, count: int, generators: Sequence[Generator], variance: float | Tensor = 1.0) -> Tensor:
    """Draw CN(0, variance) [B, count] on x's device, row i from generators[i]."""
    re, im = draw_noise(x.new_empty(len(x), 2, count, dtype=torch.float32), generators).unbind(1)  # N(0, 1) each
    return torch.complex(re, im) * (torch.as_tensor(variance) / 2).sqrt()


def uniform(x: Tensor, count: int, generators: Sequence[Generator]) -> Tensor:
    """Draw [B, count] uniformly from [0, 1) on x's device, row i from generators[i]."""
    return torch.stack([torch.rand(count, generator=g) for g in generators]).to(x.device)
