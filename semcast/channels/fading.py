"""Flat fading: y = h x + n with a random gain h that the receiver knows."""

import math
from collections.abc import Sequence

from numpy.random import Generator

from ..arrays import Array
from .base import Received, complex_normal, white_noise


def rayleigh(x: Array, snr_db: float | Array, generators: Sequence[Generator]) -> Received:
    """Flat Rayleigh block fading, y = h x + n, with one gain h ~ CN(0, 1) per image that the receiver knows.

    Source: Tse & Viswanath, Fundamentals of Wireless Communication (2005), 2.4.2.
    """
    n, noise_var = white_noise(x, snr_db, generators)
    h = complex_normal(x, 1, generators)  # [B, 1]
    return Received(h * x + n, h, noise_var)


def rayleigh_fast(x: Array, snr_db: float | Array, generators: Sequence[Generator]) -> Received:
    """As `rayleigh`, with an independent gain for every symbol, h [B, K]: ideally interleaved fading."""
    n, noise_var = white_noise(x, snr_db, generators)
    h = complex_normal(x, x.shape[1], generators)
    return Received(h * x + n, h, noise_var)


def rician(x: Array, snr_db: float | Array, generators: Sequence[Generator], k_db: float) -> Received:
    """Flat Rician block fading: h = sqrt(K / (K + 1)) + sqrt(1 / (K + 1)) CN(0, 1), E|h|^2 = 1, known to the receiver.

    Args:
        k_db: K, power of the direct path over that of all others, in dB.

    Source: Tse & Viswanath (2005), equation 2.55. The direct path has phase 0, which makes no difference if h is known.
    """
    n, noise_var = white_noise(x, snr_db, generators)
    k = 10 ** (k_db / 10)
    h = math.sqrt(k / (k + 1)) + math.sqrt(1 / (k + 1)) * complex_normal(x, 1, generators)
    return Received(h * x + n, h, noise_var)
