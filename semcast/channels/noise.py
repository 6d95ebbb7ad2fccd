"""Additive noise, Gaussian and impulsive, and a clipping amplifier. snr_db sets the average noise power."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from ..arrays import Array, array_namespace
from .base import Received, ones, uniform, white_noise


def awgn(x: Array, snr_db: float | Array, generators: Sequence[Generator]) -> Received:
    """Additive white Gaussian noise, y = x + n.

    Args:
        x: channel input, [B, K] complex, unit power per image (`modulation.analog.modulate`).
        snr_db: Es/N0 in dB; a number, or one value per image as [B].
        generators: one per image, the only source of randomness, so an image's noise does not depend on its batch.

    Raises:
        ValueError: x is not [B, K] complex, snr_db is not finite or not a number or [B], or a generator is missing.
    """
    n, noise_var = white_noise(x, snr_db, generators)
    return Received(x + n, ones(x), noise_var)


def impulsive(
    x: Array, snr_db: float | Array, generators: Sequence[Generator], rate: float, impulse_db: float, known: str
) -> Received:
    """Bernoulli-Gaussian noise: white noise, to which an impulse is added with probability `rate` per symbol.

    Args:
        impulse_db: mean power of an impulse over that of the white noise.
        known: the noise power that the receiver is told: "average", the mean, or "symbol", that of each symbol.

    Source: Ghosh 1996, "Analysis of the effect of impulse noise on multicarrier and single carrier QAM systems".
    """
    n, noise_var = white_noise(x, snr_db, generators)
    impulse = 10 ** (impulse_db / 10)
    hit = uniform(x, x.shape[1], generators) < rate
    scale = (1 + impulse * array_namespace(x).astype(hit, noise_var.dtype)) / (1 + rate * impulse)  # mean 1
    return scaled_noise(x, n, noise_var, scale, known)


def middleton(
    x: Array, snr_db: float | Array, generators: Sequence[Generator], index: float, ratio_db: float, known: str
) -> Received:
    """Middleton class A noise: m ~ Poisson(index) impulses overlap in each symbol.

    They scale the noise variance by (m / index + ratio) / (1 + ratio), which has the mean 1.

    Args:
        index: A, mean number of overlapping impulses; a small one gives spikes, a large one Gaussian noise.
        ratio_db: Gamma, power of the Gaussian part over that of the impulses.
        known: as in `impulsive`.

    Source: Middleton 1977, "Statistical-physical models of electromagnetic interference".
    """
    n, noise_var = white_noise(x, snr_db, generators)
    ratio = 10 ** (ratio_db / 10)
    drawn = np.stack([g.poisson(index, x.shape[1]) for g in generators]).astype(np.float32)
    count = array_namespace(x).asarray(drawn, device=x.device)  # [B, K]
    return scaled_noise(x, n, noise_var, (count / index + ratio) / (1 + ratio), known)


def scaled_noise(x: Array, n: Array, noise_var: Array, scale: Array, known: str) -> Received:
    """Add n, which has the variance noise_var [B, 1], with its variance scaled by scale [B, K]."""
    told = noise_var * scale if known == "symbol" else noise_var
    return Received(x + n * scale**0.5, ones(x), told)


def clipping(x: Array, snr_db: float | Array, generators: Sequence[Generator], papr_db: float) -> Received:
    """An amplifier that clips amplitudes and keeps phases, then AWGN: y = clip(x) + n.

    By Bussgang's theorem clip(x) = h x + d, where d is uncorrelated with x and h = E[x* clip(x)] / E|x|^2. The receiver
    is told h and noise_var = Var(n) + Var(d), measured on this picture's symbols; d is neither Gaussian nor independent
    of x. The clipped power is not restored: snr_db refers to the power before the amplifier.

    Args:
        papr_db: largest |clip(x)|^2 over the mean |x|^2, in dB.

    Source: Ochiai & Imai 2002, "Performance analysis of deliberately clipped OFDM signals", equations 9 to 13.
    """
    xp = array_namespace(x)
    n, noise_var = white_noise(x, snr_db, generators)
    mean = lambda values: xp.mean(values, axis=1, keepdims=True)  # [B, 1]
    size = xp.abs(x)
    power = mean(size**2)
    clipped = x * xp.clip((10 ** (papr_db / 10) * power) ** 0.5 / xp.clip(size, 1e-12, None), None, 1)
    h = mean(size * xp.abs(clipped)) / xp.clip(power, 1e-12, None)
    distortion = xp.clip(mean(xp.abs(clipped) ** 2) - h**2 * power, 0, None)
    return Received(clipped + n, xp.astype(h, x.dtype), noise_var + distortion)
