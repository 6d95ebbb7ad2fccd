"""The interface of all channels: unit-power complex symbols in, noisy complex symbols out.

Notation in this package:
    x, y       [B, K] complex   K channel uses per image; mean |x|^2 = 1 per image
    snr_db     number or [B]    Es/N0 = 10 log10(mean |x|^2 / noise_var) per complex symbol, averaged over fading
    noise_var  linear           total per complex symbol, so half per real dimension; infinite where a symbol is lost
A channel never rescales x. Everything that a receiver may know about the channel is in Received. y has the order of x:
a channel that interleaves also deinterleaves.

A channel is a plain function f(x, snr_db, generators, **options) -> Received; `catalogue.CHANNELS` lists them. Its only
source of randomness is one generator per image, so an image's channel does not depend on its batch. Every channel draws
the noise first, so the same seed gives the same noise on many channels.

Arrays are numpy's, or in training torch tensors: channels use what the Array API standard names for both.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from ..arrays import Array, array_namespace
from ..randomness import draw_noise


class Received(NamedTuple):
    """The result of a channel, y = h x + n."""

    y: Array  # [B, K] complex, the received symbols
    h: Array  # [B, K] or [B, 1] complex, channel gain; all ones for AWGN
    noise_var: Array  # [B, K] or [B, 1] real, linear, Var(n) per complex symbol


def equalise(received: Received, mmse: bool = True) -> Array:
    """Estimate x [B, K].

    Args:
        mmse: conj(h) y / (|h|^2 + noise_var), the MMSE estimate for x of unit power; else conj(h) y / |h|^2.
    """
    y, h, noise_var = received
    xp = array_namespace(y)
    power = xp.abs(h) ** 2
    return xp.conj(h) * y / xp.clip(power + noise_var if mmse else power, 1e-12, None)


def ones(x: Array) -> Array:
    """The channel gain [B, 1] of a channel that has none."""
    return array_namespace(x).ones_like(x[:, :1])


def white_noise(x: Array, snr_db: float | Array, generators: Sequence[Generator]) -> tuple[Array, Array]:
    """Draw n [B, K] ~ CN(0, noise_var); returns n and noise_var [B, 1]. Arguments and errors as in `noise.awgn`."""
    xp = array_namespace(x)
    if x.ndim != 2 or not xp.isdtype(x.dtype, "complex floating"):
        raise ValueError(f"x must be [B, K] complex, got {list(x.shape)} {x.dtype}")
    if len(generators) != len(x):
        raise ValueError(f"{len(x)} images need as many generators, got {len(generators)}")
    db = xp.asarray(snr_db, dtype=xp.float32, device=x.device)
    if tuple(db.shape) not in ((), (len(x),)) or not xp.all(xp.isfinite(db)):
        raise ValueError(f"snr_db must be a finite number or {len(x)} of them, got {db.tolist()}")
    noise_var = xp.broadcast_to(10 ** (-db / 10), (len(x),))[:, None]  # [B, 1]
    return complex_normal(x, x.shape[1], generators, noise_var), noise_var


def complex_normal(x: Array, count: int, generators: Sequence[Generator], variance: float | Array = 1.0) -> Array:
    """Draw CN(0, variance) [B, count] on x's device, row i from generators[i]."""
    xp = array_namespace(x)
    like = xp.empty((len(x), 2, count), dtype=xp.float32, device=x.device)
    parts = draw_noise(like, generators)  # N(0, 1) each
    return (parts[:, 0] + 1j * parts[:, 1]) * (variance / 2) ** 0.5


def uniform(x: Array, count: int, generators: Sequence[Generator]) -> Array:
    """Draw [B, count] uniformly from [0, 1) on x's device, row i from generators[i]."""
    drawn = np.stack([g.random(count, np.float32) for g in generators])
    return array_namespace(x).asarray(drawn, device=x.device)
