"""How much k complex channel uses can carry: Shannon's capacity, and the normal approximation for a finite k.

The channel is complex AWGN, y = x + n with mean |x|^2 = snr Var(n).
Source: Polyanskiy, Poor & Verdu 2010, "Channel coding rate in the finite blocklength regime", theorem 54 and equation
223, written for complex uses (two real ones each).
"""

import math
from statistics import NormalDist

import numpy as np

from ..channels.base import Received

SNR_MIN_DB, SNR_MAX_DB = -40.0, 80.0  # search range of `required_snr_db`


def capacity(snr_db: float) -> float:
    """C = log2(1 + snr), bits per use."""
    return math.log2(1 + 10 ** (snr_db / 10))


def dispersion(snr_db: float) -> float:
    """V = (1 - 1 / (1 + snr)^2) log2(e)^2, bits^2 per use."""
    return (1 - (1 + 10 ** (snr_db / 10)) ** -2) * math.log2(math.e) ** 2


def normal_approximation(k: int, snr_db: float, error: float) -> float:
    """Bits that k uses carry at the block error probability `error`: k C - sqrt(k V) Q^-1(error) + log2(2 k) / 2."""
    bits = (
        k * capacity(snr_db)
        - math.sqrt(k * dispersion(snr_db)) * NormalDist().inv_cdf(1 - error)
        + math.log2(2 * k) / 2
    )
    return max(bits, 0.0)


def required_snr_db(bits: float, k: int, error: float) -> float:
    """The SNR at which the normal approximation carries `bits` in k uses, to 0.001 dB."""
    low, high = SNR_MIN_DB, SNR_MAX_DB
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if normal_approximation(k, middle, error) < bits else (low, middle)
    return high


def effective_snr_db(received: Received) -> np.ndarray:
    """The SNR [B] of the AWGN channel with the same mean capacity per symbol; -inf if every symbol is lost.

    It serves link adaptation on a fading channel whose state the transmitter knows.
    """
    bits = np.log2(1 + np.abs(received.h) ** 2 / received.noise_var)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(2 ** np.broadcast_to(bits, received.y.shape).mean(axis=1) - 1)
